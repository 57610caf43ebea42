//! Output arrives whole.

mod common;

use std::time::{Duration, Instant};

use common::{Scene, eventually};
use podlog_container::control::{Reply, Request};

#[test]
fn bytes_are_kept() {
    let bytes: Vec<u8> = (0..=255u8).filter(|&byte| byte != b'\n').collect();
    let script = "printf 'a\\000b\\377c\\r\\n'; printf '\\n\\n'; printf 'no end'; printf 'err\\n' >&2; printf 'err no end' >&2";
    let scene = Scene::script(script);
    assert_eq!(scene.run().exit_code, 0);
    assert_eq!(scene.output("stdout"), b"a\0b\xffc\r\n\n\nno end");
    assert_eq!(scene.output("stderr"), b"err\nerr no end");

    let file = scene.temp.path().join("all");
    std::fs::write(&file, &bytes).expect("write");
    let scene = Scene::program(&["cat", &file.display().to_string()]);
    scene.run();
    assert_eq!(scene.output("stdout"), bytes);
}

#[test]
fn a_line_of_100_megabytes() {
    let scene = Scene::script("head -c 100000000 /dev/zero; echo; echo after");
    assert_eq!(scene.run().exit_code, 0);
    let records = scene.records();
    let (last, long) = records.split_last().expect("records");
    assert_eq!((last.tag.as_str(), last.content.as_slice()), ("F", &b"after"[..]));
    assert!(
        long.iter().all(|record| record.content.len() <= 16384 && record.content.iter().all(|&b| b == 0))
    );
    assert_eq!(long.iter().map(|record| record.content.len()).sum::<usize>(), 100_000_000);
    assert_eq!(long.iter().filter(|record| record.tag == "F").count(), 1);
}

#[test]
fn numbered_lines_on_two_streams() {
    let script = "i=0; while [ $i -lt 20000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done";
    let scene = Scene::script(script);
    assert_eq!(scene.run().exit_code, 0);
    for (stream, word) in [("stdout", "out"), ("stderr", "err")] {
        let output = String::from_utf8(scene.output(stream)).expect("text");
        let expected: String = (0..20000).map(|number| format!("{word} {number}\n")).collect();
        assert_eq!(output, expected);
    }
}

/// Once polled, a pipe costs its writer more for as long as it lives.
#[test]
fn a_pipe_is_waited_for_without_being_polled() {
    let scene = Scene::script("echo up; echo up >&2; exec sleep 1000");
    scene.start();
    scene.wait_for("up");
    let (_, copier) = eventually("a copier", || scene.processes(scene.capture_pid().cast_signed()));
    let expected = [
        ("podlog-copier".to_owned(), Some((libc::SYS_ppoll, 2))),
        ("podlog-stderr".to_owned(), Some((libc::SYS_splice, 0))),
        ("podlog-stdout".to_owned(), Some((libc::SYS_splice, 0))),
    ];
    eventually("two threads that wait in splice", || (waits(copier) == expected).then_some(()));
}

/// The threads of a process by name: the system call in which each waits, and of how many descriptors if that is `poll`.
fn waits(pid: i32) -> Vec<(String, Option<(i64, u64)>)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let mut waits: Vec<_> = tasks
        .map(|task| {
            let path = task.expect("a thread").path();
            let call = read(path.join("syscall"));
            let mut words = call.split(' ');
            let number: Option<i64> = words.next().and_then(|number| number.parse().ok());
            let count =
                words.nth(1).and_then(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
            let wait = number.map(|number| match number {
                libc::SYS_splice => (libc::SYS_splice, 0),
                // Both are poll; the one has its timeout as a structure.
                #[cfg(target_arch = "x86_64")]
                libc::SYS_poll => (libc::SYS_ppoll, count.unwrap_or(0)),
                _ => (number, count.unwrap_or(0)),
            });
            (read(path.join("comm")).trim().to_owned(), wait)
        })
        .collect();
    waits.sort();
    waits
}

#[test]
fn a_prompt_becomes_visible() {
    let scene = Scene::script("printf 'password: '; sleep 1000");
    scene.start();
    scene.wait_for("password: ");
    assert_eq!(scene.records()[0].tag, "P");
}

#[test]
fn closed_streams_do_not_end_a_container() {
    let scene = Scene::script("echo bye; exec >&- 2>&-; sleep 0.2; exit 4");
    let begun = Instant::now();
    assert_eq!(scene.run().exit_code, 4);
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert_eq!(scene.stdout(), "bye\n");
}

