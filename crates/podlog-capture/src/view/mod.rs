//! What a container sees of the machine: namespaces of its own, in which its mounts are.

mod mount_points;
mod shadow;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use podlog_container::{Mount, Process, Propagation};
use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_change, mount_remount,
    move_mount, open_tree,
};
use rustix::process::{Pid, getegid, geteuid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::sys::{self, Access};
use crate::text::{failed, reason};
use mount_points::MountPoints;
use shadow::Kind;

/// What a process in a view may change about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// What it could outside.
    Host,
    /// In a user namespace that knows no other ids than these.
    OwnIdsOnly { uid: u32, gid: u32 },
}

/// The namespaces a view can have, in the order in which they can be joined.
const NAMESPACES: [(&str, LinkNameSpaceType); 3] = [
    ("user", LinkNameSpaceType::User),
    ("mnt", LinkNameSpaceType::Mount),
    ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
];

/// Moves this process into a new view with the mounts of `process`. `staging` is a directory that may be mounted over
/// inside the view. Without mounts there is nothing to hide from the host, and no namespace is needed.
///
/// # Errors
/// When the system refuses, or a mount's source does not exist.
pub(crate) fn enter(process: &Process, staging: &Path) -> Result<Privilege, String> {
    let needs_mounts = !process.mounts.is_empty() || process.readonly_rootfs;
    if !needs_mounts && process.hostname.is_none() {
        return Ok(Privilege::Host);
    }
    let privilege = match isolate() {
        Ok(privilege) => privilege,
        // A hostname alone is not worth a container.
        Err(_) if !needs_mounts => return Ok(Privilege::Host),
        Err(error) => return Err(refused(error)),
    };
    detach(privilege)?;
    if let Some(hostname) = &process.hostname {
        rustix::system::sethostname(hostname.as_bytes())
            .map_err(failed(format!("set hostname {hostname:?}")))?;
    }
    mount_all(process, staging)?;
    Ok(privilege)
}

/// Moves this process into the view of another one.
///
/// # Errors
/// When the other process has ended, or the system refuses.
pub(crate) fn join(pid: Pid) -> Result<Privilege, String> {
    let mut privilege = Privilege::Host;
    let mut opened = Vec::new();
    for (name, kind) in NAMESPACES {
        let theirs = format!("/proc/{}/ns/{name}", pid.as_raw_nonzero());
        let identity = |path: &str| {
            fs::metadata(path).map(|metadata| metadata.ino()).map_err(failed(format!("stat {path}")))
        };
        if identity(&theirs)? != identity(&format!("/proc/self/ns/{name}"))? {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let descriptor =
                rustix::fs::open(&theirs, flags, Mode::empty()).map_err(failed(format!("open {theirs}")))?;
            opened.push((name, kind, descriptor));
        }
    }
    for (name, kind, descriptor) in opened {
        move_into_link_name_space(descriptor.as_fd(), Some(kind))
            .map_err(failed(format!("join {name} namespace")))?;
        if name == "user" {
            privilege = Privilege::OwnIdsOnly { uid: geteuid().as_raw(), gid: getegid().as_raw() };
        }
    }
    Ok(privilege)
}

/// Makes the namespaces: as root just those that are needed, else inside a user namespace.
fn isolate() -> Result<Privilege, Errno> {
    let namespaces = UnshareFlags::NEWNS | UnshareFlags::NEWUTS;
    match sys::unshare(namespaces) {
        Ok(()) => Ok(Privilege::Host),
        Err(Errno::PERM) => {
            let own = (geteuid().as_raw(), getegid().as_raw());
            sys::unshare(namespaces | UnshareFlags::NEWUSER)
                .map(|()| Privilege::OwnIdsOnly { uid: own.0, gid: own.1 })
        }
        Err(error) => Err(error),
    }
}

