use super::*;
use crate::LogRotator;

#[test]
fn a_follower_sees_what_is_appended() {
    let files = Log::new();
    files.write(&log(&["o1F a"]));
    let mut reader = files.reader(&selection(Mode::Exact, "follow"));
    assert_eq!(drained(&mut reader), "a\n");
    files.append(b"2026-01-01T00:00:02Z stdo");
    assert_eq!(drained(&mut reader), "");
    files.append(b"ut F b\n");
    assert_eq!(drained(&mut reader), "b\n");
    files.append(&log(&["o3P > "]));
    assert_eq!(drained(&mut reader), "");
    assert_eq!(drained(&mut reader), "> ", "a prompt is shown when nothing follows it");
    files.append(&log(&["o4F yes"]));
    let mut out = Vec::new();
    drain(&mut reader, &mut out).expect("a log");
    reader.finish(&mut out).expect("a log");
    assert_eq!(out, b"yes\n");
}

#[test]
fn a_look_delivers_all_that_is_there_in_large_pieces() {
    let files = Log::new();
    let mut written = 0;
    let mut more = |count: usize| {
        let lines: Vec<String> =
            (written..written + count).map(|number| format!("{number} of many")).collect();
        let records: Vec<String> = lines.iter().map(|line| format!("o1F {line}")).collect();
        files.append(&log(&records.iter().map(String::as_str).collect::<Vec<_>>()));
        written += count;
        lines.join("\n") + "\n"
    };
    let expected = more(60_000);
    let mut reader = files.reader(&selection(Mode::Exact, "follow"));
    let (mut out, mut pieces) = (Vec::new(), Vec::new());
    loop {
        let before = out.len();
        let state = reader.read_chunk(&mut out).expect("a log");
        if state == ReadState::CaughtUp {
            break;
        }
        pieces.push(out.len() - before);
    }
    assert_eq!(String::from_utf8(out).expect("text"), expected);
    assert!(pieces.len() > 5 && pieces.iter().all(|piece| *piece >= MAX_OUTPUT), "behind: {pieces:?}");
    // Caught up, it waits for nothing: not for more, and not for a time.
    for count in [1, 1, 2, 700, 1, 3000, 5] {
        let expected = more(count);
        assert_eq!(drained(&mut reader), expected, "{count}");
    }
}

#[test]
fn a_follower_survives_every_kind_of_rotation() {
    for mode in [Mode::Exact, Mode::Upstream] {
        let files = Log::new();
        files.write(&log(&["o1F a"]));
        let mut reader = files.reader(&Selection { mode, follow: true, ..Selection::default() });
        assert_eq!(drained(&mut reader), "a\n");
        // Renamed, and not yet made anew.
        fs::rename(files.path(), files.generation(1)).expect("a rename");
        append(&files.generation(1), &log(&["o1F b"]));
        assert_eq!(drained(&mut reader), "b\n");
        // The writer is still in the old file when the new one is there.
        files.write(b"");
        append(&files.generation(1), &log(&["o1F c"]));
        assert_eq!(drained(&mut reader), "c\n");
        append(&files.generation(1), &log(&["o1F late"]));
        files.append(&log(&["o2F d"]));
        assert_eq!(drained(&mut reader), "late\nd\n");
        // Copied and cut off.
        files.write(b"");
        assert_eq!(drained(&mut reader), "");
        files.append(&log(&["o3F e"]));
        assert_eq!(drained(&mut reader), "e\n");
        // Cut off and already longer than before.
        files.write(&log(&["o4F f", "o4F g", "o4F h"]));
        assert_eq!(drained(&mut reader), "f\ng\nh\n");
        assert_eq!(reader.stats().truncations, 2);
        // Deleted and made anew.
        fs::remove_file(files.path()).expect("a file");
        files.write(&log(&["o5F i"]));
        assert_eq!(drained(&mut reader), "i\n");
    }
}