#[test]
fn output_of_descendants_is_drained() {
    let scene = Scene::script("(while :; do echo noise; done) & sleep 0.1; exit 0");
    assert_eq!(scene.run().exit_code, 0);
    let output = scene.stdout();
    assert!(output.lines().count() > 1);
    let lines: Vec<_> = output.lines().collect();
    assert!(lines[..lines.len() - 1].iter().all(|line| *line == "noise"));
}

#[test]
fn a_terminal_has_one_stream() {
    let scene =
        Scene::script("test -t 0 && test -t 1 && test -t 2 && echo terminal; echo err >&2; tty; sleep 0.1")
            .with(|process| process.tty = true);
    assert_eq!(scene.run().exit_code, 0);
    let output = scene.stdout();
    assert!(output.starts_with("terminal\r\nerr\r\n/dev/pts/"), "{output:?}");
    assert_eq!(scene.output("stderr"), b"");
}

#[test]
fn stdin_stays_open_when_asked_for() {
    let scene = Scene::script("cat; echo end").with(|process| process.stdin = true);
    scene.start();
    assert_eq!(scene.ask(&Request::Status), Reply::Ok("running".to_owned()));
    assert_eq!(scene.stdout(), "");
    scene.ask(&Request::Signal(15));
    assert_eq!(scene.exit().signal, Some(15));
    let scene = Scene::script("cat; echo end");
    assert_eq!(scene.run().exit_code, 0);
    assert_eq!(scene.stdout(), "end\n");
}

#[test]
fn the_log_is_opened_anew() {
    let scene = Scene::script("i=0; while [ ! -e stop ]; do echo $i; i=$((i+1)); done; echo end $i")
        .with(|process| process.cwd = Some("/tmp".into()));
    let cwd = scene.temp.path().to_owned();
    let scene = scene.with(|process| process.cwd = Some(cwd.clone()));
    scene.start();
    let log = scene.process.log.path.clone();
    let old = log.with_extension("log.old");
    eventually("some output", || (std::fs::metadata(&log).ok()?.len() > 1000).then_some(()));
    std::fs::rename(&log, &old).expect("rename");
    assert_eq!(scene.ask(&Request::Reopen), Reply::Ok(String::new()));
    std::fs::write(cwd.join("stop"), "").expect("write");
    assert_eq!(scene.exit().exit_code, 0);
    let later = scene.stdout();
    let earlier = std::fs::read_to_string(&old).expect("old log");
    let earlier = earlier.lines().map(|line| line.splitn(4, ' ').nth(3).expect("content"));
    let all: Vec<_> = earlier.chain(later.lines()).map(str::to_owned).collect();
    let (end, numbers) = all.split_last().expect("lines");
    assert_eq!(*end, format!("end {}", numbers.len()));
    assert!(numbers.iter().enumerate().all(|(index, number)| *number == index.to_string()));
}

#[test]
fn a_full_disk_stops_the_program_until_there_is_room() {
    // A limit for the size of files does to the log what a full disk does; it is inherited from whoever starts capture.
    let scene = Scene::script("seq 1000000; exit 3").with_file_limit(256 * 1024);
    scene.start();
    let monitor = scene.capture_pid().cast_signed();
    let length = || std::fs::metadata(&scene.process.log.path).map_or(0, |metadata| metadata.len());
    eventually("a full disk", || (length() > 250 * 1024).then_some(()));
    for _ in 0..3 {
        let (_, copier) = eventually("a copier", || scene.processes(monitor));
        // It makes no difference to the program which copier waits for room.
        let pid = rustix::process::Pid::from_raw(copier).expect("pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
        eventually("another copier", || scene.processes(monitor).filter(|(_, other)| *other != copier));
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(scene.dir.exit().expect("read exit"), None, "the program waits");
    let (_, copier) = eventually("a copier", || scene.processes(monitor));
    for pid in [monitor, copier] {
        let maximum = rustix::process::getrlimit(rustix::process::Resource::Fsize).maximum;
        let unlimited = rustix::process::Rlimit { current: maximum, maximum };
        let pid = rustix::process::Pid::from_raw(pid);
        rustix::process::prlimit(pid, rustix::process::Resource::Fsize, unlimited).expect("prlimit");
    }
    let exit = scene.exit();
    assert_eq!((exit.exit_code, exit.message.as_str(), exit.lost_bytes), (3, "", 0));
    let output = scene.stdout();
    assert_eq!(output.lines().count(), 1_000_000);
    assert!(output.lines().zip(1..).all(|(line, number)| *line == number.to_string()));
}
