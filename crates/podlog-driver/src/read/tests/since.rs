use super::*;
use crate::attributes::FileEnd;

#[test]
fn since_skips_what_is_too_old_in_ordered_files() {
    let files = Log::new();
    let mut sink = files.sink(300_000);
    for second in 0..20_000 {
        let line = format!("{second:06}{}\n", " ".repeat(40));
        sink.write(Stream::ALL[second as usize % 2], line.as_bytes(), at(second)).expect("room");
    }
    drop(sink);
    let numbers = |options: &str| -> Vec<u32> {
        let text = files.text(&selection(Mode::Exact, options));
        text.lines().map(|line| line.trim_end().parse().expect("a number")).collect()
    };
    for since in [0, 1, 3333, 9999, 15_000, 19_990, 19_999] {
        assert_eq!(numbers(&format!("since={since}")), Vec::from_iter(since..20_000), "{since}");
        let tail = Vec::from_iter(since.max(19_995)..20_000);
        assert_eq!(numbers(&format!("since={since} tail=5")), tail, "{since}");
    }
    assert!(numbers("since=20000").is_empty());
    let mut reader = files.reader(&selection(Mode::Exact, "since=19999"));
    assert_eq!(drained(&mut reader).len(), 47);
    // Not every file system has extended attributes.
    if crate::attributes::generation(fs::File::open(files.path()).expect("a file")).is_some() {
        assert!(reader.stats().records < 12_000, "most of it was not read: {:?}", reader.stats());
    }
}

#[test]
fn what_is_too_old_is_not_unpacked_to_count_its_lines() {
    let files = Log::new();
    // Whoever unpacks the first one tells of its damage.
    let names = [format!("{}.gz", files.generation(0).display()).into(), files.generation(1), files.path()];
    let contents =
        [b"no gzip".to_vec(), log(&["o1F a", "e1P b"]), log(&["o2P c", "e2F b", "o3F c", "o4F d"])];
    for (number, (path, content)) in names.iter().zip(contents).enumerate() {
        fs::write(path, content).expect("room");
        let file = fs::File::open(path).expect("a file");
        crate::attributes::mark_generation(&file, number as u64 + 1);
        let end = FileEnd { last: at(number as i64), inside_line: [false, number == 1] };
        if number < 2 {
            crate::attributes::mark_end(&file, end);
        }
    }
    if crate::attributes::generation(fs::File::open(files.path()).expect("a file")).is_none() {
        return;
    }
    for (options, expected) in [
        ("since=1 tail=100", "a\nbb\ncc\nd\n"),
        ("since=2 tail=100", "cc\nd\n"),
        ("since=2 tail=2", "cc\nd\n"),
        ("since=2 tail=1", "d\n"),
        ("since=2 tail=100 stderr", ""),
        ("since=3 tail=100", "d\n"),
    ] {
        assert_eq!(files.text(&selection(Mode::Exact, options)), expected, "{options}");
    }
    assert!(files.text(&selection(Mode::Exact, "since=0 tail=100")).contains("podlog.gap"));
}

#[test]
fn since_leaves_out_a_line_that_began_too_early() {
    let files = Log::new();
    let mut sink = files.sink(60);
    let writes = [(1, "a\n"), (2, "b"), (3, "c"), (4, "d\n"), (5, "e\n"), (6, "f")];
    for (second, text) in writes {
        sink.write(Stream::Stdout, text.as_bytes(), at(second)).expect("room");
        sink.flush_partial(at(second)).expect("room");
    }
    drop(sink);
    for (since, expected) in
        [(1, "a\nbcd\ne\nf"), (2, "bcd\ne\nf"), (3, "e\nf"), (4, "e\nf"), (5, "e\nf"), (6, "f"), (7, "")]
    {
        assert_eq!(files.text(&selection(Mode::Exact, &format!("since={since}"))), expected, "{since}");
    }
}

/// Records of somebody else, whose clock steps back again and again.
fn restless(count: i64) -> (Vec<u8>, Vec<i64>) {
    let mut bytes = Vec::new();
    let seconds: Vec<i64> = (0..count).map(|n| n - if n % 1000 > 900 { 5000 } else { 0 }).collect();
    for (number, second) in seconds.iter().enumerate() {
        let stream = Stream::ALL[number % 2];
        let end = if number % 5 == 0 { LineEnd::Partial } else { LineEnd::Full };
        let content = format!("{number:07}{}", "x".repeat(200));
        cri::append_record(&mut bytes, at(*second).to_string().as_bytes(), stream, end, content.as_bytes());
    }
    (bytes, seconds)
}

