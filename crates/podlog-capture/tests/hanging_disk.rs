//! A log on a file system that does not answer, as a network's may: a frozen one, on which every write waits for ever.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Scene, eventually};
use podlog_container::{BackPressure, Liveness};
use podlog_line::{GAP_TAG, Gap};

/// A file system of its own in a file.
struct Disk {
    directory: tempfile::TempDir,
}

impl Disk {
    fn mount() -> Option<Disk> {
        let directory = tempfile::tempdir().expect("a directory");
        let (image, point) = (directory.path().join("image"), directory.path().join("disk"));
        fs::create_dir(&point).expect("mkdir");
        let file = fs::File::create(&image).expect("a file");
        file.set_len(32 << 20).expect("room");
        let is_mounted = run("mkfs.ext4", &["-q", "-F"], &image)
            && Command::new("mount")
                .args(["-o", "loop"])
                .args([&image, &point])
                .output()
                .is_ok_and(|output| output.status.success());
        let disk = Disk { directory };
        // Where that is not allowed, nothing waits yet.
        if is_mounted && run("fsfreeze", &["--freeze"], &disk.path()) && disk.thaw() {
            return Some(disk);
        }
        #[expect(clippy::print_stderr, reason = "a test that does nothing must say so")]
        {
            eprintln!("SKIPPED: this test needs root, loop devices, mkfs.ext4 and fsfreeze");
        }
        None
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    fn freeze(&self) {
        assert!(run("fsfreeze", &["--freeze"], &self.path()), "fsfreeze");
    }

    fn thaw(&self) -> bool {
        run("fsfreeze", &["--unfreeze"], &self.path())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.thaw();
        run("umount", &["-l"], &self.path());
    }
}

fn run(program: &str, arguments: &[&str], path: &Path) -> bool {
    Command::new(program).args(arguments).arg(path).output().is_ok_and(|output| output.status.success())
}

/// A program that prints its numbers when the disk does not answer any more.
fn scene(disk: &Disk, policy: BackPressure, then: &str) -> Scene {
    scene_of(disk, policy, &format!("seq {LINES}; : > printed; {then}"))
}

/// A program that goes on when the disk does not answer any more.
fn scene_of(disk: &Disk, policy: BackPressure, then: &str) -> Scene {
    let scene = Scene::script(&format!("echo up; until [ -e begin ]; do sleep 0.01; done; {then}"));
    let (cwd, log) = (scene.temp.path().to_owned(), disk.path().join("0.log"));
    scene.with(|process| {
        process.cwd = Some(cwd);
        process.log.path = log;
        process.log.back_pressure = policy;
        process.log.buffer_bytes = 64 * 1024;
    })
}

const LINES: usize = 600_000;

/// Bytes that the program printed: in the log, and declared there.
fn found(scene: &Scene) -> (u64, u64) {
    let (mut logged, mut declared) = (0, 0);
    for record in scene.all_files() {
        if record.tag.strip_prefix("F:") == Some(GAP_TAG) {
            declared += Gap::parse_content(&record.content).and_then(|gap| gap.bytes).expect("counted");
        } else {
            logged += record.content.len() as u64 + u64::from(record.tag == "F");
        }
    }
    (logged, declared)
}

fn printed() -> u64 {
    "up\n".len() as u64 + (1..=LINES).map(|number| number.to_string().len() as u64 + 1).sum::<u64>()
}

#[test]
fn a_program_does_not_wait_for_a_write_that_hangs() {
    for policy in [BackPressure::DropNewest, BackPressure::DropOldest] {
        let Some(disk) = Disk::mount() else { return };
        let scene = scene(&disk, policy, "until [ -e go ]; do sleep 0.01; done; echo last");
        let file = |name: &str| scene.temp.path().join(name);
        scene.start();
        scene.wait_for("up");
        disk.freeze();
        fs::write(file("begin"), "").expect("write");
        eventually("the program's end of printing", || file("printed").exists().then_some(()));
        assert!(disk.thaw());
        fs::write(file("go"), "").expect("write");
        let exit = scene.exit();
        assert_eq!((exit.exit_code, exit.message.as_str(), exit.lost_bytes), (0, "", 0), "{policy:?}");
        let (logged, declared) = found(&scene);
        assert!(declared > 1 << 20, "{declared} bytes are declared missing");
        assert_eq!(logged + declared, printed() + "last\n".len() as u64, "{policy:?}");
    }
}

/// Nothing more than this fits the program's pipe, with what its copier has in its hands.
const BLOCKED: &str = "head -c 600000 /dev/zero | tr '\\0' 'x'; exit 3";

#[test]
fn a_container_ends_although_its_log_hangs() {
    std::thread::scope(|scope| {
        for (policy, printing) in [(BackPressure::DropNewest, "exit 3"), (BackPressure::Block, BLOCKED)] {
            scope.spawn(move || ends_although_its_log_hangs(policy, printing));
        }
    });
}

fn ends_although_its_log_hangs(policy: BackPressure, then: &str) {
    let Some(disk) = Disk::mount() else { return };
    let scene = match policy {
        BackPressure::Block => scene_of(&disk, policy, then),
        _ => scene(&disk, policy, then),
    };
    scene.start();
    scene.wait_for("up");
    disk.freeze();
    fs::write(scene.temp.path().join("begin"), "").expect("write");
    let exit = scene.exit();
    assert_eq!(exit.exit_code, 3, "{exit:?}");
    assert!(exit.message.contains("does not answer"), "{exit:?}");
    assert!(disk.thaw());
    eventually("capture's end", || {
        (scene.dir.liveness().expect("liveness") == Liveness::Ended).then_some(())
    });
    // What hung when it was given up is written after all, perhaps.
    let (logged, declared) = found(&scene);
    let printed = if policy == BackPressure::Block { 600_000 + "up\n".len() as u64 } else { printed() };
    assert!(exit.lost_bytes <= printed && logged + declared + exit.lost_bytes >= printed, "{exit:?}");
}