#[test]
fn a_slow_follower_reads_all_generations_in_between() {
    let names = |numbers: &[usize]| numbers.to_vec();
    // What has become of the file that was being read: renamed, compressed, or deleted.
    for fate in 0..3 {
        for compressed in [names(&[]), names(&[2]), names(&[2, 3])] {
            let files = Log::new();
            fs::write(files.generation(0), log(&["o0F old"])).expect("room");
            files.write(&log(&["o1F a"]));
            let mut reader = files.reader(&selection(Mode::Exact, "follow tail=1"));
            assert_eq!(drained(&mut reader), "a\n");
            files.append(&log(&["o1F b"]));
            for number in 1..4 {
                fs::rename(files.path(), files.generation(number)).expect("a rename");
                files.write(&log(&[&format!("o{}F {number}", number + 1)]));
            }
            compressed.iter().for_each(|number| compress(&files.generation(*number)));
            match fate {
                1 => compress(&files.generation(1)),
                2 => fs::remove_file(files.generation(1)).expect("a file"),
                _ => {}
            }
            assert_eq!(drained(&mut reader), "b\n1\n2\n3\n", "fate {fate}, compressed {compressed:?}");
            assert_eq!(drained(&mut reader), "");
        }
    }
}

/// Somebody rotated a log in which nothing was written yet: such files are all alike.
#[test]
fn empty_files_are_told_apart_and_missed_by_nobody() {
    for is_deleted in [false, true] {
        let files = Log::new();
        let mut sink = files.sink(1 << 20);
        let mut reader = files.reader(&selection(Mode::Exact, "follow"));
        assert_eq!(drained(&mut reader), "");
        for number in [1, 2] {
            fs::rename(files.path(), files.generation(number)).expect("a rename");
            sink.reopen().expect("a file");
        }
        sink.write(Stream::Stdout, b"a\n", at(1)).expect("room");
        for number in [1, 2] {
            let plain = fs::File::open(files.generation(number)).expect("a file");
            let packed = fs::File::open(pack(&files.generation(number), Packing::Gzip)).expect("a file");
            crate::attributes::copy(&plain, &packed);
        }
        if is_deleted {
            fs::remove_file(format!("{}.gz", files.generation(2).display())).expect("a file");
        }
        assert_eq!(drained(&mut reader), "a\n");
        assert_eq!(files.text(&Selection::default()), "a\n");
        assert_eq!(reader.stats().gaps, 0);
    }
}

#[test]
fn the_second_name_of_the_current_file_is_no_generation() {
    let files = Log::new();
    files.write(&log(&["o1F a"]));
    fs::hard_link(files.path(), files.generation(1)).expect("a link");
    assert_eq!(files.text(&Selection::default()), "a\n");
    let mut reader = files.reader(&selection(Mode::Exact, "follow"));
    assert_eq!(drained(&mut reader), "a\n");
    let new = files.directory.path().join("new");
    fs::write(&new, log(&["o2F b"])).expect("room");
    fs::rename(new, files.path()).expect("a rename");
    assert_eq!(drained(&mut reader), "b\n");
}