#[test]
fn since_misses_nothing_where_the_clock_stepped_back_and_looks_only_once() {
    let count = 30_000;
    let files = Log::new();
    let (bytes, seconds) = restless(count);
    files.write(&bytes);
    let indexes = IndexCache::default();
    let read = |since: i64| {
        let source = LogSource::open(files.path()).expect("a log").with_indexes(indexes.clone());
        let selection = Selection { since: Some(at(since)), ..Selection::default() };
        let mut reader = source.read(&selection).expect("a log");
        let text = drained(&mut reader);
        (text, reader.stats().records)
    };
    // All of it without an index: no `since` is that early.
    let (all, _) = read(-10_000);
    for since in [0, 1, 9_999, 15_000, 24_950, 26_000, 29_000, 29_899, 29_900, 30_000] {
        let mut expected: Vec<&str> = all
            .lines()
            .filter(|line| line[..7].parse::<usize>().is_ok_and(|number| seconds[number] >= since))
            .collect();
        let (text, records) = read(since);
        let mut got: Vec<&str> = text.lines().collect();
        // Lines that are unfinished at the end come out last.
        got.sort_unstable();
        expected.sort_unstable();
        assert_eq!(got.len(), expected.len(), "{since}");
        assert!(got == expected, "{since}");
        let wanted = count - since;
        assert!((records as i64) < wanted + 10_000, "{records} records were rendered for {wanted}");
    }
    assert!((4..12).contains(&indexes.entries()), "{} entries", indexes.entries());
    // It grows, and it is written anew.
    files.append(&log(&["o9F end"]));
    assert!(read(-9_000).0.ends_with("end\n"));
    files.write(&log(&["o1F new"]));
    assert_eq!(read(0).0, "new\n");
}

#[test]
fn lines_that_were_left_out_do_not_count_when_the_clock_was_set_back() {
    let files = Log::new();
    let contents = [&["o0F a"][..], &["o1F b", "e1F c", "e1P d"], &["e0F d", "e0F e"]];
    for (number, records) in contents.iter().enumerate() {
        let path = if number == 2 { files.path() } else { files.generation(number) };
        fs::write(&path, log(records)).expect("room");
        let file = fs::File::open(path).expect("a file");
        crate::attributes::mark_generation(&file, number as u64);
        let end = FileEnd { last: at(number as i64), inside_line: [false, number == 1] };
        if number < 2 {
            crate::attributes::mark_end(&file, end);
        }
    }
    for (options, expected) in
        [("until=0", "a\ne\n"), ("until=0 tail=2", "a\ne\n"), ("until=0 tail=1", "e\n")]
    {
        assert_eq!(files.text(&selection(Mode::Exact, options)), expected, "{options}");
    }
}

#[test]
fn a_compressed_file_of_another_writer_is_unpacked_for_since_only_once() {
    for packing in [Packing::Gzip, Packing::Zstd] {
        let files = Log::new();
        let (bytes, seconds) = restless(5000);
        // It ends inside a line of either stream.
        let ends = log(&["o1P begun", "e1P begun"]);
        fs::write(files.generation(1), [&bytes[..], &ends].concat()).expect("room");
        let path = pack(&files.generation(1), packing);
        let latest = *seconds.iter().max().expect("records");
        files.write(&format!("{0} stdout F rest\n{0} stdout F new\n", at(latest + 2)).into_bytes());
        let source = LogSource::open(files.path()).expect("a log");
        let read = |since: i64| {
            let selection = selection(Mode::Exact, &format!("since={since}"));
            let mut reader = source.read(&selection).expect("a log");
            let mut out = Vec::new();
            drain(&mut reader, &mut out).expect("a log");
            (String::from_utf8(out).expect("text"), reader.stats().records)
        };
        assert_eq!(read(latest + 1), ("new\n".to_owned(), 5004));
        assert_eq!(read(latest + 1), ("new\n".to_owned(), 2), "it is known now");
        for since in [0, latest - 3000, latest, latest + 2] {
            let fresh = files.text(&selection(Mode::Exact, &format!("since={since}")));
            assert_eq!(read(since).0, fresh, "{since}");
        }
        // It is another file now.
        let packed = fs::read(&path).expect("a file");
        fs::write(&path, packed).expect("room");
        let touched = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
        fs::File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_modified(touched))
            .expect("a file");
        assert_eq!(read(latest + 1), ("new\n".to_owned(), 5004));
    }
}
