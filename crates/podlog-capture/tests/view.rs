//! What a container sees, and that the host stays as it was.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{NOBODY, Scene, is_root};
use podlog_container::Process;

/// Directories in which mount points are asked for: nothing may appear in them.
const WATCHED: [&str; 5] = ["/", "/etc", "/run", "/usr", "/var"];

fn host() -> BTreeMap<String, Vec<String>> {
    let names = |dir: &str| {
        let entries = fs::read_dir(dir).expect("list");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("entry").file_name().display().to_string()).collect();
        names.sort();
        names
    };
    let mounts =
        fs::read_to_string("/proc/self/mountinfo").expect("mountinfo").lines().map(str::to_owned).collect();
    let mut host: BTreeMap<_, _> = WATCHED.iter().map(|&dir| (dir.to_owned(), names(dir))).collect();
    host.insert("mounts".to_owned(), mounts);
    host
}

struct Volumes(tempfile::TempDir);

impl Volumes {
    fn new() -> Self {
        let temp = tempfile::tempdir().expect("a temporary directory");
        for dir in ["data", "secret", "inner"] {
            fs::create_dir(temp.path().join(dir)).expect("mkdir");
            fs::write(temp.path().join(dir).join("file"), format!("{dir} file")).expect("write");
        }
        fs::write(temp.path().join("hosts"), "127.0.0.1 pod\n").expect("write");
        Self(temp)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }
}

/// Both ways to make a view: as root, and in a user namespace.
fn both(check: impl Fn(&dyn Fn(Scene) -> Scene, &Volumes)) {
    check(&|scene| scene, &Volumes::new());
    if is_root() {
        let volumes = Volumes::new();
        let own = |path: &Path| std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("chown");
        ["", "data", "secret", "inner", "hosts"].iter().for_each(|name| own(&volumes.path(name)));
        check(&|scene| scene.by_nobody(), &volumes);
    }
}

#[test]
fn volumes_appear_where_nothing_is_on_the_host() {
    let before = host();
    both(|prepare, volumes| {
        let script = "cat /podlog-a/b/c/file /run/podlog-x/y/file /etc/podlog.d/file /usr/podlog-file; echo
            test -x /bin/sh && test -d /usr/bin && test -r /proc/self/status && test -c /dev/null && echo host is there
            echo new > /podlog-a/b/c/new; ls /podlog-a /podlog-a/b; ls -a /run /etc | grep -c podlog-covered
            touch /podlog-elsewhere && echo root is writable; stat -c %a:%F /etc /run; sleep 0.01";
        let scene = prepare(Scene::script(script))
            .mount(&volumes.path("data"), "/podlog-a/b/c", false)
            .mount(&volumes.path("secret"), "/var/run/podlog-x/y", true)
            .mount(&volumes.path("inner"), "/etc/podlog.d", true)
            .mount(&volumes.path("hosts"), "/usr/podlog-file", true);
        assert_eq!(scene.run().exit_code, 0, "{}", String::from_utf8_lossy(&scene.output("stderr")));
        let expected = "data filesecret fileinner file127.0.0.1 pod\n\nhost is there\nb\nc\n0\n\
            root is writable\n755:directory\n755:directory\n";
        assert_eq!(
            scene.stdout().replace("/podlog-a:\n", "").replace("/podlog-a/b:\n", "").replace("\n\nc", "\nc"),
            expected
        );
        assert_eq!(fs::read_to_string(volumes.path("data/new")).expect("written through"), "new\n");
    });
    assert_eq!(host(), before, "the host is unchanged");
}

#[test]
fn volumes_cover_what_exists() {
    both(|prepare, volumes| {
        let script = "cat /etc/hosts; cat /mnt/file; (echo x > /etc/hosts) 2>&1 | grep -o 'Read-only file system'
            (echo x > /mnt/other) 2>&1 | grep -o 'Read-only file system'; grep -c . /etc/passwd | grep -v '^0'";
        let scene = prepare(Scene::script(script)).mount(&volumes.path("hosts"), "/etc/hosts", true).mount(
            &volumes.path("secret"),
            "/mnt",
            true,
        );
        let exit = scene.run();
        let passwd = fs::read_to_string("/etc/passwd").expect("passwd").lines().count();
        let expected =
            format!("127.0.0.1 pod\nsecret fileRead-only file system\nRead-only file system\n{passwd}\n");
        assert_eq!((scene.stdout(), exit.exit_code), (expected, 0));
    });
}

