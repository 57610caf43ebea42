//! A disk that takes nothing.

use super::*;

#[test]
fn a_full_disk_is_survived_and_marked() {
    let log = Log::new();
    let mut sink = log.sink(u64::MAX, 5);
    sink.write(Stream::Stdout, b"before\n", at(1)).expect("room");
    // A file opened for reading only takes no byte, as a full disk.
    let writable = std::mem::replace(
        &mut sink.file,
        Appender::new(fs::File::open(log.path()).expect("a file"), 0, false, [false; 2]),
    );
    sink.write(Stream::Stdout, b"kept\n", at(2)).expect_err("the beginning of the failure is reported");
    let line = [vec![b'x'; 1000], vec![b'\n']].concat();
    for _ in 0..1100 {
        sink.write(Stream::Stdout, &line, at(3)).expect("reported already");
    }
    let stats = sink.stats();
    assert!(stats.dropped_records > 0 && stats.dropped_records < 1100, "{stats:?}");
    assert_eq!(stats.dropped_bytes, stats.dropped_records * 1001);
    assert!(
        stats.backlog_bytes as usize >= MAX_BACKLOG && (stats.backlog_bytes as usize) < MAX_BACKLOG + 20_000
    );
    assert!(sink.is_stalled());
    let backlog = std::mem::replace(&mut sink.file, writable).batch;
    sink.file.batch = backlog;
    sink.write(Stream::Stdout, b"lost\n", at(4)).expect("room");
    sink.write(Stream::Stdout, b"after\n", at(5)).expect("room");
    let [stdout, stderr] = contents(&log.files());
    let kept = 1100 - stats.dropped_records as usize;
    let gap = Gap {
        reason: GapReason::WriteFailed,
        stream: Some(Stream::Stdout),
        lines: Some(stats.dropped_records + 1),
        bytes: Some(stats.dropped_bytes + 5),
        from: Some(at(3)),
        to: Some(at(4)),
    };
    let expected =
        [b"before\nkept\n".to_vec(), line.repeat(kept), content_of(&gap), b"after\n".to_vec()].concat();
    assert!(stdout == expected, "{}", String::from_utf8_lossy(&stdout[stdout.len() - 200..]));
    assert!(stderr.is_empty());
    assert_eq!(sink.stats().backlog_bytes, 0);
}

fn content_of(gap: &Gap) -> Vec<u8> {
    let mut content = Vec::new();
    gap.append_content(&mut content);
    content.push(b'\n');
    content
}

#[test]
fn a_sink_that_waits_drops_nothing() {
    let log = Log::new();
    let options = SinkOptions {
        limits: FileLimits { max_bytes: 500_000, max_files: 50 },
        when_full: WhenFull::Wait,
        ..SinkOptions::default()
    };
    let mut sink = CriFileSink::open_with(log.path(), options).expect("a sink");
    sink.write(Stream::Stdout, b"before\n", at(1)).expect("room");
    let full = Appender::new(fs::File::open(log.path()).expect("a file"), 0, false, [false; 2]);
    let mut writable = std::mem::replace(&mut sink.file, full);
    sink.write(Stream::Stdout, b"kept\n", at(2)).expect_err("the beginning of the failure is reported");
    let line = [vec![b'x'; 1000], vec![b'\n']].concat();
    for _ in 0..3000 {
        sink.write(Stream::Stdout, &line, at(3)).expect("reported already");
        assert!(sink.is_stalled());
    }
    assert!(sink.stats().backlog_bytes > 3_000_000);
    std::mem::swap(&mut writable.batch, &mut sink.file.batch);
    sink.file = writable;
    sink.flush().expect("room");
    assert!(!sink.is_stalled());
    assert_eq!((sink.stats().dropped_records, sink.stats().backlog_bytes), (0, 0));
    drop(sink);
    assert!(contents(&log.files())[0] == [b"before\nkept\n".to_vec(), line.repeat(3000)].concat());
}

#[test]
fn a_disk_that_is_full_puts_nothing_into_a_log_that_somebody_has_cut_off() {
    let log = Log::new();
    let mut sink = log.sink(u64::MAX, 5);
    sink.write(Stream::Stdout, &b"cut off\n".repeat(1000), at(1)).expect("room");
    fs::File::options().write(true).open(log.path()).expect("a file").set_len(0).expect("cut off");
    // Half of it is written, then there is no room.
    assert!(crash::fail_at(1, 2, || {
        sink.write(Stream::Stdout, b"kept\nkept, too\n", at(2)).expect_err("no room");
    }));
    sink.flush().expect("room");
    let [stdout, _] = contents(&log.files());
    assert_eq!(String::from_utf8_lossy(&stdout), "kept\nkept, too\n");
}
