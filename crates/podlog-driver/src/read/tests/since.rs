use super::*;

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
