use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Numbered lines, cut into chunks that do not end with them.
fn chunk(number: usize) -> String {
    let begin = if number == 0 { "0 ".to_owned() } else { String::new() };
    let line = |index: usize| format!("line\n{} ", number * 50 + index + 1);
    begin + &(0..50).map(line).collect::<String>()
}

/// The numbers of whole lines, which must be consecutive.
fn consecutive(text: &str) -> Vec<usize> {
    let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix(" line\n"));
    let numbers: Vec<usize> = lines.map(|number| number.parse().expect("a number")).collect();
    for pair in numbers.windows(2) {
        assert_eq!(pair[0] + 1, pair[1]);
    }
    numbers
}

/// Runs `reader` beside a writer that rotates, compresses and deletes as fast as it can.
fn beside_a_writer(chunks: usize, limits: FileLimits, reader: impl Fn(&Log, &AtomicBool) + Sync) {
    let files = Log::new();
    let mut sink = CriFileSink::open(files.path(), limits).expect("a sink");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2).map(|_| scope.spawn(|| reader(&files, &is_over))).collect();
        for number in 0..chunks {
            sink.write(Stream::Stdout, chunk(number).as_bytes(), at(number as i64)).expect("room");
            if number % 7 == 0 {
                sink.flush_partial(at(number as i64)).expect("room");
            }
        }
        is_over.store(true, Ordering::Release);
        readers.into_iter().for_each(|reader| reader.join().expect("no panic"));
    });
}

#[test]
fn every_reading_beside_a_writer_is_whole() {
    beside_a_writer(2000, FileLimits { max_bytes: 40_000, max_files: 4 }, |files, is_over| {
        let mut last = 0;
        while !is_over.load(Ordering::Acquire) {
            let numbers = consecutive(&files.text(&Selection::default()));
            let newest = numbers.last().copied().unwrap_or(0);
            assert!(newest >= last, "{newest} after {last}");
            last = newest;
            let tail = consecutive(&files.text(&selection(Mode::Exact, "tail=40")));
            assert!(tail.len() >= 39.min(last), "{} of 40 lines, the last may be unfinished", tail.len());
            assert!(tail.last().copied().unwrap_or(0) >= last);
        }
    });
}

#[test]
fn what_a_follower_misses_is_declared() {
    let chunks = 3000;
    beside_a_writer(chunks, FileLimits { max_bytes: 10_000, max_files: 3 }, |files, is_over| {
        let mut reader = files.reader(&selection(Mode::Exact, "follow"));
        let mut out = Vec::new();
        let mut rounds = 0;
        loop {
            let ended = is_over.load(Ordering::Acquire);
            drain(&mut reader, &mut out).expect("a log");
            if ended {
                break;
            }
            // A slow follower now and then.
            rounds += 1;
            if rounds % 50 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
        let text = String::from_utf8(out).expect("text");
        let has_numbers =
            crate::attributes::generation(fs::File::open(files.path()).expect("a file")).is_some();
        if has_numbers {
            let (gaps, last) = runs(&text);
            assert_eq!(gaps, reader.stats().gaps);
            assert_eq!(last, chunks * 50 - 1);
        }
    });
}

/// How many gaps there are between runs of consecutive numbers, and the last number.
fn runs(text: &str) -> (u64, usize) {
    let (mut gaps, mut last) = (0, None);
    let mut run = String::new();
    for line in text.split_inclusive('\n') {
        if podlog_line::Gap::parse_content(line.trim_end().as_bytes()).is_none() {
            run += line;
            continue;
        }
        gaps += 1;
        last = consecutive_from(&std::mem::take(&mut run), last).or(last);
    }
    last = consecutive_from(&run, last).or(last);
    (gaps, last.expect("numbers"))
}

/// The last of consecutive numbers that come after `last`.
fn consecutive_from(run: &str, last: Option<usize>) -> Option<usize> {
    let whole = |line: &&str| line.ends_with(" line\n") && line.as_bytes()[0].is_ascii_digit();
    let text: String = run.split_inclusive('\n').filter(whole).collect();
    // Of a line that the gap has cut off, the end of the number may be missing at either side.
    let numbers = consecutive(&text);
    let first = numbers.first()?;
    assert!(last.is_none_or(|last| *first > last), "{first} after {last:?}");
    numbers.last().copied()
}