#[test]
fn a_clock_that_is_set_back_hides_nothing_from_followers() {
    let files = Log::new();
    let mut sink = files.sink(1 << 20);
    let since = Selection { since: Some(at(100)), follow: true, ..Selection::default() };
    let (mut all, mut recent) = (files.reader(&selection(Mode::Exact, "follow")), files.reader(&since));
    let mut times = Vec::new();
    // A little back, where the time stands still; far back, where a new file begins; and forward again.
    for (number, second) in [1000, 990, 1001, 120, 119, 70, 130, 2000, 60, 5000].into_iter().enumerate() {
        sink.write(Stream::Stdout, format!("{number}\n").as_bytes(), at(second)).expect("room");
        times.push(second);
        assert_eq!(drained(&mut all), format!("{number}\n"), "at {times:?}");
        // Within a file the time does not go back, so that 70 is 120.
        let is_recent = second >= 70;
        let expected = if is_recent { format!("{number}\n") } else { String::new() };
        assert_eq!(drained(&mut recent), expected, "at {times:?}");
    }
    let whole: String = (0..times.len()).map(|number| format!("{number}\n")).collect();
    assert_eq!(files.text(&Selection::default()), whole);
    assert_eq!(
        files.text(&Selection { since: Some(at(100)), ..Selection::default() }),
        whole.replace("8\n", "")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(25))]
    #[test]
    fn a_follower_gets_every_line_once_whatever_happens(
        steps in prop::collection::vec((0..8u8, 1..30usize), 1..60),
        max_bytes in 150..2000u64,
    ) {
        let files = Log::new();
        let mut sink = files.sink(max_bytes);
        let mut reader = files.reader(&selection(Mode::Exact, "follow"));
        let (mut written, mut out, mut second) = (String::new(), Vec::new(), 0);
        for (step, count) in steps {
            second += 1;
            match step {
                0..4 => {
                    let text: String = (0..count).map(|index| format!("{second} {index}\n")).collect();
                    sink.write(Stream::Stdout, text.as_bytes(), at(second)).expect("room");
                    written += &text;
                }
                4 => {
                    // Somebody else rotates.
                    let name = files.directory.path().join("renamed");
                    fs::rename(files.path(), &name).expect("a rename");
                    reader.read_chunk(&mut out).expect("a log");
                    let newest = crate::generations::LogPath::new(&files.path()).list().expect("a listing").rotated.pop();
                    let age = crate::generations::next_age(at(second), newest.as_ref().map(|file| &*file.age));
                    fs::rename(name, files.directory.path().join(format!("0.log.{age}"))).expect("a rename");
                    sink.write(Stream::Stdout, format!("{second} between\n").as_bytes(), at(second)).expect("room");
                    written += &format!("{second} between\n");
                    sink.reopen().expect("a file");
                }
                5 => {
                    drop(sink);
                    sink = files.sink(max_bytes);
                }
                _ => {
                    drain(&mut reader, &mut out).expect("a log");
                }
            }
        }
        drop(sink);
        drain(&mut reader, &mut out).expect("a log");
        reader.finish(&mut out).expect("a log");
        prop_assert_eq!(String::from_utf8_lossy(&out), &*written);
        prop_assert_eq!(files.text(&Selection::default()), written);
    }
}

/// A writer at full speed, rotating all the time, and followers that start at different moments.
#[test]
fn nothing_is_lost_between_a_fast_writer_and_its_followers() {
    let files = Log::new();
    let mut sink = files.sink(20_000);
    let source = LogSource::open(files.path()).expect("a log");
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let total = 60_000;
    std::thread::scope(|scope| {
        let follow = || {
            let mut reader = source.read(&selection(Mode::Exact, "follow")).expect("a log");
            let mut out = Vec::new();
            loop {
                let ended = is_over.load(std::sync::atomic::Ordering::Acquire);
                drain(&mut reader, &mut out).expect("a log");
                if ended {
                    reader.finish(&mut out).expect("a log");
                    return out;
                }
                std::thread::yield_now();
            }
        };
        let mut followers = vec![scope.spawn(follow)];
        for chunk in 0..total / 100 {
            let text: String = (0..100).map(|index| format!("{}\n", chunk * 100 + index)).collect();
            sink.write(Stream::ALL[chunk % 2], text.as_bytes(), at(chunk as i64)).expect("room");
            if chunk % 200 == 100 {
                followers.push(scope.spawn(follow));
            }
        }
        is_over.store(true, std::sync::atomic::Ordering::Release);
        let expected: String = (0..total).map(|number| format!("{number}\n")).collect();
        for follower in followers {
            assert!(follower.join().expect("no panic") == expected.as_bytes());
        }
    });
    assert!(sink.stats().rotations > 50);
}

