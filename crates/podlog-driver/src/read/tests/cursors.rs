//! Cursors of single lines, of markers too, and what is said when the place of one is gone.

use podlog_line::{Cursor, Gap, GapReason};

use super::{
    naive::{Playground, Step, step},
    *,
};
use crate::Resumed;

/// The lines of a log, each with its cursor, with line feeds.
fn lines(files: &Log, after: Option<Cursor>) -> (Vec<(Cursor, String)>, Resumed) {
    let mut reader = files.reader(&Selection { after, cursors: true, ..Selection::default() });
    let text = drained(&mut reader);
    let line = |line: &str| {
        let (cursor, text) = line.split_once(' ').expect("a cursor and a line");
        (cursor.parse().expect("a cursor"), text.to_owned())
    };
    (text.split_inclusive('\n').map(line).collect(), reader.resumed())
}

/// How many bytes of log files a marker says are missing.
fn missing(line: &str) -> Option<u64> {
    let gap = Gap::parse_content(line.trim_end().as_bytes())?;
    assert_eq!(gap.reason, GapReason::Retention);
    Some(gap.bytes.expect("the bases are known"))
}

/// Whole lines of both streams in so many files.
fn whole_lines(files: &[Vec<bool>]) -> Playground {
    let mut playground = Playground::new(true);
    for streams in files {
        playground.play(&Step::Write(streams.iter().map(|stderr| (*stderr, false, 0)).collect()));
        playground.rotate();
    }
    playground
}

fn has_attributes(files: &Log) -> bool {
    crate::attributes::generation(fs::File::open(files.path()).expect("a file")).is_some()
}

/// The bytes that the record of a line takes in its file.
fn record_length(line: &str) -> u64 {
    "2026-01-01T00:00:00Z stdout F ".len() as u64 + line.len() as u64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn behind_the_cursor_of_each_line_is_exactly_the_rest(
        steps in prop::collection::vec(step(), 1..20),
        deleted in prop::collection::vec(0..10_usize, 0..3),
        damaged in prop::collection::vec((0..10_usize, 0..100_u8), 0..4),
        is_ours: bool,
    ) {
        let mut playground = Playground::new(is_ours);
        steps.iter().for_each(|step| playground.play(step));
        deleted.iter().for_each(|number| playground.delete(*number));
        damaged.iter().for_each(|(number, percent)| playground.damage(*number, *percent));
        let (all, _) = lines(&playground.files, None);
        for (index, (cursor, _)) in all.iter().enumerate() {
            let (rest, resumed) = lines(&playground.files, Some(*cursor));
            prop_assert_eq!(resumed, Resumed::Exact);
            prop_assert_eq!(&rest, &all[index + 1..], "behind line {}", index);
        }
    }

    #[test]
    fn what_is_deleted_behind_a_cursor_is_declared_to_the_byte(
        files in prop::collection::vec(prop::collection::vec(any::<bool>(), 1..6), 1..8),
        cut in any::<prop::sample::Index>(),
        deleted in prop::collection::vec(0..8_usize, 1..6),
    ) {
        let mut playground = whole_lines(&files);
        playground.play(&Step::Write(vec![(false, false, 0), (true, false, 0)]));
        prop_assume!(has_attributes(&playground.files));
        let (all, _) = lines(&playground.files, None);
        let (behind, cursor) = (cut.index(all.len()) + 1, all[cut.index(all.len())].0);
        deleted.iter().for_each(|number| playground.delete(*number));
        let (rest, resumed) = lines(&playground.files, Some(cursor));
        let (markers, shown): (Vec<_>, Vec<_>) = rest.iter().partition(|(_, line)| missing(line).is_some());
        let lost: u64 = markers.iter().filter_map(|(_, line)| missing(line)).sum();
        let wanted = &all[behind..];
        let left: Vec<_> = wanted.iter().filter(|line| shown.contains(line)).collect();
        prop_assert_eq!(left, shown.clone(), "only what comes behind the cursor, in order");
        let length = |lines: &mut dyn Iterator<Item = &String>| lines.map(|line| record_length(line)).sum::<u64>();
        let wanted = length(&mut wanted.iter().map(|(_, line)| line));
        let shown = length(&mut shown.iter().map(|(_, line)| line));
        prop_assert_eq!(lost + shown, wanted, "every byte is shown or declared");
        match resumed {
            Resumed::Exact => {}
            Resumed::Gone { bytes } => prop_assert_eq!(bytes, rest.first().and_then(|(_, line)| missing(line))),
        }
    }
}

