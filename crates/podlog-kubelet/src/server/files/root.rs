//! The files of a container, from outside.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, open, openat, openat2};
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

/// File systems whose files are the kernel's answers and not files: proc, sysfs, cgroup and cgroup2, debugfs, tracefs,
/// securityfs, bpf, pstore, efivarfs, configfs, SELinux (`linux/magic.h`).
const OF_THE_KERNEL: [u32; 12] = [
    0x9fa0,
    0x6265_6572,
    0x27_e0eb,
    0x6367_7270,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
    0x6165_676c,
    0xde5e_81e4,
    0x6265_6570,
    0xf97c_ff8c,
];
/// Bytes of `/proc/<pid>/status`.
const MAX_STATUS: u64 = 64 * 1024;

/// The root of a container, and whose rights count there.
pub(super) struct ContainerRoot {
    /// `/proc/<pid>/stat` of its first process: stays that one's, whoever gets the number later.
    process: File,
    root: OwnedFd,
    user: User,
}

#[derive(Debug, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    capabilities: CapabilitySet,
}

impl ContainerRoot {
    /// As the process sees it.
    pub(super) fn open(pid: i32) -> io::Result<Self> {
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let process = open(format!("/proc/{pid}"), directory, Mode::empty())?;
        let root = openat(&process, "root", directory, Mode::empty())?;
        let mut status = String::new();
        open_below(&process, "status")?.take(MAX_STATUS).read_to_string(&mut status)?;
        let user =
            User::parse(&status).ok_or_else(|| io::Error::other("the process does not say whose it is"))?;
        Ok(ContainerRoot { process: open_below(&process, "stat")?, root, user })
    }

    /// Takes from this thread, for good, all rights on files that the container's first process does not have.
    pub(super) fn become_its_user(&self) -> io::Result<()> {
        let (own, user) = (geteuid(), &self.user);
        if own.as_raw() == user.uid && !own.is_root() {
            return Ok(());
        }
        let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        // Root may read everything only as far as it was left that: in a container it mostly was not.
        let own = capabilities(None)?;
        let kept = CapabilitySets {
            effective: own.effective & user.capabilities,
            permitted: own.permitted & user.capabilities,
            inheritable: CapabilitySet::empty(),
        };
        Ok(set_capabilities(None, kept)?)
    }

    /// Opens a file: no link and no `..` leads out of the root, and nothing but a regular file is ever opened, as opening
    /// alone can have effects.
    pub(super) fn open_file(&self, path: &str) -> io::Result<File> {
        open_in(&self.root, path)
    }

    /// Opens a directory, likewise.
    pub(super) fn open_directory(&self, path: &str) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat2(&self.root, path, flags, Mode::empty(), resolve)?)
    }

    /// What is in a directory, as far as its names are text.
    pub(super) fn names_in(&self, path: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::new(self.open_directory(path)?)? {
            names.extend(entry?.file_name().to_str().map(str::to_owned));
        }
        Ok(names)
    }

    /// Whether the container's first process is there.
    pub(super) fn is_alive(&self) -> bool {
        self.process.read_at(&mut [0], 0).is_ok_and(|bytes| bytes > 0)
    }
}

fn open_below(directory: &OwnedFd, name: &str) -> io::Result<File> {
    Ok(openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into())
}

fn open_in(root: impl AsFd, path: &str) -> io::Result<File> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    open_found(&found)
}

