use super::*;

/// What the log reader of Kubernetes 1.36 gave for these files when it was run. `T1` is
/// `2026-01-01T00:00:01.000000000Z`.
#[test]
fn upstream_mode_gives_what_kubernetes_gives() {
    for (number, records, options, expected, _) in vectors() {
        check(number, Mode::Upstream, records, options, expected);
    }
}

#[test]
fn exact_mode_makes_whole_lines_of_the_same_files() {
    for (number, records, options, upstream, exact) in vectors() {
        check(number, Mode::Exact, records, options, exact.unwrap_or(upstream));
    }
}

/// A number, records, options, what Kubernetes gives, and what exact mode gives where that is something else.
type Vector = (u32, &'static [&'static str], &'static str, &'static str, Option<&'static str>);

const UNSUPPORTED: &str = "error: failed to get parse function: unsupported log format: \"garbage line\\n\"";
const NO_STREAM: &str = concat!(
    "error: failed to get parse function: unsupported log format: ",
    r#""{\"log\":\"hi\\n\",\"time\":\"2026-01-01T00:00:00Z\"}\n""#
);

fn vectors() -> Vec<Vector> {
    vec![
        (1, ABC, "", "a\nb\nc\n", None),
        (2, ABC, "tail=1", "c\n", None),
        (3, ABC, "stdout", "a\nc\n", None),
        (4, ABC, "stderr limit=1", "b", None),
        (5, PARTS, "ts", "T1 x1x2x3\nT4 y\n", None),
        (6, PARTS, "ts tail=2", "T3 x3\nT4 y\n", Some("T1 x1x2x3\nT4 y\n")),
        (7, PARTS, "ts since=2", "x2x3\nT4 y\n", Some("T4 y\n")),
        (8, MIXED, "ts", "T1 abcERR\nT3 def\n", Some("T2 ERR\nT1 abcdef\n")),
        (9, MIXED, "ts stdout", "T1 abcT3 def\n", Some("T1 abcdef\n")),
        (10, TORN, "", "a\nb\npartial-no-eol", None),
        (11, TORN, "tail=1", "b\n", Some("partial-no-eol")),
        (12, TORN, "follow", "a\nb\n", Some("a\nb\npartial-no-eol")),
        (13, TORN, "follow tail=0", "", Some("partial-no-eol")),
        (14, GARBAGE, "", "a\nc\n", None),
        (15, GARBAGE, "tail=2", UNSUPPORTED, Some("a\nc\n")),
        (16, &["garbage line\n", "o1F a", "e2F b", "o3F c"], "", UNSUPPORTED, Some("a\nb\nc\n")),
        (17, &[], "tail=5", "", None),
        (18, ABC, "ts limit=35", "T1 a\n20", None),
        (
            19,
            &["2026-01-01T02:00:00.5+02:00 stdout F z\n"],
            "ts",
            "2026-01-01T02:00:00.500000000+02:00 z\n",
            None,
        ),
        (20, JSON, "ts", "2026-01-01T00:00:00.123000000Z hi\nT1 partial\n", None),
        (
            21,
            &["{\"log\":\"hi\\n\",\"time\":\"2026-01-01T00:00:00Z\"}\n"],
            "",
            "error: unexpected stream type \"\"",
            Some(NO_STREAM),
        ),
        (22, &["o1F ", "2026-01-01T00:00:02Z stdout F\n", "o3F ok"], "", "\nok\n", None),
        (23, ABC, "tail=2 since=3", "c\n", None),
        (24, &["o1P:T1 a", "o2F:T1:T2 b", "o3X c"], "", "ab\nc\n", None),
        (25, ABC, "limit=2", "a\n", None),
        (26, &["o1F a\r"], "", "a\r\n", None),
        (27, &["o1F a", "2026-01-01T00:00:02Z stdin F b\n", "o3F c"], "", "a\nc\n", None),
        (28, &["o1P abc"], "ts", "T1 abc", None),
    ]
}

fn check(number: u32, mode: Mode, records: &[&str], options: &str, expected: &str) {
    let files = Log::new();
    files.write(&log(records));
    let (out, result) = files.try_read(&selection(mode, options));
    let mut text = String::from_utf8(out).expect("text");
    if let Err(error) = result {
        text += &format!("error: {error}");
    }
    let short = |text: &str| text.replace("2026-01-01T00:00:0", "T").replace(".000000000Z", "");
    assert_eq!(short(&text), short(expected), "vector {number}, {mode:?}");
}
