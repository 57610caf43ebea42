use super::*;

#[test]
fn exact_mode_gives_lines() {
    for (records, options, expected) in [
        (ABC, "", "a\nb\nc\n"),
        (ABC, "tail=1 stderr", "b\n"),
        (ABC, "tail=2 since=3", "c\n"),
        (PARTS, "ts tail=2", "T1 x1x2x3\nT4 y\n"),
        (PARTS, "tail=1", "y\n"),
        (PARTS, "ts since=2", "T4 y\n"),
        (MIXED, "ts", "T2 ERR\nT1 abcdef\n"),
        (MIXED, "tail=1", "abcdef\n"),
        (MIXED, "tail=1 stderr", "ERR\n"),
        (TORN, "", "a\nb\npartial-no-eol"),
        (TORN, "tail=1", "partial-no-eol"),
        (TORN, "tail=2", "b\npartial-no-eol"),
        (TORN, "tail=0", ""),
        (TORN, "follow tail=0", "partial-no-eol"),
        (TORN, "follow tail=1", "b\npartial-no-eol"),
        (GARBAGE, "tail=2", "a\nc\n"),
        (&["garbage line\n", "o1F a"], "tail=2", "a\n"),
        (JSON, "tail=1", "partial\n"),
        (JSON, "tail=1 stdout", "hi\n"),
        (&["o1F a", "o2P x", "e3F e", "e4F f"], "tail=2", "e\nf\n"),
        (&["o1F a", "o2P x", "e3F e", "e4F f"], "tail=3", "e\nf\nx"),
        (&["o1F a", "o2P x", "e3F e", "e4F f"], "tail=4", "a\ne\nf\nx"),
        (&["o1F a", "o2P x", "e3F e", "e4F f"], "tail=1 stdout", "x"),
        (&["o1F a", "o2P x", "e3F e", "e4F f"], "follow tail=1", "f\nx"),
        (&["o1F a", "o2P x", "e3F e", "e4F f"], "follow tail=0", "x"),
        (&["o1F a", "e4F f"], "follow tail=0", ""),
        (&[], "follow tail=0", ""),
        (&[], "tail=3", ""),
        (&["e1P x", "o2F a", "o3F b", "o4F c", "e5F y"], "tail=1", "xy\n"),
        (&["e1P x", "o2F a", "o3F b", "o4F c", "e5F y"], "tail=2", "c\nxy\n"),
    ] {
        let files = Log::new();
        files.write(&log(records));
        let text = files.text(&selection(Mode::Exact, options));
        let text = text.replace("2026-01-01T00:00:0", "T").replace(".000000000Z", "");
        assert_eq!(text, expected, "{records:?} {options}");
    }
}

#[test]
fn all_generations_are_one_log() {
    let files = Log::new();
    fs::write(files.generation(1), log(&["o1F a", "o1P b"])).expect("room");
    fs::write(files.generation(2), log(&["e2F c", "2026-01-01T00:00:02Z stdout F torn"])).expect("room");
    fs::write(files.generation(3), log(&["o3F d", "e3F e"])).expect("room");
    files.write(&log(&["o4F f"]));
    compress(&files.generation(1));
    for (options, expected) in [
        ("", "a\nc\nbtorn\nd\ne\nf\n"),
        ("stderr", "c\ne\n"),
        ("tail=2", "e\nf\n"),
        ("tail=4", "btorn\nd\ne\nf\n"),
        ("tail=4 stdout", "a\nbtorn\nd\nf\n"),
        ("tail=100", "a\nc\nbtorn\nd\ne\nf\n"),
        ("since=3", "d\ne\nf\n"),
        ("limit=5", "a\nc\nb"),
        ("follow tail=1", "f\n"),
    ] {
        assert_eq!(files.text(&selection(Mode::Exact, options)), expected, "{options}");
    }
    assert_eq!(files.text(&selection(Mode::Upstream, "")), "f\n");
    fs::remove_file(files.path()).expect("a file");
    assert_eq!(files.text(&selection(Mode::Exact, "tail=2")), "d\ne\n", "between two files");
}

#[test]
fn numbered_generations_are_one_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("c-json.log");
    let generation = |number: usize| directory.path().join(format!("c-json.log.{number}"));
    let record = |text: &str| {
        format!("{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:00Z\"}}\n")
    };
    fs::write(&path, record("0")).expect("room");
    let follow = selection(Mode::Exact, "follow");
    let mut reader = LogSource::open(&path).expect("a log").read(&follow).expect("a log");
    assert_eq!(drained(&mut reader), "0\n");
    let rotate = |text: &str| {
        for number in (1..12).rev() {
            for suffix in ["", ".gz"] {
                let name = |number| format!("{}{suffix}", generation(number).display());
                let _ = fs::rename(name(number), name(number + 1));
            }
        }
        fs::rename(&path, generation(1)).expect("a rename");
        // As Docker does it: the newest is compressed at once.
        compress(&generation(1));
        fs::write(&path, record(text)).expect("room");
    };
    // A follower that is too slow for one rotation, and for several.
    for (numbers, expected) in [(1..2, "1\n"), (2..5, "2\n3\n4\n"), (5..11, "5\n6\n7\n8\n9\n10\n")] {
        numbers.for_each(|number| rotate(&number.to_string()));
        assert_eq!(drained(&mut reader), expected);
        assert_eq!(drained(&mut reader), "");
    }
    fs::remove_file(format!("{}.gz", generation(1).display())).expect("a file");
    for (options, expected) in
        [("", "0\n1\n2\n3\n4\n5\n6\n7\n8\n10\n"), ("tail=2", "8\n10\n"), ("since=1", "")]
    {
        let mut reader =
            LogSource::open(&path).expect("a log").read(&selection(Mode::Exact, options)).expect("a log");
        assert_eq!(drained(&mut reader), expected, "{options}");
    }
}