#[test]
fn a_torn_record_may_be_cut_off_and_written_anew() {
    for mode in [Mode::Exact, Mode::Upstream] {
        let files = Log::new();
        let whole = log(&["o1F a"]);
        files.write(&whole);
        let mut reader = files.reader(&Selection { mode, follow: true, ..Selection::default() });
        assert_eq!(drained(&mut reader), "a\n");
        for (anew, expected) in
            [("", ""), ("o2F b", "b\n"), ("o2F longer than what was torn", "longer than what was torn\n")]
        {
            files.append(b"2026-01-01T00:00:02Z stdout F torn");
            assert_eq!(drained(&mut reader), "");
            let length = fs::metadata(files.path()).expect("a file").len() - 34;
            let file = fs::OpenOptions::new().write(true).open(files.path()).expect("a file");
            file.set_len(length).expect("a file");
            files.append(&log(&[anew]));
            assert_eq!(drained(&mut reader), expected);
        }
        assert_eq!(reader.stats().truncations, 0);
    }
}

#[test]
fn what_a_follower_was_too_slow_for_is_declared() {
    let files = Log::new();
    let mut sink =
        CriFileSink::open(files.path(), FileLimits { max_bytes: 100, max_files: 3 }).expect("a sink");
    let mut reader = files.reader(&selection(Mode::Exact, "follow"));
    for second in 0..40 {
        sink.write(Stream::Stdout, b"0123456789\n", at(second)).expect("room");
        if second == 1 {
            assert_eq!(drained(&mut reader).lines().count(), 2);
        }
    }
    if crate::attributes::generation(fs::File::open(files.path()).expect("a file")).is_none() {
        return;
    }
    // Two records a file: the first file has been read, the last three are there.
    let text = drained(&mut reader);
    let (marker, rest) = text.split_once('\n').expect("lines");
    let gap = podlog_line::Gap::parse_content(marker.as_bytes()).expect("a gap");
    assert_eq!(
        (gap.reason, gap.from, gap.to),
        (podlog_line::GapReason::Retention, Some(at(2)), Some(at(34)))
    );
    assert_eq!(rest, "0123456789\n".repeat(6));
    assert_eq!((reader.stats().missing_files, reader.stats().gaps), (16, 1));
    assert_eq!(files.text(&Selection::default()).lines().count(), 6, "who comes later has missed nothing");
    sink.write(Stream::Stdout, b"more\n", at(50)).expect("room");
    assert_eq!(drained(&mut reader), "more\n");
}

#[test]
fn a_gap_ends_lines_and_is_one() {
    let files = Log::new();
    let mut sink = files.sink(60);
    let texts = ["a\n", "b\nstart", "c\n", "d\n"];
    for (second, text) in texts.iter().enumerate() {
        sink.write(Stream::ALL[second % 2], text.as_bytes(), at(second as i64)).expect("room");
        sink.flush_partial(at(second as i64)).expect("room");
    }
    let listing = crate::generations::LogPath::new(&files.path()).list().expect("a listing");
    drop(sink);
    let missing = &listing.rotated[3].path;
    if crate::attributes::generation(fs::File::open(missing).expect("a file")).is_none() {
        return;
    }
    assert_eq!(files.text(&Selection::default()), "a\nb\nc\nstartd\n");
    fs::remove_file(missing).expect("a file");
    let marker = |text: String| {
        let is_marker = |line: &str| podlog_line::Gap::parse_content(line.as_bytes()).is_some();
        let shorten = |line: &str| if is_marker(line) { "GAP\n".to_owned() } else { format!("{line}\n") };
        text.lines().map(shorten).collect::<String>()
    };
    for (options, expected) in [
        ("", "a\nb\nstart\nGAP\nd\n"),
        ("follow", "a\nb\nstart\nGAP\nd\n"),
        ("tail=1", "d\n"),
        ("tail=2", "GAP\nd\n"),
        ("tail=3", "start\nGAP\nd\n"),
        ("tail=4", "b\nstart\nGAP\nd\n"),
        ("stdout", "a\nGAP\n"),
        ("tail=2 stdout", "a\nGAP\n"),
        ("until=2", "a\nb\nstart\nGAP\n"),
        ("until=0", "a\n"),
        ("since=3", "GAP\nd\n"),
    ] {
        let mut reader = files.reader(&selection(Mode::Exact, options));
        assert_eq!(marker(drained(&mut reader)), expected, "{options}");
        reader.finish(&mut Vec::new()).expect("the end");
    }
    // Kubernetes' own behaviour has no gaps.
    for options in ["", "follow"] {
        let mut reader = files.reader(&selection(Mode::Upstream, options));
        assert_eq!(drained(&mut reader), "d\n");
        reader.finish(&mut Vec::new()).expect("only the current file was asked for");
    }
}

