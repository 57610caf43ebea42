use proptest::prelude::*;

use super::*;
use crate::{LineEnd, Stream, Streams, cri};

/// `o1P x` is `2026-01-01T00:00:01Z stdout P x` and a line feed, `e` is stderr; anything else stands for itself.
fn log(records: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        let shorthand = record.strip_prefix(['o', 'e']).and_then(|rest| rest.split_at_checked(1));
        match shorthand {
            Some((second, rest)) if second.as_bytes()[0].is_ascii_digit() => {
                let stream = if record.starts_with('o') { "stdout" } else { "stderr" };
                out.extend_from_slice(format!("2026-01-01T00:00:0{second}Z {stream} {rest}\n").as_bytes());
            }
            _ => out.extend_from_slice(format!("{record}\n").as_bytes()),
        }
    }
    out
}

fn render_all(selection: &Selection, input: &[u8]) -> String {
    let mut renderer = Renderer::new(selection);
    let mut out = Vec::new();
    let result = renderer.render(input, &mut out).and_then(|rendered| {
        if rendered.state == RenderState::LimitReached {
            return Ok(RenderState::LimitReached);
        }
        renderer.render_rest(&input[rendered.consumed..], &mut out)?;
        renderer.finish(&mut out)
    });
    let text = String::from_utf8(out)
        .expect("the tests use text")
        .replace("2026-01-01T00:00:0", "T")
        .replace(".000000000Z", "");
    match result {
        Ok(_) => text,
        Err(error) => format!("{text}error: {error}"),
    }
}

fn selection(options: &str) -> Selection {
    let mut selection = Selection::default();
    for option in options.split_whitespace() {
        match option.split_once('=').unwrap_or((option, "")) {
            ("ts", _) => selection.timestamps = true,
            ("stdout", _) => selection.streams = Streams::Stdout,
            ("stderr", _) => selection.streams = Streams::Stderr,
            ("since", second) => {
                selection.since = Some(format!("2026-01-01T00:00:0{second}Z").parse().expect("a time"));
            }
            ("limit", bytes) => selection.limit_bytes = Some(bytes.parse().expect("a number")),
            _ => panic!("unknown option {option}"),
        }
    }
    selection
}