#[test]
fn instances_of_a_container_are_one_log_on_request() {
    let directory = tempfile::tempdir().expect("a directory");
    let write =
        |name: &str, records: &[&str]| fs::write(directory.path().join(name), log(records)).expect("room");
    write("0.log.20260101-000000", &["o1F a", "o1P b"]);
    write("0.log", &["o2F c", "e2P unfin"]);
    write("2.log", &["e3F ished", "o3P x"]);
    write("10.log", &["o4F y", "e5F z"]);
    write("11.log", &["o6F later"]);
    write("01.log", &["o1F not an instance"]);
    let read = |instance, options: &str| {
        let source = LogSource::open_history(directory.path(), instance)?;
        let mut reader = source.read(&selection(Mode::Exact, options))?;
        Ok::<_, ReadError>(drained(&mut reader))
    };
    for (instance, options, expected) in [
        (0, "", "a\nbc\nunfin"),
        (10, "", "a\nbc\nunfin\nished\nx\ny\nz\n"),
        (10, "tail=3", "x\ny\nz\n"),
        (10, "tail=5", "unfin\nished\nx\ny\nz\n"),
        (10, "tail=2 stderr", "ished\nz\n"),
        (10, "since=3", "ished\nx\ny\nz\n"),
        (10, "until=3", "a\nbc\nunfin\nished\nx\n"),
        (10, "limit=4", "a\nbc"),
        (10, "follow tail=1", "z\n"),
        (9, "", "a\nbc\nunfin\nished\nx"),
    ] {
        assert_eq!(read(instance, options).expect("a log"), expected, "{instance} {options}");
    }
    let cut = Selection { limit_bytes: Some(13), ..Selection::default() };
    let source = LogSource::open_history(directory.path(), 10).expect("a log");
    let mut reader = source.read(&cut).expect("a log");
    assert_eq!(drained(&mut reader), "a\nbc\nunfin\nis");
    let rest = Selection { after: reader.cursor(), ..Selection::default() };
    assert_eq!(drained(&mut source.read(&rest).expect("a log")), "hed\nx\ny\nz\n");
    let empty = tempfile::tempdir().expect("a directory");
    assert!(LogSource::open_history(empty.path(), 3).is_err());
    assert!(LogSource::open_history(empty.path().join("none"), 3).is_err());
}

#[test]
fn records_of_any_length_are_read() {
    for mode in [Mode::Exact, Mode::Upstream] {
        let files = Log::new();
        let long = "x".repeat(5_000_000);
        files.write(format!("2026-01-01T00:00:01Z stdout F {long}\n").as_bytes());
        files.append(&log(&["o2F end"]));
        assert!(files.text(&Selection { mode, ..Selection::default() }) == format!("{long}\nend\n"));
        let tail = Selection { mode, tail: Some(1), ..Selection::default() };
        assert_eq!(files.text(&tail), "end\n");
        let tail = Selection { mode, tail: Some(2), ..Selection::default() };
        assert!(files.text(&tail) == format!("{long}\nend\n"));
    }
}

#[test]
fn a_link_leads_to_the_generations_beside_its_target() {
    let files = Log::new();
    fs::write(files.generation(1), log(&["o1F a"])).expect("room");
    files.write(&log(&["o2F b"]));
    let link = files.directory.path().join("link.log");
    std::os::unix::fs::symlink(files.path(), &link).expect("a link");
    let mut reader = LogSource::open(link).expect("a log").read(&Selection::default()).expect("a log");
    assert_eq!(drained(&mut reader), "a\nb\n");
}

#[test]
fn without_follow_the_log_ends_where_it_ended_at_the_beginning() {
    for mode in [Mode::Exact, Mode::Upstream] {
        let files = Log::new();
        files.write(&log(&["o1F a", "2026-01-01T00:00:02Z stdout F be"]));
        let mut reader = files.reader(&Selection { mode, ..Selection::default() });
        files.append(b"gun\n");
        files.append(&log(&["o3F later"]));
        assert_eq!(drained(&mut reader), "a\nbegun\n", "a record is read to its end");
    }
}

#[test]
fn soup_goes_in_and_out() {
    let soup: Vec<u8> = (0..200_000_u64).map(|n| (n.wrapping_mul(2_654_435_761) >> 7) as u8).collect();
    assert_eq!(std::collections::HashSet::<u8>::from_iter(soup.iter().copied()).len(), 256);
    let files = Log::new();
    let mut sink = files.sink(50_000);
    for (index, chunk) in soup.chunks(4099).enumerate() {
        sink.write(Stream::Stdout, chunk, at(index as i64)).expect("room");
    }
    sink.end(Stream::Stdout, at(100)).expect("room");
    assert!(files.read(&Selection::default()) == soup);
}