#[test]
fn a_file_that_was_delivered_to_its_end_may_go() {
    let mut playground = whole_lines(&[vec![false, true]]);
    playground.play(&Step::Write(vec![(false, false, 0)]));
    if !has_attributes(&playground.files) {
        return;
    }
    let (all, _) = lines(&playground.files, None);
    playground.delete(0);
    assert_eq!(lines(&playground.files, Some(all[1].0)), (all[2..].to_vec(), Resumed::Exact));
    let (rest, resumed) = lines(&playground.files, Some(all[0].0));
    assert_eq!(resumed, Resumed::Gone { bytes: Some(record_length(&all[1].1)) });
    assert_eq!(rest[1..], all[2..]);
}

/// What is said to be missing where nothing of `files` can be read, the last of which is deleted, and `current` is.
fn check_markers(files: &[Vec<bool>], unreadable: usize, current: bool) {
    let mut playground = whole_lines(files);
    if current {
        playground.play(&Step::Write(vec![(false, false, 0)]));
    }
    (1..=unreadable).for_each(|number| playground.damage(number, 0));
    playground.delete(unreadable + 1);
    let (all, _) = lines(&playground.files, None);
    let is_deletion_known = has_attributes(&playground.files);
    let markers = all.iter().filter(|(_, line)| line.contains("podlog.gap")).count();
    assert_eq!(markers, unreadable + usize::from(is_deletion_known));
    for (index, (cursor, _)) in all.iter().enumerate() {
        let (rest, resumed) = lines(&playground.files, Some(*cursor));
        assert_eq!((rest, resumed), (all[index + 1..].to_vec(), Resumed::Exact), "behind line {index}");
    }
}

#[test]
fn behind_one_of_several_markers_are_the_others() {
    for files in 3..6 {
        for current in [true, false] {
            check_markers(&vec![vec![false, true]; files], files - 2, current);
        }
    }
}

#[test]
fn a_line_whose_place_is_gone_is_ended() {
    let files = Log::new();
    files.write(&log(&["o1P prompt"]));
    let mut reader = files.reader(&selection(Mode::Exact, "follow"));
    let mut out = Vec::new();
    // The first look reads, the second one finds the log at rest.
    for _ in 0..2 {
        drain(&mut reader, &mut out).expect("a log");
    }
    assert_eq!(String::from_utf8_lossy(&out), "prompt");
    let after = reader.cursor();
    files.write(&log(&["o2F other"]));
    let text = files.text(&Selection { after, ..Selection::default() });
    let marker = r#"{"podlog.gap":{"reason":"retention","to":"2026-01-01T00:00:02Z"}}"#;
    assert_eq!(text, format!("\n{marker}\nother\n"));
}

#[test]
fn behind_a_marker_it_is_not_shown_again() {
    let files = Log::new();
    let records: Vec<String> =
        (0..20_000).map(|n| format!("2026-01-01T00:00:01Z stdout F {}\n", n * 7919)).collect();
    fs::write(files.generation(1), records.concat()).expect("room");
    let path = pack(&files.generation(1), Packing::Gzip);
    let whole = fs::read(&path).expect("a file");
    fs::write(&path, &whole[..whole.len() / 2]).expect("room");
    files.write(&log(&["o4F end"]));
    let text = files.text(&Selection::default());
    let before = text.find("{\"podlog.gap\"").expect("a marker") as u64;
    let marker = text.len() as u64 - before - 4;
    let resumed = |limit: u64| {
        let mut reader = files.reader(&Selection { limit_bytes: Some(limit), ..Selection::default() });
        assert_eq!(drained(&mut reader).len() as u64, limit);
        files.text(&Selection { after: reader.cursor(), ..Selection::default() })
    };
    for cut in [before - 1, before, before + 1, before + marker - 1, before + marker, before + marker + 2] {
        assert_eq!(resumed(cut), text[cut as usize..], "{cut} of {} and {marker}", before);
    }
    let (all, _) = lines(&files, None);
    let (cursor, _) = all.iter().find(|(_, line)| line.contains("podlog.gap")).expect("a marker");
    assert_eq!(files.text(&Selection { after: Some(*cursor), ..Selection::default() }), "end\n");
}
