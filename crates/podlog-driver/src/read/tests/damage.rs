use super::*;

#[test]
fn a_damaged_compressed_file_gives_what_is_left_of_it_and_a_gap() {
    let lines: Vec<String> =
        (0..20_000).map(|n| format!("2026-01-01T00:00:01Z stdout F {}\n", n * 7919)).collect();
    let contents = lines.concat().replace("2026-01-01T00:00:01Z stdout F ", "");
    let marker = concat!(
        r#"{"podlog.gap":{"reason":"damaged","from":"2026-01-01T00:00:01Z","to":"2026-01-01T00:00:04Z"}}"#,
        "\n"
    );
    for packing in [Packing::Gzip, Packing::Zstd] {
        let files = Log::new();
        fs::write(files.generation(1), lines.concat()).expect("room");
        files.write(&log(&["o4F end"]));
        let path = pack(&files.generation(1), packing);
        let whole = fs::read(&path).expect("a file");
        fs::write(&path, &whole[..whole.len() / 2]).expect("room");
        for options in ["", "follow", "tail=1000", "since=1"] {
            let mut reader = files.reader(&selection(Mode::Exact, options));
            let text = drained(&mut reader);
            let (before, after) = text.split_once(marker).expect("a gap");
            assert_eq!(after, "end\n");
            assert!(options == "tail=1000" || contents.starts_with(before.trim_end()), "{options}");
            assert!(before.lines().count() >= 998, "{options}");
            assert_eq!((reader.stats().damaged_files, reader.stats().gaps), (1, 1));
            reader.finish(&mut Vec::new()).expect("the end");
        }
        let text = |options: &str| files.text(&selection(Mode::Exact, options));
        assert_eq!(text("tail=1"), "end\n");
        assert_eq!(text("tail=2"), [marker, "end\n"].concat(), "a gap counts as a line");
        assert_eq!(text("tail=2 stderr"), marker, "it is in both streams");
        assert_eq!(text("tail=3").lines().count(), 3);
    }
}

#[test]
fn a_file_of_which_nothing_can_be_decompressed_is_a_gap() {
    for suffix in [".gz", ".zst"] {
        let files = Log::new();
        fs::write(format!("{}{suffix}", files.generation(1).display()), "garbage").expect("room");
        files.write(&log(&["o4F end"]));
        let marker = r#"{"podlog.gap":{"reason":"damaged","to":"2026-01-01T00:00:04Z"}}"#;
        assert_eq!(files.text(&Selection::default()), format!("{marker}\nend\n"));
        // Neither is what is left of a torn record a reason to refuse the log.
        files.write(b"");
        let lone = r#"{"podlog.gap":{"reason":"damaged"}}"#;
        assert_eq!(files.text(&Selection::default()), format!("{lone}\n"));
        let record = log(&["o4F a line that is long enough to be seen in part"]);
        fs::write(files.generation(1), record).expect("room");
        let path = pack(&files.generation(1), Packing::Gzip);
        let packed = fs::read(&path).expect("a file");
        fs::write(path, &packed[..packed.len() / 2]).expect("room");
        assert!(files.text(&Selection::default()).ends_with(&format!("{lone}\n")));
    }
}

#[test]
fn members_and_frames_are_one_content() {
    for packing in [Packing::Gzip, Packing::Zstd] {
        let files = Log::new();
        let mut parts = Vec::new();
        for text in ["o1F a", "o2F b"] {
            fs::write(files.generation(1), log(&[text])).expect("room");
            parts.extend(fs::read(pack(&files.generation(1), packing)).expect("a file"));
        }
        fs::write(format!("{}{}", files.generation(1).display(), packing.suffix()), parts).expect("room");
        files.write(&log(&["o3F c"]));
        assert_eq!(files.text(&Selection::default()), "a\nb\nc\n");
        assert_eq!(files.text(&selection(Mode::Exact, "tail=2")), "b\nc\n");
    }
}

#[test]
fn damaged_records_are_skipped_and_counted() {
    let files = Log::new();
    files.write(&log(&[
        "o1F a",
        "\n",
        "2026-01-01T00:00:01Z stdout F\n",
        "\0\0\0\x002026-01-01T00:00:01Z stdout F b\n",
        "2026-99-01T00:00:01Z stdout F x\n",
        "{\"log\":\n",
        "o2F c",
    ]));
    let mut reader = files.reader(&Selection::default());
    assert_eq!(drained(&mut reader), "a\nb\nc\n");
    assert_eq!((reader.stats().records, reader.stats().malformed), (3, 4));
}

#[test]
fn errors_are_those_of_the_kubelet() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().canonicalize().expect("a directory");
    let message = |path: &Path| {
        let result = LogSource::open(path).and_then(|source| source.read(&Selection::default()).map(|_| ()));
        result.expect_err("no log").to_string()
    };
    let missing = root.join("0.log");
    let resolving = |path: &Path, component: &Path| {
        format!(
            "failed to try resolving symlinks in path \"{}\": lstat {}: no such file or directory",
            path.display(),
            component.display()
        )
    };
    assert_eq!(message(&missing), resolving(&missing, &missing));
    let deep = root.join("a/b/0.log");
    assert_eq!(message(&deep), resolving(&deep, &root.join("a")));
    let link = root.join("1.log");
    std::os::unix::fs::symlink(root.join("target"), &link).expect("a link");
    assert_eq!(message(&link), resolving(&link, &root.join("target")));
    let directory_as_log = root.join("2.log");
    fs::create_dir(&directory_as_log).expect("a directory");
    let result = LogSource::open(&directory_as_log)
        .and_then(|source| source.read(&Selection::default()))
        .and_then(|mut reader| reader.read_chunk(&mut Vec::new()).map(|_| ()));
    let expected = format!("failed to read log file \"{}\": is a directory", directory_as_log.display());
    assert_eq!(result.expect_err("no log").to_string(), expected);
}

#[test]
fn a_file_in_which_nothing_is_a_record_is_refused_before_any_output() {
    let unsupported = "failed to get parse function: unsupported log format: ";
    let huge = "x".repeat(3 << 20);
    for (content, options, quoted) in [
        ("nonsense\n", "", "\"nonsense\\n\""),
        ("nonsense\nmore\n", "tail=1", "\"nonsense\\n\""),
        ("nonsense\n", "follow", "\"nonsense\\n\""),
        ("nonsense", "", "\"nonsense\""),
        (&huge, "", ""),
        (&"nonsense\n".repeat(2 << 20), "", "\"nonsense\\n\""),
    ] {
        let files = Log::new();
        files.write(content.as_bytes());
        let mut reader = files.reader(&selection(Mode::Exact, options));
        let mut out = Vec::new();
        let error = drain(&mut reader, &mut out).expect_err("no log").to_string();
        assert!(error.starts_with(unsupported) && error.ends_with(quoted), "{:.200}", error);
        assert!(out.is_empty());
    }
}

#[test]
fn a_torn_record_after_files_that_are_too_old_is_no_error() {
    let files = Log::new();
    let mut sink = files.sink(10);
    sink.write(Stream::Stdout, b"a\nb\n", at(1)).expect("room");
    drop(sink);
    files.write(b"\0\0\0\n");
    let follow = files.reader(&selection(Mode::Exact, "since=5 follow")).read_chunk(&mut Vec::new());
    if crate::attributes::generation(fs::File::open(files.path()).expect("a file")).is_some() {
        assert_eq!(files.text(&selection(Mode::Exact, "since=5")), "");
        assert_eq!(follow.expect("a log"), ReadState::CaughtUp);
    }
}
