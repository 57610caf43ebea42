use super::*;

/// What the log reader of Kubernetes 1.36 gave for these files when it was run. `T1` is
/// `2026-01-01T00:00:01.000000000Z`.
#[test]
fn upstream_mode_gives_what_kubernetes_gives() {
    let unsupported = r#"error: failed to get parse function: unsupported log format: "garbage line\n""#;
    let rows: &[(u32, &[&str], &str, &str)] = &[
        (1, ABC, "", "a\nb\nc\n"),
        (2, ABC, "tail=1", "c\n"),
        (3, ABC, "stdout", "a\nc\n"),
        (4, ABC, "stderr limit=1", "b"),
        (5, PARTS, "ts", "T1 x1x2x3\nT4 y\n"),
        (6, PARTS, "ts tail=2", "T3 x3\nT4 y\n"),
        (7, PARTS, "ts since=2", "x2x3\nT4 y\n"),
        (8, MIXED, "ts", "T1 abcERR\nT3 def\n"),
        (9, MIXED, "ts stdout", "T1 abcT3 def\n"),
        (10, TORN, "", "a\nb\npartial-no-eol"),
        (11, TORN, "tail=1", "b\n"),
        (12, TORN, "follow", "a\nb\n"),
        (13, TORN, "follow tail=0", ""),
        (14, GARBAGE, "", "a\nc\n"),
        (15, GARBAGE, "tail=2", unsupported),
        (16, &["garbage line\n", "o1F a", "e2F b", "o3F c"], "", unsupported),
        (17, &[], "tail=5", ""),
        (18, ABC, "ts limit=35", "T1 a\n20"),
        (19, &["2026-01-01T02:00:00.5+02:00 stdout F z\n"], "ts", "2026-01-01T02:00:00.500000000+02:00 z\n"),
        (20, JSON, "ts", "2026-01-01T00:00:00.123000000Z hi\nT1 partial\n"),
        (
            21,
            &["{\"log\":\"hi\\n\",\"time\":\"2026-01-01T00:00:00Z\"}\n"],
            "",
            "error: unexpected stream type \"\"",
        ),
        (22, &["o1F ", "2026-01-01T00:00:02Z stdout F\n", "o3F ok"], "", "\nok\n"),
        (23, ABC, "tail=2 since=3", "c\n"),
        (24, &["o1P:T1 a", "o2F:T1:T2 b", "o3X c"], "", "ab\nc\n"),
        (25, ABC, "limit=2", "a\n"),
        (26, &["o1F a\r"], "", "a\r\n"),
        (27, &["o1F a", "2026-01-01T00:00:02Z stdin F b\n", "o3F c"], "", "a\nc\n"),
        (28, &["o1P abc"], "ts", "T1 abc"),
    ];
    for (number, records, options, expected) in rows {
        let files = Log::new();
        files.write(&log(records));
        let (out, result) = files.try_read(&selection(Mode::Upstream, options));
        let mut text = String::from_utf8(out).expect("text");
        if let Err(error) = result {
            text += &format!("error: {error}");
        }
        let text = text.replace("2026-01-01T00:00:0", "T").replace(".000000000Z", "");
        let expected = expected.replace("2026-01-01T00:00:0", "T").replace(".000000000Z", "");
        assert_eq!(text, expected, "vector {number}");
    }
}