#[test]
fn a_log_of_others_that_goes_with_its_directory_is_read_to_its_last_byte_or_fails() {
    let record = |second, text| format!("1970-01-01T00:00:0{second}.000000000Z stdout F {text}\n");
    let renamed = |path: &Path| {
        fs::rename(path, path.with_extension("log.20260101-000000")).expect("a file");
        fs::write(path, record(2, "unseen")).expect("a file");
    };
    let rotated = |path: &Path| {
        let mut rotator = LogRotator::open(path, FileLimits::default()).expect("a log");
        rotator.rotate(Timestamp::from_nanoseconds(2)).expect("a rotation");
    };
    let refused = |path: &Path| {
        let mut rotator = LogRotator::open(path, FileLimits::default()).expect("a log");
        rotator.rotate(Timestamp::from_nanoseconds(2)).expect("a rotation");
        rotator.undo().expect("no rotation");
    };
    let nothing = |_: &Path| {};
    // Who removes a directory may move it out of the way before.
    let moved = |path: &Path| {
        let directory = path.parent().expect("a directory");
        fs::rename(directory, directory.with_file_name("going")).expect("a directory");
    };
    // What becomes of the file that is open, and whether it is the last.
    for (what, happens, is_last) in [
        ("nothing", &nothing as &dyn Fn(&Path), true),
        ("renamed", &renamed, false),
        ("rotated", &rotated, false),
        ("refused", &refused, true),
        ("moved", &moved, true),
    ] {
        let files = Log::new();
        let directory = files.directory.path().join("pod");
        fs::create_dir(&directory).expect("a directory");
        let path = directory.join("0.log");
        fs::write(&path, record(1, "first")).expect("a file");
        let selection = selection(Mode::Exact, "follow");
        let mut reader = LogSource::open(&path).expect("a log").read(&selection).expect("a log");
        assert_eq!(drained(&mut reader), "first\n");
        let mut writer = fs::OpenOptions::new().append(true).open(&path).expect("a file");
        happens(&path);
        writer.write_all(record(2, "second").as_bytes()).expect("room");
        if what != "moved" {
            fs::remove_dir_all(&directory).expect("a directory");
        }
        let mut out = Vec::new();
        let read = drain(&mut reader, &mut out).and_then(|_| reader.finish(&mut out));
        assert_eq!(read.is_ok(), is_last, "{what}: {read:?}");
        assert_eq!(out, b"second\n", "{what}");
    }
}

#[test]
fn a_log_that_goes_with_its_directory_is_read_to_its_last_byte_or_fails() {
    // Enough for how many files; whether the one that is open is the last.
    for (max_bytes, is_last) in [(10_000, true), (60, false)] {
        let files = Log::new();
        let directory = files.directory.path().join("pod");
        fs::create_dir(&directory).expect("a directory");
        let path = directory.join("0.log");
        let limits = FileLimits { max_bytes, max_files: 1000 };
        let mut sink = CriFileSink::open(path.clone(), limits).expect("a sink");
        let mut write = |text: &[u8], second| {
            sink.write(Stream::Stdout, text, Timestamp::from_nanoseconds(second)).expect("room");
            sink.flush_partial(Timestamp::from_nanoseconds(second)).expect("room");
        };
        write(b"first line\n", 1);
        let selection = selection(Mode::Exact, "follow");
        let mut reader = LogSource::open(&path).expect("a log").read(&selection).expect("a log");
        assert_eq!(drained(&mut reader), "first line\n");
        write(b"second line\n", 2);
        fs::remove_dir_all(&directory).expect("a directory");
        let mut out = Vec::new();
        let read = drain(&mut reader, &mut out).and_then(|_| reader.finish(&mut out));
        assert_eq!(read.is_ok(), is_last, "{read:?}");
        assert_eq!(out == b"second line\n", is_last);
    }
}