/// Opens what was found (`O_PATH`) if it is a regular file.
pub(in super::super) fn open_found(found: &OwnedFd) -> io::Result<File> {
    let kind = FileType::from_raw_mode(fstat(found)?.st_mode);
    if kind != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    // Magic numbers have 32 bits.
    if OF_THE_KERNEL.contains(&(fstatfs(found)?.f_type as u32)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not on a file system for files"));
    }
    let itself = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    Ok(open(itself, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?.into())
}

impl User {
    /// From `/proc/<pid>/status`: the ids that count for files are the last.
    fn parse(status: &str) -> Option<Self> {
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let last = |name: &str| line(name)?.split_whitespace().last()?.parse().ok();
        let groups = line("Groups").unwrap_or_default().split_whitespace();
        let effective = line("CapEff").and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
        Some(User {
            uid: last("Uid")?,
            gid: last("Gid")?,
            groups: groups.map(|gid| gid.parse().ok()).collect::<Option<_>>()?,
            capabilities: CapabilitySet::from_bits_retain(effective.unwrap_or_default()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use rustix::fs::{CWD, mknodat};

    use super::*;

    fn read(root: &Path, path: &str) -> Result<String, String> {
        let root = open(root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let mut text = String::new();
        let read = open_in(&root, path).and_then(|mut file| file.read_to_string(&mut text));
        read.map(|_| text).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_leads_out_of_the_root_and_nothing_but_files_is_opened() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        let root = outside.path().join("root");
        fs::create_dir_all(root.join("var/log")).unwrap();
        fs::create_dir(root.join("proc")).unwrap();
        fs::write(root.join("var/log/app.log"), "fine").unwrap();
        let log = |name: &str| root.join("var/log").join(name);
        symlink("app.log", log("current.log")).unwrap();
        symlink("/var/log/app.log", log("absolute.log")).unwrap();
        symlink(outside.path().join("secret"), log("outside.log")).unwrap();
        symlink("../../../secret", log("up.log")).unwrap();
        symlink("../../../../../../../../../../var/log/app.log", log("far-up.log")).unwrap();
        symlink("loop.log", log("loop.log")).unwrap();
        symlink("/proc/self/environ", log("proc.log")).unwrap();
        symlink("/proc/self/root/secret", log("magic.log")).unwrap();
        mknodat(CWD, log("fifo.log"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
        fs::create_dir(log("directory.log")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(log("socket.log")).unwrap();

        for name in ["app.log", "current.log", "absolute.log", "far-up.log"] {
            assert_eq!(read(&root, &format!("/var/log/{name}")), Ok("fine".to_owned()), "{name}");
        }
        let gone = "No such file or directory (os error 2)";
        for (name, why) in [
            ("outside.log", gone),
            ("up.log", gone),
            ("../../../secret", gone),
            ("proc.log", gone),
            ("magic.log", gone),
            ("loop.log", "Too many levels of symbolic links (os error 40)"),
            ("fifo.log", "not a regular file"),
            ("directory.log", "not a regular file"),
            ("socket.log", "not a regular file"),
        ] {
            assert_eq!(read(&root, &format!("/var/log/{name}")), Err(why.to_owned()), "{name}");
        }
        drop(socket);
        let machine = Path::new("/");
        assert_eq!(read(machine, "/dev/null"), Err("not a regular file".to_owned()));
        for path in ["/proc/self/environ", "/proc/version", "/sys/kernel/uevent_seqnum"] {
            let refused = read(machine, path).unwrap_err();
            assert!(
                ["not on a file system for files", gone].contains(&refused.as_str()),
                "{path}: {refused}"
            );
        }
        let refused = read(machine, "/proc/self/root/etc/hostname").unwrap_err();
        assert_eq!(refused, "Too many levels of symbolic links (os error 40)", "a magic link");
    }

    #[test]
    fn a_thread_has_no_more_rights_than_the_container() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("roots.log"), "secret").unwrap();
        fs::write(folder.path().join("all.log"), "fine").unwrap();
        fs::write(folder.path().join("others.log"), "secret").unwrap();
        use std::os::unix::fs::PermissionsExt;
        let chmod = |name: &str, mode| {
            fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        chmod("", 0o755);
        chmod("roots.log", 0o600);
        chmod("all.log", 0o644);
        chmod("others.log", 0o600);
        let pid = i32::try_from(std::process::id()).unwrap();
        let mut root = ContainerRoot::open(pid).unwrap();
        assert!(root.is_alive());
        let (path, denied) = (folder.path().to_str().unwrap(), Some(io::ErrorKind::PermissionDenied));
        let others = rustix::fs::chown(folder.path().join("others.log"), Some(Uid::from_raw(1)), None);
        others.unwrap();
        for (uid, capabilities, expected) in [
            (12345, CapabilitySet::all(), [denied, None, denied]),
            (1, CapabilitySet::empty(), [denied, None, None]),
            (0, CapabilitySet::empty(), [None, None, denied]),
            (0, CapabilitySet::DAC_OVERRIDE, [None, None, None]),
        ] {
            root.user = User { uid, gid: uid, groups: vec![], capabilities };
            let root = &root;
            let read = std::thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    root.become_its_user().unwrap();
                    assert!(root.is_alive());
                    ["roots.log", "all.log", "others.log"].map(|name| {
                        root.open_file(&format!("{path}/{name}")).map_err(|error| error.kind()).err()
                    })
                });
                thread.join().unwrap()
            });
            assert_eq!(read, expected, "{uid} {capabilities:?}");
        }
        assert!(fs::read(folder.path().join("roots.log")).is_ok(), "other threads keep theirs");
    }

    #[test]
    fn processes_say_whose_they_are() {
        let status = "Name:\tsh\nUid:\t0\t1\t2\t3\nGid:\t4\t5\t6\t7\nGroups:\t8 9 \nNSpid:\t1\nCapEff:\t0000000000000003\n";
        let capabilities = CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE;
        assert_eq!(User::parse(status), Some(User { uid: 3, gid: 7, groups: vec![8, 9], capabilities }));
        assert_eq!(User::parse("Uid:\tx\n"), None);
    }
}