#[test]
fn mounts_nest() {
    both(|prepare, volumes| {
        // Inside a read-only volume, inside a writable one, and above one that is mounted already.
        let script = "cat /podlog-ro/file /podlog-ro/deep/er/file /podlog-rw/file /podlog-rw/sub/file; echo
            (echo x > /podlog-ro/file) 2>&1 | grep -o 'Read-only file system'; echo x > /podlog-ro/deep/er/x; echo y > /podlog-rw/y";
        let scene = prepare(Scene::script(script))
            .mount(&volumes.path("inner"), "/podlog-ro/deep/er", false)
            .mount(&volumes.path("secret"), "/podlog-ro", true)
            .mount(&volumes.path("secret"), "/podlog-rw/sub", true)
            .mount(&volumes.path("data"), "/podlog-rw", false);
        assert_eq!(scene.run().exit_code, 0, "{}", String::from_utf8_lossy(&scene.output("stderr")));
        assert_eq!(scene.stdout(), "secret fileinner filedata filesecret file\nRead-only file system\n");
        assert!(volumes.path("inner/x").exists() && volumes.path("data/y").exists());
        assert!(!volumes.path("secret/deep").exists(), "a read-only volume is not written to");
    });
}

#[test]
fn odd_mount_points() {
    let links = tempfile::tempdir().expect("a temporary directory");
    std::os::unix::fs::symlink("/podlog-nowhere/target", links.path().join("dangling")).expect("link");
    let (dangling, dotted) = (links.path().join("dangling").display().to_string(), "/etc/../podlog-d/./x");
    let volumes = Volumes::new();
    if !is_root() {
        return;
    }
    let scene = Scene::script(&format!("cat {dangling}/file /podlog-nowhere/target/file /podlog-d/x/file"))
        .mount(&volumes.path("data"), &dangling, false)
        .mount(&volumes.path("inner"), dotted, false);
    assert_eq!(scene.run().exit_code, 0, "{}", String::from_utf8_lossy(&scene.output("stderr")));
    assert_eq!(scene.stdout(), "data filedata fileinner file");
    let rows = [
        ("data", "/etc/passwd", "/etc/passwd is not a directory"),
        ("hosts", "/etc", "/etc is a directory"),
        ("data", "/etc/passwd/x", "not a directory"),
        ("gone", "/mnt", "no such file or directory"),
    ];
    for (source, target, why) in rows {
        let message = Scene::script("true").mount(&volumes.path(source), target, false).start_error();
        let expected = format!("error mounting {:?} at {target:?}: ", volumes.path(source).display());
        assert!(message.starts_with(&expected) && message.ends_with(why), "{message}");
    }
}

#[test]
fn a_read_only_root() {
    both(|prepare, volumes| {
        let script =
            "for f in /podlog-x /tmp/podlog-x /etc/podlog-x /podlog-v/podlog-x /dev/null /podlog-v/data/x; do
                (echo x > $f) 2>/dev/null && echo $f; done; true";
        let scene = prepare(Scene::script(script))
            .mount(&volumes.path("data"), "/podlog-v/data", false)
            .with(|process| process.readonly_rootfs = true);
        assert_eq!(scene.run().exit_code, 0);
        assert_eq!(scene.stdout(), "/dev/null\n/podlog-v/data/x\n", "{:?}", scene.output("stderr"));
    });
}

#[test]
fn a_hostname_of_its_own() {
    both(|prepare, _| {
        let scene =
            prepare(Scene::script("uname -n")).with(|process| process.hostname = Some("web-0".to_owned()));
        assert_eq!(scene.run().exit_code, 0);
        assert_eq!(scene.stdout(), "web-0\n");
    });
}

