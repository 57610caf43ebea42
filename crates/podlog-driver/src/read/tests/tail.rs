use super::*;

/// Lines of two streams, some of them partial, in several generations.
fn arbitrary_log() -> impl Strategy<Value = Vec<Vec<(Stream, LineEnd, u8)>>> {
    let record =
        (any::<bool>(), prop::bool::weighted(0.3), any::<u8>()).prop_map(|(stderr, partial, content)| {
            let end = if partial { LineEnd::Partial } else { LineEnd::Full };
            (Stream::ALL[usize::from(stderr)], end, content)
        });
    prop::collection::vec(prop::collection::vec(record, 0..12), 1..4)
}

/// All lines in the order of their ends, unfinished ones where their last record is.
fn lines(records: &[(Stream, LineEnd, u8)], streams: Streams) -> Vec<String> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut held = [(0, String::new()), (0, String::new())];
    for (index, (stream, end, content)) in records.iter().enumerate() {
        if streams.contains(*stream) {
            let line = &mut held[stream.index()];
            line.0 = index;
            line.1 += &format!("{content},");
            if *end == LineEnd::Full {
                lines.push((index, std::mem::take(&mut line.1)));
            }
        }
    }
    lines.extend(held.into_iter().filter(|(_, line)| !line.is_empty()));
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn tail_counts_lines_for_every_number(generations in arbitrary_log(), streams in 0..3usize, compress_first: bool) {
        let streams = [Streams::Both, Streams::Stdout, Streams::Stderr][streams];
        let files = Log::new();
        for (index, records) in generations.iter().enumerate() {
            let mut bytes = Vec::new();
            for (stream, end, content) in records {
                cri::append_record(&mut bytes, b"2026-01-01T00:00:00Z", *stream, *end, format!("{content},").as_bytes());
            }
            let is_current = index + 1 == generations.len();
            let path = if is_current { files.path() } else { files.generation(index) };
            fs::write(&path, bytes).expect("room");
            if index == 0 && !is_current && compress_first {
                compress(&path);
            }
        }
        let all = lines(&generations.concat(), streams);
        for count in 0..all.len() + 3 {
            let text = files.text(&Selection { streams, tail: Some(count as u64), ..Selection::default() });
            let mut got: Vec<&str> = text.lines().collect();
            let mut expected: Vec<&str> = all[all.len().saturating_sub(count)..].iter().map(String::as_str).collect();
            // Unfinished lines come last in the output.
            got.sort();
            expected.sort();
            prop_assert_eq!(got, expected, "tail={}", count);
        }
    }
}
