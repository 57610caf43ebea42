//! A container that prints as fast as its runtime can write, through many rotations, and clients that follow.

use std::path::Path;

use futures_util::{AsyncBufReadExt, TryStreamExt, pin_mut};
use serde_json::json;

use crate::cluster::{Cluster, LOG_MAX_BYTES, shell};

/// Lines of some fifty bytes, as records are: a hundred files of them where nobody is in the way.
const LINES: usize = 2_000_000;
const FOLLOWERS: usize = 3;
const ROTATIONS: usize = 50;

pub(crate) async fn every_line_through_rotations(cluster: &Cluster) {
    let script = format!("seq 1 {LINES}; echo end; sleep 1000");
    let made = cluster.run("fast", json!({"containers": [shell("c", &script)]})).await;
    cluster.wait_log("fast", "limitBytes=10", "1").await;
    let begun = std::time::Instant::now();
    futures_util::future::join_all((0..FOLLOWERS).map(|_| follow(cluster))).await;
    let took = begun.elapsed();
    check(cluster.log("fast", "").await.unwrap().lines());
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let (rotations, mut sizes) = rotated(&cluster.data_dir().join(format!("pods/default_fast_{uid}/c")));
    assert!(rotations >= ROTATIONS, "only {rotations} rotations");
    sizes.sort_unstable();
    let within = sizes.iter().filter(|size| **size <= LOG_MAX_BYTES + LOG_MAX_BYTES / 20).count();
    let (median, most) = (sizes.get(sizes.len() / 2).copied(), sizes.last().copied());
    eprintln!(
        "{:?}: {LINES} lines to {FOLLOWERS} followers in {took:.1?}, {rotations} rotations; files of {LOG_MAX_BYTES} bytes: \
         {within} of {} within 5 %, half have {median:?}, the largest has {most:?}",
        cluster.column(),
        sizes.len()
    );
    // How far one is overrun depends on what else the machine does; that half of them are is none of its doing.
    assert!(median <= Some(LOG_MAX_BYTES), "half of the files have {median:?} bytes and more");
    cluster.remove("fast").await;
}

/// Reads to the last line.
async fn follow(cluster: &Cluster) {
    let lines = cluster.follow("fast").await.lines();
    pin_mut!(lines);
    let mut expected = 1;
    while let Some(line) = lines.try_next().await.unwrap() {
        if line == "end" {
            assert_eq!(expected - 1, LINES);
            return;
        }
        assert_eq!(line.parse(), Ok(expected), "a line is lost, doubled or declared lost");
        expected += 1;
    }
    panic!("the stream ended after {expected} lines");
}

/// Every line is there, once and in order.
fn check<'a>(lines: impl Iterator<Item = &'a str>) {
    let mut expected = 1;
    for line in lines.take_while(|line| *line != "end") {
        assert_eq!(line.parse(), Ok(expected), "a line is lost, doubled or declared lost");
        expected += 1;
    }
    assert_eq!(expected - 1, LINES);
}

/// How many files were rotated away, and the sizes of those that are not compressed.
fn rotated(folder: &Path) -> (usize, Vec<u64>) {
    let entries: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().collect();
    let suffixes = entries.iter().filter_map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        Some((name.strip_prefix("0.log.")?.to_owned(), entry.metadata().ok()?.len()))
    });
    let is_digit = |byte: u8| byte.is_ascii_digit() || byte == b'-';
    let suffixes: Vec<_> = suffixes.collect();
    let sizes = suffixes.iter().filter(|(suffix, _)| suffix.bytes().all(is_digit)).map(|(_, size)| *size);
    let stamps = suffixes.iter().filter_map(|(suffix, _)| suffix.get(..15));
    (stamps.collect::<std::collections::BTreeSet<_>>().len(), sizes.collect())
}
