//! What is kept of too much output: nothing is missing that is not declared where it is missing, byte by byte.

mod common;

use std::collections::BTreeSet;
use std::fs;

use common::{Record, Scene, eventually};
use podlog_container::BackPressure;
use podlog_line::{GAP_TAG, Gap, GapReason};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

/// The gap that a record declares.
fn gap(record: &Record) -> Option<Gap> {
    let tag = record.tag.strip_prefix("F:")?;
    (tag == GAP_TAG).then(|| Gap::parse_content(&record.content).expect("a marker"))
}

/// What the log of a program has of its stdout.
#[derive(Debug, Default)]
struct Found {
    gaps: Vec<Gap>,
    /// Bytes in the log, and lines.
    bytes: usize,
    lines: usize,
}

impl Found {
    fn declared(&self, reason: GapReason) -> u64 {
        self.gaps.iter().filter(|gap| gap.reason == reason).filter_map(|gap| gap.bytes).sum()
    }
}

/// Walks through what a program has printed: what is not in the log is declared where it is missing, to the byte.
fn check(scene: &Scene, expected: &[u8]) -> Found {
    let records = scene.all_files();
    let records: Vec<_> = records.iter().filter(|record| record.stream == "stdout").collect();
    let mut found = Found::default();
    // More than one place where a marker has ended a line that may have been about to end.
    let mut places = BTreeSet::from([0]);
    let mut is_inside = false;
    for (index, record) in records.iter().enumerate() {
        if let Some(gap) = gap(record) {
            let bytes = usize::try_from(gap.bytes.expect("counted")).expect("a length");
            places = places.into_iter().map(|place| place + bytes).collect();
            found.gaps.push(gap);
            continue;
        }
        let is_full = record.tag == "F";
        let is_cut = is_full
            && is_inside
            && record.content.is_empty()
            && records.get(index + 1).is_some_and(|next| gap(next).is_some());
        let line = [&record.content[..], if is_full { b"\n" } else { b"" }].concat();
        let after = |place: usize| {
            expected[place.min(expected.len())..].starts_with(&line).then_some(place + line.len())
        };
        let next: BTreeSet<_> = places.iter().copied().filter_map(after).collect();
        let stay = if is_cut { places.clone() } else { BTreeSet::new() };
        assert!(
            !(next.is_empty() && stay.is_empty()),
            "record {index} {:?} at {places:?} behind {:?}",
            String::from_utf8_lossy(&line),
            found.gaps.last()
        );
        places = next.into_iter().chain(stay).collect();
        found.bytes += line.len();
        found.lines += usize::from(is_full && !is_cut);
        is_inside = !is_full;
    }
    assert!(places.contains(&expected.len()), "the log ends at {places:?} of {}", expected.len());
    found
}

fn numbers(count: usize) -> Vec<u8> {
    (1..=count).map(|number| format!("{number}\n")).collect::<String>().into_bytes()
}

/// Lets files be of any length again.
fn make_room(scene: &Scene) {
    let monitor = scene.capture_pid().cast_signed();
    let (_, copier) = eventually("a copier", || scene.processes(monitor));
    for pid in [monitor, copier] {
        let maximum = getrlimit(Resource::Fsize).maximum;
        prlimit(Pid::from_raw(pid), Resource::Fsize, Rlimit { current: maximum, maximum }).expect("prlimit");
    }
}

/// Prints, says that it has, waits, and prints the last line.
fn patient_printer(lines: usize, policy: BackPressure) -> Scene {
    let script = format!("seq {lines}; : > printed; until [ -e go ]; do sleep 0.01; done; echo last");
    let scene = Scene::script(&script);
    let cwd = scene.temp.path().to_owned();
    scene.with(|process| {
        process.cwd = Some(cwd);
        process.log.back_pressure = policy;
        process.log.buffer_bytes = 64 * 1024;
    })
}

#[test]
fn a_log_that_cannot_be_written_stops_only_programs_that_may_wait() {
    const LINES: usize = 600_000;
    for (policy, reason) in [
        (BackPressure::Block, None),
        (BackPressure::DropNewest, Some(GapReason::DropNewest)),
        (BackPressure::DropOldest, Some(GapReason::DropOldest)),
    ] {
        // A limit for the size of files does to the log what a full disk does.
        let scene = patient_printer(LINES, policy).with_file_limit(256 * 1024);
        scene.start();
        let file = |name: &str| scene.temp.path().join(name);
        let length = || fs::metadata(&scene.process.log.path).map_or(0, |metadata| metadata.len());
        eventually("a full disk", || (length() > 250 * 1024).then_some(()));
        if policy == BackPressure::Block {
            std::thread::sleep(std::time::Duration::from_millis(300));
            assert!(!file("printed").exists(), "the program waits");
        } else {
            eventually("the program's end", || file("printed").exists().then_some(()));
        }
        make_room(&scene);
        eventually("the program's end", || file("printed").exists().then_some(()));
        // There is room in the buffer, too, once the log grows.
        eventually("a log that grows", || (length() > 300 * 1024).then_some(()));
        fs::write(file("go"), "").expect("write");
        let exit = scene.exit();
        assert_eq!((exit.exit_code, exit.message.as_str(), exit.lost_bytes), (0, "", 0));
        let printed = [numbers(LINES), b"last\n".to_vec()].concat();
        let found = check(&scene, &printed);
        assert!(scene.stdout().ends_with("last\n"), "what comes when there is room is logged");
        match reason {
            None => assert_eq!(found.gaps, []),
            Some(reason) => {
                let missing = printed.len() - found.bytes;
                assert!(missing > 1 << 20, "only {missing} bytes are missing");
                assert_eq!(found.declared(reason), missing as u64);
                let lines: Option<u64> = found.gaps.iter().map(|gap| gap.lines).sum();
                assert_eq!(lines, Some((LINES + 1 - found.lines) as u64));
            }
        }
    }
}

