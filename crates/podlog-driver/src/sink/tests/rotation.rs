//! Files that follow one another.

use super::*;

#[test]
fn the_log_is_rotated_at_a_record_and_old_files_are_compressed() {
    let log = Log::new();
    let record = "2026-01-01T00:00:00Z stdout F 0123456789\n".len() as u64;
    let mut sink = log.sink(3 * record, 4);
    let lines: Vec<String> = (0..28).map(|number| format!("{number:010}\n")).collect();
    sink.write(Stream::Stdout, lines.concat().as_bytes(), at(0)).expect("room");
    wait_until("compression", || {
        log.names().iter().filter(|name| name.ends_with(".gz")).count() == 2 && log.names().len() == 4
    });
    assert_eq!(
        log.names(),
        ["0.log", "0.log.20260101-000006.gz", "0.log.20260101-000007.gz", "0.log.20260101-000008"]
    );
    let [stdout, _] = contents(&log.files());
    assert_eq!(String::from_utf8_lossy(&stdout), lines[18..].concat());
    assert_eq!(sink.stats().rotations, 9);
    for name in log.names() {
        let mode = fs::metadata(log.directory.path().join(name)).expect("a file").mode();
        assert_eq!(mode & 0o7777, 0o640);
    }
}

/// What stands in the directory, each file counted once.
fn bytes_on_disk(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).expect("a directory");
    let files = entries.filter_map(|entry| entry.ok()?.metadata().ok());
    let sizes: std::collections::HashMap<u64, u64> = files.map(|file| (file.ino(), file.len())).collect();
    sizes.values().sum()
}

#[test]
fn a_log_never_takes_more_room_than_its_files_may() {
    const MAX_BYTES: u64 = 300_000;
    let mut noise = 1_u64;
    let mut incompressible = move || {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        b' ' + (noise >> 58) as u8
    };
    for (max_files, is_noise) in [(2, true), (4, true), (4, false)] {
        let log = Log::new();
        let mut sink = log.sink(MAX_BYTES, max_files);
        let mut second = 0;
        for round in 0..40 {
            // At full speed for a while, then so slow that there is time to compress; then full speed in the midst of it.
            for _ in 0..(10 * round % 130) {
                let mut chunk: Vec<u8> =
                    if is_noise { (0..9999).map(|_| incompressible()).collect() } else { vec![b'x'; 9999] };
                chunk.push(b'\n');
                second += 1;
                sink.write(Stream::Stdout, &chunk, at(second)).expect("room");
                let (bytes, limit) =
                    (bytes_on_disk(log.directory.path()), MAX_BYTES * u64::from(max_files) * 105 / 100);
                assert!(bytes <= limit, "{bytes} of {limit}: {:?}", log.names());
            }
            let deadline = Instant::now() + Duration::from_millis(20);
            let is_compressing = || log.names().iter().any(|name| name.ends_with(".tmp"));
            while Instant::now() < deadline && !is_compressing() {
                std::thread::yield_now();
            }
        }
        if !is_noise {
            wait_until("compression", || log.names().iter().any(|name| name.ends_with(".gz")));
        }
        drop(sink);
        let [stdout, _] = contents(&log.files());
        assert!(stdout.len() as u64 > MAX_BYTES / 2);
    }
}

/// Whether the file system of the temporary directory has extended attributes.
fn has_attributes(log: &Log) -> bool {
    log.sink(u64::MAX, 5);
    let has = base(&log.path()).is_some();
    if !has {
        eprintln!("SKIPPED: there are no extended attributes in the temporary directory");
    }
    has
}

#[test]
fn each_file_knows_how_much_was_before_it() {
    let log = Log::new();
    if !has_attributes(&log) {
        return;
    }
    let mut expected = 0;
    for round in 0..5 {
        // A new writer each time; somebody else renames and asks for a reopen, too.
        let mut sink = log.sink(400, 100);
        for second in 0..30 {
            sink.write(Stream::Stdout, b"0123456789\n", at(round * 100 + second)).expect("room");
        }
        fs::rename(log.path(), log.directory.path().join(format!("0.log.2027010{}-000000", round + 1)))
            .expect("a rename");
        sink.reopen().expect("a new file");
        drop(sink);
    }
    let listing = LogPath::new(&log.path()).list().expect("a listing");
    for file in &listing.rotated {
        assert_eq!(base(&file.path), Some(expected), "{}", file.path.display());
        expected += read(&file.path, file.compressed).len() as u64;
    }
    assert_eq!(base(&log.path()), Some(expected));
    assert!(listing.rotated.len() > 10);
}

