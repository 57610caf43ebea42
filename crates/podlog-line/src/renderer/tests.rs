mod cursors;

use proptest::prelude::*;

use super::*;
use crate::{GapReason, LineMatch, Patterns, Streams, cri};

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
            ("until", second) => {
                selection.until = Some(format!("2026-01-01T00:00:0{second}Z").parse().expect("a time"));
            }
            ("match", pattern) => selection.line_match = Some(line_match(&[pattern], &[])),
            ("exclude", pattern) => selection.line_match = Some(line_match(&[], &[pattern])),
            ("limit", bytes) => selection.limit_bytes = Some(bytes.parse().expect("a number")),
            _ => panic!("unknown option {option}"),
        }
    }
    selection
}

fn line_match(include: &[&str], exclude: &[&str]) -> LineMatch {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let patterns = Patterns { include: owned(include), exclude: owned(exclude), ..Patterns::default() };
    LineMatch::new(patterns).expect("patterns")
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
fn a_line_is_as_late_as_its_first_record() {
    for (records, options, expected) in [
        (&["o1F a", "o2F b", "o3F c"][..], "until=2", "a\nb\n"),
        (&["o1F a", "o3F c", "o2F b"], "until=2", "a\nb\n"),
        (&["o1F a", "o2F b", "o3F c"], "since=2 until=2", "b\n"),
        (&["o2P a", "o3F b", "o3P c", "o3F d"], "until=2", "ab\n"),
        (&["o3P a", "e2F b", "o3F c", "o2F d"], "until=2", "b\nd\n"),
        (&["o1P a", "e3F b"], "until=2", "a"),
    ] {
        assert_eq!(render_all(&selection(options), &log(records)), expected, "{records:?} {options}");
    }
}

#[test]
fn the_end_of_a_time_is_known() {
    for (records, expected) in [
        (&["o1F a", "o2F b"][..], false),
        (&["o1F a", "o3F b"], true),
        (&["o1P a", "e3F b"], false),
        (&["o1P a", "e3F b", "o3F c"], true),
        (&["o1F a", "e3P b"], true),
    ] {
        let mut renderer = Renderer::new(&selection("until=2"));
        renderer.render(&log(records), &mut Vec::new()).expect("a log");
        assert_eq!(renderer.is_past_until(), expected, "{records:?}");
    }
}

#[test]
fn whole_lines_are_matched() {
    for (records, options, expected) in [
        (&["o1F error", "o2F fine", "e3F terror"][..], "match=err", "error\nterror\n"),
        (&["o1F error", "o2F fine", "e3F terror"], "exclude=err", "fine\n"),
        (&["o1F error", "o2F fine"], "match=^err ts", "T1 error\n"),
        (&["o1P er", "e2F x", "o3F ror"], "match=err", "error\n"),
        (&["o1P er", "e2F x", "o3F ror"], "match=^error$", "error\n"),
        (&["o1P er", "e2F x", "o3F ror"], "exclude=rr", "x\n"),
        (&["o1P er", "e2F x", "o3P ror"], "match=err", "error"),
        (&["o1F a", "o2F 2026", "o3F stdout"], "match=2026", "2026\n"),
        (&["o1F a", "o2F b"], "match=^$", ""),
        (&["o1F a", "o2F "], "match=^$", "\n"),
        (&["o1F aa", "o2F ab", "o3F ac"], "match=a limit=4", "aa\na"),
        (&["o1F aa", "o2F ab", "e3F ab", "o4F ab"], "match=b stdout since=3 until=4", "ab\n"),
        (&[r#"{"log":"x\u0041\n","stream":"stdout","time":"2026-01-01T00:00:02Z"}"#], "match=xA", "xA\n"),
    ] {
        assert_eq!(render_all(&selection(options), &log(records)), expected, "{records:?} {options}");
    }
}

#[test]
fn an_unfinished_line_is_matched_when_it_has_ended() {
    let mut renderer = Renderer::new(&selection("match=b"));
    let mut out = Vec::new();
    renderer.render(&log(&["o1P a"]), &mut out).expect("a log");
    renderer.idle(&mut out);
    assert_eq!(out, b"");
    renderer.render(&log(&["o2F b"]), &mut out).expect("a log");
    assert_eq!(out, b"ab\n");
}

#[test]
fn a_line_too_long_to_be_held_is_matched_by_what_is_held() {
    let part = "x".repeat(MAX_HELD + 1);
    for (begin, end, is_shown) in
        [("hit", "", true), ("", "hit", false), ("", "", false), ("hit", "hit", true)]
    {
        let line = if is_shown { format!("{begin}{part}{end}\n") } else { String::new() };
        for records in [
            &[&format!("o1P {begin}{part}"), &format!("o2F {end}"), "o3F hit"][..],
            &[&format!("o1F {begin}{part}{end}"), "o3F hit"],
        ] {
            let mut out = Vec::new();
            Renderer::new(&selection("match=hit")).render(&log(records), &mut out).expect("a log");
            assert!(out == format!("{line}hit\n").as_bytes(), "{begin} {end} {}", out.len());
        }
    }
}

const MARKER: &str = r#"{"podlog.gap":{"reason":"drop-oldest"}}"#;

#[test]
fn gaps_are_lines_that_always_match() {
    let gap = |second: u8| format!("o{second}F:podlog-gap {MARKER}");
    let marker = format!("{MARKER}\n");
    for (records, options, expected) in [
        (&["o1F a", &gap(2), "o3F b"][..], "", format!("a\n{marker}b\n")),
        (&["o1F a", &gap(2), "o3F b"], "match=b", format!("{marker}b\n")),
        (&["o1F a", &gap(2), "o3F b"], "exclude=gap ts", format!("T1 a\nT2 {marker}T3 b\n")),
        (&["o1F a", &gap(2), "e3F b"], "stderr", "b\n".to_owned()),
        (&["o1F a", &gap(2), "o3F b"], "since=3", "b\n".to_owned()),
        (&["o1F a", &gap(2), "o3F b"], "until=1", "a\n".to_owned()),
        (&["o1P a", &gap(2), "o3F b"], "", format!("a\n{marker}b\n")),
        (&["o1P a", &gap(2), "o3F b"], "match=b", format!("{marker}b\n")),
        (&["e1P a", &gap(2), "e3F b"], "", format!("{marker}ab\n")),
        (&["o1P a", &gap(3), "o3F b"], "since=2", format!("{marker}b\n")),
        (&["o1F a", &format!("o2F {MARKER}")], "match=a", format!("a\n{marker}")),
        (&["o1F a", &format!("o2F {MARKER}")], "exclude=gap", "a\n".to_owned()),
    ] {
        assert_eq!(render_all(&selection(options), &log(records)), expected, "{records:?} {options}");
    }
}

#[test]
fn a_reader_declares_gaps_of_its_own() {
    let gap = Gap { bytes: Some(7), ..Gap::new(GapReason::Retention) };
    let at = Timestamp::parse(b"2026-01-01T00:00:02Z").expect("a time");
    let content = r#"{"podlog.gap":{"reason":"retention","bytes":7}}"#;
    for (records, idle, options, expected) in [
        (&["o1F a"][..], false, "", format!("a\n{content}\n")),
        (&["o1P a", "e1P b"], false, "ts", format!("T1 a\nT1 b\nT2 {content}\n")),
        (&["o1P a", "e1P b"], true, "", format!("a\nb\n{content}\n")),
        (&["o1P a", "e1P b"], false, "stderr match=x", format!("{content}\n")),
        (&["o1P a"], false, "limit=4", "a\n{\"".to_owned()),
        (&["o1P a"], false, "limit=1", "a".to_owned()),
    ] {
        let mut renderer = Renderer::new(&selection(options));
        let mut out = Vec::new();
        renderer.render(&log(records), &mut out).expect("a log");
        if idle {
            renderer.idle(&mut out);
        }
        if renderer.gap(&gap, at, None, &mut out) == RenderState::More {
            renderer.render(&log(&["o3F next"]), &mut out).expect("a log");
            assert!(out.ends_with(b"next\n") || options.contains("match"), "nothing is glued");
            out.truncate(out.len() - if out.ends_with(b"next\n") { 5 } else { 0 });
        }
        let text =
            String::from_utf8_lossy(&out).replace("2026-01-01T00:00:0", "T").replace(".000000000Z", "");
        assert_eq!(text.trim_end_matches("T3 "), expected, "{records:?} {options}");
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

/// A log of which some records share a second, as many do, and some are damaged.
fn arbitrary_file() -> impl Strategy<Value = Text> {
    (arbitrary_log(), prop::collection::vec(0..20usize, 60)).prop_map(|(records, kinds)| {
        let mut file = b"2026-01-01T00:00:00Z stdout F first\n".to_vec();
        for ((second, (stream, end, content)), kind) in records.iter().enumerate().zip(kinds) {
            let time = format!("2026-01-01T00:00:{:02}.5Z", second / 4 * 4);
            match kind {
                0 => file.extend_from_slice(b"damaged\n"),
                1 => cri::append_record(&mut file, b"2026-01-01T00:00:05Z", *stream, *end, content),
                2 => file.extend_from_slice(format!("{time} {stream} F:podlog-gap {MARKER}\n").as_bytes()),
                _ => cri::append_record(&mut file, time.as_bytes(), *stream, *end, content),
            }
        }
        Text(file)
    })
}

/// Bytes that a failing test can print.
#[derive(Clone)]
struct Text(Vec<u8>);

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.escape_ascii().to_string().replace("\\n", "\n"))
    }
}

fn arbitrary_selection() -> impl Strategy<Value = Selection> {
    let times = (prop::option::of(0..40i64), prop::option::of(20..60i64));
    (any::<bool>(), 0..3usize, times, 0..4usize).prop_map(|(timestamps, streams, (since, until), wanted)| {
        let at = |second| Timestamp::from_seconds(1_767_225_600 + second, 0);
        Selection {
            timestamps,
            streams: [Streams::Both, Streams::Stdout, Streams::Stderr][streams],
            since: since.map(at),
            until: until.map(at),
            line_match: [None, None, Some(line_match(&["a|\\d"], &[])), Some(line_match(&[], &["[a-m]"]))]
                [wanted]
                .clone(),
            ..Selection::default()
        }
    })
}

/// Feeds a log from `fed` on in such steps; a step of 0 says that nothing comes for a while. What was consumed.
fn feed(renderer: &mut Renderer, file: &[u8], fed: usize, steps: &[usize], out: &mut Vec<u8>) -> usize {
    let (mut done, mut end) = (fed, fed);
    for step in steps {
        end = (end + step).min(file.len());
        done += renderer.render(&file[done..end], out).expect("a log").consumed;
        if *step == 0 {
            renderer.idle(out);
        }
    }
    done
}

/// A line of a file as writers of every kind leave it, whole or damaged. The seconds are few, so that many share one.
fn arbitrary_text() -> impl Strategy<Value = String> {
    let time = "2026-01-01T00:00:(0[0-3]|2[0-5]|4[0-2])([.][0-9]{1,9}|[.][0-9]{9}|)";
    let content = "[a-f0-9 .F]{0,60}";
    prop_oneof![
        12 => (time, "std(out|err) F ", content).prop_map(|(time, header, content)| format!("{time}Z {header}{content}")),
        4 => (time, "(Z|\\+00:00|\\+02:00|-01:30)", "std(out|err) (F|P|F:x|P:x|X) ", content)
            .prop_map(|(time, zone, header, content)| format!("{time}{zone} {header}{content}")),
        1 => (time, "std(out|err)").prop_map(|(time, stream)| format!("{time}Z {stream} F:podlog-gap {MARKER}")),
        1 => (time, "std(out|err|in)", content, "(\\\\n|)").prop_map(|(time, stream, content, end)|
            format!(r#"{{"log":"{content}{end}","stream":"{stream}","time":"{time}Z"}}"#)),
        1 => (time, "(Z|) (stdout|stdin|) (F|) ?", content).prop_map(|(time, rest, content)| format!("{time}{rest}{content}")),
        1 => "\0{0,3}[a-f0-9 ]{0,50}",
    ]
}

/// Lines of a file, of which runs look alike.
fn arbitrary_lines() -> impl Strategy<Value = Vec<String>> {
    let run = (arbitrary_text(), 1..6usize).prop_map(|(text, count)| vec![text; count]);
    prop::collection::vec(run, 0..25).prop_map(|runs| runs.concat())
}

proptest! {
    #[test]
    fn the_renderer_does_what_a_simple_one_does(
        lines in arbitrary_lines(),
        selection in arbitrary_selection(),
        limit in prop::option::weighted(0.3, 0..1500u64),
        cuts in prop::collection::vec(1..700usize, 1..10),
        torn in 0..60usize,
    ) {
        let mut file = lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes();
        file.truncate(file.len().saturating_sub(torn.saturating_sub(30)));
        file.splice(0..0, *b"2026-01-01T00:00:00Z stdout F first\n");
        let selection = Selection { limit_bytes: limit, ..selection };
        let mut renderer = Renderer::new(&selection);
        let (mut out, mut fed, mut done) = (Vec::new(), 0, 0);
        let mut state = RenderState::More;
        for cut in cuts.iter().cycle() {
            fed = (fed + cut).min(file.len());
            let rendered = renderer.render(&file[done..fed], &mut out).expect("a log");
            (done, state) = (done + rendered.consumed, rendered.state);
            if fed == file.len() || state == RenderState::LimitReached {
                break;
            }
        }
        if state == RenderState::More && renderer.render_rest(&file[done..], &mut out) == Ok(RenderState::More) {
            renderer.finish(&mut out).expect("a log");
        }
        let expected = naive::render(&selection, &file);
        prop_assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&expected));
    }
}

fn finished(selection: &Selection, file: &[u8]) -> Vec<u8> {
    let mut renderer = Renderer::new(selection);
    let mut out = Vec::new();
    renderer.render(file, &mut out).expect("a log");
    renderer.finish(&mut out).expect("a log");
    out
}