#[test]
fn what_a_killed_copier_had_in_its_buffer_is_declared_to_the_byte() {
    const LINES: usize = 300_000;
    for policy in [BackPressure::DropNewest, BackPressure::DropOldest] {
        let script = format!("until [ -e stop ]; do seq {LINES}; sleep 0.1; echo >> rounds; done");
        let scene = Scene::script(&script);
        let cwd = scene.temp.path().to_owned();
        let scene = scene.with(|process| {
            process.cwd = Some(cwd.clone());
            process.log.back_pressure = policy;
            process.log.buffer_bytes = 128 * 1024;
        });
        scene.start();
        let monitor = scene.capture_pid().cast_signed();
        let (mut kills, mut last) = (0, 0);
        while scene.dir.exit().expect("read exit").is_none() {
            let Some((_, copier)) = scene.processes(monitor).filter(|(_, copier)| *copier != last) else {
                continue;
            };
            std::thread::sleep(std::time::Duration::from_millis(3 + kills * 7 % 11));
            let _ = kill_process(Pid::from_raw(copier).expect("pid"), Signal::KILL);
            (kills, last) = (kills + 1, copier);
            if kills == 40 {
                fs::write(cwd.join("stop"), "").expect("write");
            }
        }
        let exit = scene.exit();
        assert_eq!((exit.exit_code, exit.message.as_str(), exit.lost_bytes), (0, "", 0));
        let rounds = fs::read(cwd.join("rounds")).expect("a file").len();
        check(&scene, &numbers(LINES).repeat(rounds));
    }
}

/// How much of what a program prints is logged in a second.
#[derive(Debug, Clone, Copy)]
enum Rate {
    Lines(u64),
    Bytes(u64),
}

#[test]
fn a_program_is_let_through_so_many_lines_or_bytes_a_second() {
    use BackPressure::{Block, DropNewest};
    for (policy, rate, is_killed) in [
        (Block, Rate::Lines(1000), false),
        (Block, Rate::Lines(1000), true),
        (Block, Rate::Bytes(5000), false),
        (DropNewest, Rate::Lines(1000), false),
        (DropNewest, Rate::Lines(1000), true),
        (DropNewest, Rate::Bytes(5000), false),
    ] {
        check_rate(policy, rate, is_killed);
    }
}

fn check_rate(policy: BackPressure, rate: Rate, is_killed: bool) {
    const LINES: usize = 200_000;
    let scene = Scene::script(&format!("seq {LINES}; sleep 1.2; echo last")).with(|process| {
        process.log.back_pressure = policy;
        match rate {
            Rate::Lines(lines) => process.log.lines_per_second = lines,
            Rate::Bytes(bytes) => process.log.bytes_per_second = bytes,
        }
    });
    scene.start();
    if is_killed {
        let monitor = scene.capture_pid().cast_signed();
        let (_, copier) = eventually("a copier", || scene.processes(monitor));
        std::thread::sleep(std::time::Duration::from_millis(20));
        let _ = kill_process(Pid::from_raw(copier).expect("pid"), Signal::KILL);
    }
    let exit = scene.exit();
    assert_eq!((exit.exit_code, exit.message.as_str(), exit.lost_bytes), (0, "", 0));
    let printed = [numbers(LINES), b"last\n".to_vec()].concat();
    let found = check(&scene, &printed);
    assert!(scene.stdout().ends_with("last\n"));
    if !is_killed {
        assert_eq!(found.declared(GapReason::RateLimit), (printed.len() - found.bytes) as u64);
        assert!(scene.stdout().starts_with("1\n2\n"));
        let (logged, rate) = match rate {
            Rate::Lines(rate) => (found.lines, rate as usize),
            Rate::Bytes(rate) => (found.bytes, rate as usize),
        };
        assert!((rate..30 * rate).contains(&logged), "{logged} at {rate} a second");
    }
}

#[test]
fn a_prompt_is_shown_whatever_the_policy() {
    for policy in [BackPressure::DropNewest, BackPressure::DropOldest] {
        let scene = Scene::script("printf 'password: '; sleep 1000")
            .with(|process| process.log.back_pressure = policy);
        scene.start();
        scene.wait_for("password: ");
    }
}

#[test]
fn records_are_as_long_as_asked_for() {
    for policy in [BackPressure::Block, BackPressure::DropOldest] {
        let scene = Scene::script("head -c 10000 /dev/zero; echo").with(|process| {
            process.log.back_pressure = policy;
            process.log.max_record_bytes = 4096;
        });
        assert_eq!(scene.run().exit_code, 0);
        let lengths: Vec<_> =
            scene.records().iter().map(|record| (record.tag.clone(), record.content.len())).collect();
        let expected = [("P", 4096), ("P", 4096), ("F", 1808)].map(|(tag, length)| (tag.to_owned(), length));
        assert_eq!(lengths, expected);
    }
}