#[test]
fn what_is_before_a_file_of_somebody_else_is_not_known() {
    let log = Log::new();
    fs::write(log.path(), "2026-01-01T00:00:01Z stdout F foreign\n").expect("a file");
    let mut sink = log.sink(100, 5);
    assert_eq!(base(&log.path()), None);
    for second in 2..9 {
        sink.write(Stream::Stdout, b"0123456789 0123456789\n", at(second)).expect("room");
    }
    assert_eq!(base(&log.path()), None);
}

#[test]
fn a_rotation_that_fails_does_not_end_the_file_for_readers() {
    let log = Log::new();
    let directory = log.directory.path().join("sub");
    let limits = FileLimits { max_bytes: 100, max_files: 5 };
    let mut sink = CriFileSink::open(directory.join("0.log"), limits).expect("a sink");
    let moved = log.directory.path().join("moved");
    fs::rename(&directory, &moved).expect("a rename");
    for second in 0..5 {
        sink.write(Stream::Stdout, b"0123456789 0123456789\n", at(second)).expect("room");
    }
    assert_eq!(attributes::file_end(fs::File::open(moved.join("0.log")).expect("a file")), None);
}

#[test]
fn max_files_counts_the_current_one() {
    for max_files in [1, 2, 5] {
        let log = Log::new();
        let mut sink = log.sink(1, max_files);
        for second in 0..20 {
            sink.write(Stream::Stdout, b"x\n", at(second)).expect("room");
        }
        drop(sink);
        let names = log.names();
        assert_eq!(
            names.iter().filter(|name| !name.ends_with(".tmp")).count(),
            max_files as usize,
            "{names:?}"
        );
    }
}

#[test]
fn reopening_goes_on_in_a_new_file() {
    let log = Log::new();
    let mut sink = log.sink(u64::MAX, 5);
    sink.write(Stream::Stdout, b"a\nb", at(1)).expect("room");
    let renamed = log.directory.path().join("0.log.20260101-000000");
    fs::rename(log.path(), &renamed).expect("a rename");
    sink.write(Stream::Stdout, b"c\nd", at(2)).expect("room");
    assert!(!log.path().exists());
    sink.reopen().expect("a directory");
    assert!(log.path().exists());
    sink.write(Stream::Stdout, b"e\n", at(3)).expect("room");
    assert_eq!(log.text(), "2026-01-01T00:00:03Z stdout F de\n");
    let old = fs::read_to_string(renamed).expect("a file");
    assert_eq!(old, "2026-01-01T00:00:01Z stdout F a\n2026-01-01T00:00:02Z stdout F bc\n");
}

#[test]
fn reopening_without_a_rename_changes_nothing() {
    let log = Log::new();
    let mut sink = log.sink(u64::MAX, 5);
    sink.write(Stream::Stdout, b"a\n", at(1)).expect("room");
    sink.reopen().expect("a file");
    sink.write(Stream::Stdout, b"b\n", at(0)).expect("room");
    assert_eq!(contents(&log.files())[0], b"a\nb\n");
    assert_eq!(attributes::file_end(fs::File::open(log.path()).expect("a file")), None);
}

#[test]
fn a_failed_reopen_keeps_the_old_file() {
    let log = Log::new();
    let directory = log.directory.path().join("sub");
    let mut sink = CriFileSink::open(directory.join("0.log"), FileLimits::default()).expect("a sink");
    let moved = log.directory.path().join("moved");
    fs::rename(&directory, &moved).expect("a rename");
    assert!(sink.reopen().is_err());
    sink.write(Stream::Stdout, b"a\n", at(1)).expect("room");
    assert_eq!(fs::read_to_string(moved.join("0.log")).expect("a file"), "2026-01-01T00:00:01Z stdout F a\n");
}

#[test]
fn a_log_that_cannot_be_rotated_grows() {
    let log = Log::new();
    let directory = log.directory.path().join("sub");
    let limits = FileLimits { max_bytes: 100, max_files: 5 };
    let mut sink = CriFileSink::open(directory.join("0.log"), limits).expect("a sink");
    let moved = log.directory.path().join("moved");
    fs::rename(&directory, &moved).expect("a rename");
    for second in 0..10 {
        sink.write(Stream::Stdout, b"0123456789\n", at(second)).expect("room");
    }
    let content = fs::read(moved.join("0.log")).expect("a file");
    assert_eq!(contents(&[content])[0], b"0123456789\n".repeat(10));
}

#[test]
fn there_is_a_current_file_at_every_moment() {
    let log = Log::new();
    let path = log.path();
    let mut sink = log.sink(200, 3);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = std::collections::HashSet::new();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                seen.insert(FileId::of(&fs::metadata(&path).expect("the current file")));
            }
            seen.len()
        });
        for second in 0..300 {
            sink.write(Stream::Stdout, b"0123456789 0123456789 0123456789\n", at(second)).expect("room");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(watcher.join().expect("no panic") > 0);
    });
}