#[test]
fn exact_lines() {
    for (records, options, expected) in [
        (&["o1F a", "e2F b", "o3F c"][..], "", "a\nb\nc\n"),
        (&["o1F a", "e2F b", "o3F c"], "stderr", "b\n"),
        (&["o1P abc", "e2F ERR", "o3F def"], "", "ERR\nabcdef\n"),
        (&["o1P abc", "e2F ERR", "o3F def"], "ts", "T2 ERR\nT1 abcdef\n"),
        (&["o1P abc", "e2F ERR", "o3F def"], "ts stdout", "T1 abcdef\n"),
        (&["o1P a", "e2P x", "o3F b", "e4F y"], "ts", "T1 ab\nT2 xy\n"),
        (&["o1P x1", "o2P x2", "o3P x3", "o4F y"], "ts since=2", ""),
        (&["o1P x1", "o2P x2", "o3F x3", "o4F y"], "ts since=2", "T4 y\n"),
        (&["o1F a", "o2F b", "o2F c", "o3F d"], "since=2", "b\nc\nd\n"),
        (&["o1P abc"], "", "abc"),
        (&["o1P abc", "e1P def"], "", "abc\ndef"),
        (&["o1P abc", "o2F "], "", "abc\n"),
        (&["o1F ", "o2F "], "", "\n\n"),
        (&["o1F a", "garbage line", "o3F c"], "", "a\nc\n"),
        (&["garbage line", "o1F a"], "", "a\n"),
        (
            &["garbage line", "more"],
            "",
            "error: failed to get parse function: unsupported log format: \"garbage line\\n\"",
        ),
        (&["\0\0\0\x002026-01-01T00:00:01Z stdout F a"], "", "a\n"),
        (
            &["o1F a", r#"{"log":"b\n","stream":"stderr","time":"2026-01-01T00:00:02Z"}"#, "o3F c"],
            "ts",
            "T1 a\nT2 b\nT3 c\n",
        ),
        (&[r#"{"log":"b\n","time":"2026-01-01T00:00:02Z"}"#, "o3F c"], "ts", "T3 c\n"),
        (&["o1F a", "e2F b", "o3F c"], "limit=3", "a\nb"),
        (&["o1F a", "e2F b", "o3F c"], "limit=0", ""),
        (&["o1F a", "e2F b", "o3F c"], "limit=6", "a\nb\nc\n"),
        (&["o1P abc", "e2P def"], "limit=5", "abc\nd"),
        (&[], "", ""),
    ] {
        assert_eq!(render_all(&selection(options), &log(records)), expected, "{records:?} {options}");
    }
}

#[test]
fn an_idle_log_shows_its_unfinished_line() {
    let mut renderer = Renderer::new(&selection("ts"));
    let mut out = Vec::new();
    let mut step = |records: &[&str]| {
        out.clear();
        renderer.render(&log(records), &mut out).expect("a log");
        renderer.idle(&mut out);
        String::from_utf8_lossy(&out).replace("2026-01-01T00:00:0", "T").replace(".000000000Z", "")
    };
    assert_eq!(step(&["o1P name: "]), "T1 name: ");
    assert_eq!(step(&["o2F joe", "o2F hi"]), "joe\nT2 hi\n");
    assert_eq!(step(&["o3P > "]), "T3 > ");
    assert_eq!(step(&["e4F warning"]), "\nT4 warning\n", "the waiting line breaks the prompt");
    assert_eq!(step(&["o5F "]), "", "the broken line has ended already");
    assert_eq!(step(&["o5P > "]), "T5 > ");
    assert_eq!(step(&["e6F w", "o7F x"]), "x\nT6 w\n", "no break needed");
    assert_eq!(step(&["o8P > ", "e8P ? "]), "T8 > ");
    assert_eq!(step(&["o9F x"]), "x\nT8 ? ");
    assert_eq!(step(&["o9F y"]), "\nT9 y\n");
    assert_eq!(step(&["e9F z"]), "T9 z\n");
}

#[test]
fn long_lines_are_not_held_for_ever() {
    let part = "x".repeat(16 * 1024);
    let mut input = Vec::new();
    for _ in 0..100 {
        input.extend(log(&[&format!("o1P {part}")]));
    }
    input.extend(log(&["e2F e", "o3F end"]));
    let mut renderer = Renderer::new(&Selection::default());
    let mut out = Vec::new();
    renderer.render(&input, &mut out).expect("a log");
    assert_eq!(out, [part.repeat(100).as_bytes(), b"end\ne\n"].concat());
}

#[test]
fn a_line_that_is_broken_goes_on_in_a_line_of_its_own() {
    let part = "x".repeat(1 << 20);
    let mut input = log(&[&format!("o1P {part}"), "o1P y"]);
    for _ in 0..2 {
        input.extend(log(&[&format!("e2F {}", "e".repeat(600 << 10))]));
    }
    input.extend(log(&["o3F end"]));
    let mut renderer = Renderer::new(&Selection::default());
    let mut out = Vec::new();
    renderer.render(&input, &mut out).expect("a log");
    let lengths: Vec<usize> = out.split(|byte| *byte == b'\n').map(<[u8]>::len).collect();
    assert_eq!(lengths, [(1 << 20) + 1, 600 << 10, 600 << 10, 3, 0]);
}

#[test]
fn records_longer_than_the_buffer_come_in_pieces() {
    for mode in [Mode::Exact, Mode::Upstream] {
        let mut renderer = Renderer::new(&Selection { mode, timestamps: true, ..Selection::default() });
        let mut out = Vec::new();
        renderer.render_piece(b"2026-01-01T00:00:01Z stdout F abc", &mut out).expect("a log");
        renderer.render_piece(b"def", &mut out).expect("a log");
        let rest = b"ghi\n2026-01-01T00:00:02Z stdout F j\n";
        let rendered = renderer.render(rest, &mut out).expect("a log");
        assert_eq!(rendered.consumed, rest.len());
        assert_eq!(
            String::from_utf8_lossy(&out),
            "2026-01-01T00:00:01.000000000Z abcdefghi\n2026-01-01T00:00:02.000000000Z j\n"
        );
    }
}

#[test]
fn an_overlong_line_that_is_no_record_is_skipped_and_counted_once() {
    let mut renderer = Renderer::new(&Selection::default());
    let mut out = Vec::new();
    renderer.render_piece(b"garbage", &mut out).expect("a log");
    renderer.render_piece(b"garbage", &mut out).expect("a log");
    renderer.render(b"garbage\n2026-01-01T00:00:02Z stdout F j\n", &mut out).expect("a log");
    assert_eq!(out, b"j\n");
    assert_eq!(renderer.stats(), RenderStats { records: 1, malformed: 1 });
}

#[test]
fn the_output_is_appended_within_the_limit() {
    let mut renderer = Renderer::new(&selection("limit=4"));
    let mut out = b"before".to_vec();
    assert_eq!(renderer.render(&log(&["o1F a"]), &mut out).expect("a log").state, RenderState::More);
    assert_eq!(
        renderer.render(&log(&["o1F bcd"]), &mut out).expect("a log").state,
        RenderState::LimitReached
    );
    assert_eq!(renderer.render(&log(&["o1F e"]), &mut out).expect("a log").state, RenderState::LimitReached);
    assert_eq!(out, b"beforea\nbc");
}

/// Records of two streams and the lines they make up.
fn arbitrary_log() -> impl Strategy<Value = Vec<(Stream, LineEnd, Vec<u8>)>> {
    let byte = any::<u8>().prop_map(|byte| if byte == b'\n' { b' ' } else { byte });
    let record = (any::<bool>(), prop::bool::weighted(0.3), prop::collection::vec(byte, 0..20));
    prop::collection::vec(record, 0..60).prop_map(|records| {
        let convert = |(stderr, partial, content)| {
            (
                Stream::ALL[usize::from(stderr)],
                if partial { LineEnd::Partial } else { LineEnd::Full },
                content,
            )
        };
        records.into_iter().map(convert).collect()
    })
}

/// Lines in the order in which they end, unfinished ones last.
fn expected_lines(records: &[(Stream, LineEnd, Vec<u8>)], streams: Streams) -> Vec<u8> {
    let mut held = [Vec::new(), Vec::new()];
    let mut out = Vec::new();
    for (stream, end, content) in records.iter().filter(|(stream, ..)| streams.contains(*stream)) {
        let line = &mut held[stream.index()];
        line.extend_from_slice(content);
        if *end == LineEnd::Full {
            out.append(line);
            out.push(b'\n');
        }
    }
    let unfinished: Vec<&[u8]> = held.iter().map(Vec::as_slice).filter(|line| !line.is_empty()).collect();
    out.extend(unfinished.join(&b'\n'));
    out
}

proptest! {
    #[test]
    fn lines_are_joined_however_the_file_is_cut(records in arbitrary_log(), cuts in prop::collection::vec(1..40usize, 1..20), stream in 0..3usize) {
        let streams = [Streams::Both, Streams::Stdout, Streams::Stderr][stream];
        let mut file = Vec::new();
        for (stream, end, content) in &records {
            cri::append_record(&mut file, b"2026-01-01T00:00:00Z", *stream, *end, content);
        }
        let mut renderer = Renderer::new(&Selection { streams, ..Selection::default() });
        let (mut out, mut fed, mut done) = (Vec::new(), 0, 0);
        for cut in cuts.iter().cycle() {
            fed = (fed + cut).min(file.len());
            done += renderer.render(&file[done..fed], &mut out).expect("a log").consumed;
            if fed == file.len() {
                break;
            }
        }
        prop_assert_eq!(done, file.len());
        renderer.finish(&mut out).expect("a log");
        prop_assert_eq!(out, expected_lines(&records, streams));
    }

    #[test]
    fn every_limit_cuts_exactly(records in arbitrary_log(), limit in 0..200u64, upstream: bool) {
        let mode = if upstream { Mode::Upstream } else { Mode::Exact };
        let mut file = Vec::new();
        for (stream, end, content) in &records {
            cri::append_record(&mut file, b"2026-01-01T00:00:00Z", *stream, *end, content);
        }
        let whole = finished(&Selection { mode, ..Selection::default() }, &file);
        let cut = finished(&Selection { mode, limit_bytes: Some(limit), ..Selection::default() }, &file);
        prop_assert_eq!(&cut[..], &whole[..whole.len().min(limit as usize)]);
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, upstream: bool) {
        let mode = if upstream { Mode::Upstream } else { Mode::Exact };
        let mut renderer = Renderer::new(&Selection { mode, ..Selection::default() });
        let mut out = Vec::new();
        if let Ok(rendered) = renderer.render(&bytes, &mut out) {
            let _ = renderer.render_rest(&bytes[rendered.consumed..], &mut out);
            let _ = renderer.finish(&mut out);
        }
    }
}

fn finished(selection: &Selection, file: &[u8]) -> Vec<u8> {
    let mut renderer = Renderer::new(selection);
    let mut out = Vec::new();
    renderer.render(file, &mut out).expect("a log");
    renderer.finish(&mut out).expect("a log");
    out
}