fn refused(error: Errno) -> String {
    let hint = "run podlog as root, or let users make user namespaces (sysctl user.max_user_namespaces, \
                kernel.apparmor_restrict_unprivileged_userns)";
    format!("cannot make namespaces for the container's volumes: {}; {hint}", reason(error))
}

fn detach(privilege: Privilege) -> Result<(), String> {
    if let Privilege::OwnIdsOnly { uid, gid } = privilege {
        map_own_ids(uid, gid)?;
    }
    // What the host mounts later shall appear; what is mounted here must not appear on the host.
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", slave).map_err(failed("make mounts private"))
}

/// In a user namespace without privileges outside, a process can only be who it is.
fn map_own_ids(uid: u32, gid: u32) -> Result<(), String> {
    let files = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{uid} {uid} 1")),
        ("/proc/self/gid_map", format!("{gid} {gid} 1")),
    ];
    for (path, text) in files {
        fs::write(path, text).map_err(failed(format!("write {path}")))?;
    }
    Ok(())
}

/// A mount whose source has been taken hold of, so that no other mount can hide it.
struct Held<'a> {
    mount: &'a Mount,
    tree: OwnedFd,
    kind: Kind,
}

fn mount_all(process: &Process, staging: &Path) -> Result<(), String> {
    let mut held = process.mounts.iter().map(hold).collect::<Result<Vec<_>, _>>()?;
    // Parents before what is mounted inside them, else in the order given.
    held.sort_by_key(|held| held.mount.target.components().count());
    if process.readonly_rootfs {
        freeze_root()?;
    }
    let mut points = MountPoints::new(staging);
    for held in &held {
        attach(held, &mut points)?;
    }
    if process.readonly_rootfs {
        points.freeze_shadows()?;
    }
    Ok(())
}

fn hold(mount: &Mount) -> Result<Held<'_>, String> {
    let error = |error: Errno| describe(mount, &reason(error));
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let kind = Kind::of(&mount.source).map_err(|error| describe(mount, &error))?;
    let tree = open_tree(CWD, &mount.source, flags).map_err(error)?;
    Ok(Held { mount, tree, kind })
}

fn attach(held: &Held<'_>, points: &mut MountPoints) -> Result<(), String> {
    let mount = held.mount;
    let target = points.make(&mount.target, held.kind).map_err(|error| describe(mount, &error))?;
    let error = |error: Errno| describe(mount, &reason(error));
    move_mount(&held.tree, "", CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(error)?;
    if mount.propagation == Propagation::Private {
        mount_change(&target, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(error)?;
    }
    if mount.readonly {
        make_readonly(&target).map_err(error)?;
    }
    points.mounted(target, if mount.readonly { Access::ReadOnly } else { Access::ReadWrite });
    Ok(())
}

fn describe(mount: &Mount, why: &str) -> String {
    format!("error mounting {:?} at {:?}: {why}", mount.source.display(), mount.target.display())
}

/// Makes one mount read-only, without the mounts below it, as runtimes do for `readOnly: true`. Restrictions that the
/// mount has already must be repeated: in a user namespace they may not be lifted.
fn make_readonly(path: &Path) -> Result<(), Errno> {
    let now = rustix::fs::statvfs(path)?.f_flag;
    let kept = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let kept = kept.into_iter().filter(|(flag, _)| now.contains(*flag)).map(|(_, flag)| flag);
    let flags = kept.fold(MountFlags::BIND | MountFlags::RDONLY, |all, flag| all | flag);
    mount_remount(path, flags, "")
}

/// `readOnlyRootFilesystem`: the host's files cannot be written. `/dev` and `/proc` stay as they are, as in any container.
fn freeze_root() -> Result<(), String> {
    let set = |path, access| sys::set_tree_access(CWD, path, access);
    set(c"/", Access::ReadOnly).map_err(failed("make the root file system read-only"))?;
    for path in [c"/dev", c"/proc"] {
        set(path, Access::ReadWrite).map_err(failed(format!("leave {path:?} writable")))?;
    }
    Ok(())
}