#[test]
fn users_and_groups() {
    if !is_root() {
        return;
    }
    let id =
        "echo $(id -u):$(id -g):$(id -G):$HOME; echo again > /dev/stdout; grep NoNewPrivs /proc/self/status";
    let set = |uid, gid, groups: &[u32]| {
        let groups = groups.to_vec();
        move |process: &mut Process| {
            process.user.uid = uid;
            process.user.gid = gid;
            process.user.supplemental_groups = groups;
            process.no_new_privileges = true;
        }
    };
    for (uid, gid, groups, expected) in [
        (Some(4711), Some(4712), &[7, 8][..], "4711:4712:4712 7 8:/"),
        (Some(4711), None, &[], "4711:0:0:/"),
        (None, None, &[9], "0:0:0 9:/root"),
    ] {
        let scene = Scene::script(id).with(set(uid, gid, groups));
        assert_eq!(scene.run().exit_code, 0);
        assert_eq!(scene.stdout(), format!("{expected}\nagain\nNoNewPrivs:\t1\n"));
    }
    let message = Scene::script(id).with(set(Some(0), None, &[])).by_nobody().start_error();
    assert_eq!(message, "cannot run as user 0: podlog runs as user 65534, not as root");
    let message = Scene::script(id).with(set(None, None, &[7])).by_nobody().start_error();
    assert_eq!(message, "cannot run with group 7: podlog runs as user 65534, not as root");
    let scene = Scene::script(id).with(set(Some(NOBODY), None, &[])).by_nobody();
    assert_eq!(scene.run().exit_code, 0);
}

#[test]
fn a_private_working_directory() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().expect("a temporary directory");
    let cwd = temp.path().to_owned();
    fs::set_permissions(&cwd, fs::Permissions::from_mode(0o700)).expect("chmod");
    let scene = Scene::script("pwd").with(|process| {
        process.cwd = Some(cwd.clone());
        process.user.uid = Some(4711);
    });
    assert_eq!(scene.run().exit_code, 0, "root may enter it before it becomes the user, as runc does");
    assert_eq!(scene.stdout(), format!("{}\n", cwd.display()));
}

#[test]
fn devices_work_beside_a_file_in_dev() {
    both(|prepare, volumes| {
        let script = "cat /dev/podlog-log; echo x > /dev/null && head -c 3 /dev/zero | wc -c; test -t 0 && ls /dev/pts/ptmx";
        let scene = prepare(Scene::script(script))
            .mount(&volumes.path("hosts"), "/dev/podlog-log", false)
            .with(|process| process.tty = true);
        assert_eq!(scene.run().exit_code, 0, "{}", scene.stdout());
        assert_eq!(scene.stdout(), "127.0.0.1 pod\r\n3\r\n/dev/pts/ptmx\r\n");
    });
    assert!(!Path::new("/dev/podlog-log").exists());
}

#[test]
fn mounts_of_the_host_arrive_when_asked_for() {
    if !is_root() {
        return;
    }
    // The host is one level down, so that this test mounts nothing where others see it.
    let outer = tempfile::tempdir().expect("a temporary directory");
    let script = "mount -t tmpfs tmpfs \"$0\" && mount --make-shared \"$0\" && mkdir \"$0/private\" \"$0/slave\" &&
        (until [ -e \"$0/go\" ]; do sleep 0.01; done; for d in private slave; do
            mkdir \"$0/$d/m\"; mount -t tmpfs tmpfs \"$0/$d/m\"; touch \"$0/$d/m/late\"; done; touch \"$0/done\"; sleep 1000) &
        until [ -d \"$0/slave\" ]; do sleep 0.01; done; exec \"$@\"";
    let inner = "touch /podlog-host/go; until [ -e /podlog-host/done ]; do sleep 0.01; done; ls /podlog-p/m /podlog-s/m";
    let slave = podlog_container::Propagation::HostToContainer;
    let scene = Scene::script(inner)
        .mount(outer.path(), "/podlog-host", false)
        .mount(&outer.path().join("private"), "/podlog-p", false)
        .mount(&outer.path().join("slave"), "/podlog-s", false)
        .with(|process| process.mounts.last_mut().expect("mount").propagation = slave)
        .within(&["unshare", "-m", "sh", "-c", script, &outer.path().display().to_string()]);
    assert_eq!(scene.run().exit_code, 0, "{}", String::from_utf8_lossy(&scene.output("stderr")));
    assert_eq!(scene.stdout(), "/podlog-p/m:\n\n/podlog-s/m:\nlate\n");
}
