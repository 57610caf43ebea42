//! A container that prints as fast as its runtime can write, through many rotations, and clients that follow.

use std::path::Path;

use futures_util::{AsyncBufReadExt, TryStreamExt, pin_mut};
use serde_json::json;

use crate::cluster::{Cluster, LOG_MAX_BYTES, shell};

/// Lines of some fifty bytes, as records are: more than fifty files of them.
const LINES: usize = 1_300_000;
const FOLLOWERS: usize = 3;
/// Files that are compressed or half full are fewer and more.
const FILES: usize = 30;

pub(crate) async fn every_line_through_rotations(cluster: &Cluster) {
    let script = format!("seq 1 {LINES}; echo end; sleep 1000");
    let made = cluster.run("fast", json!({"containers": [shell("c", &script)]})).await;
    cluster.wait_log("fast", "limitBytes=10", "1").await;
    let begun = std::time::Instant::now();
    futures_util::future::join_all((0..FOLLOWERS).map(|_| follow(cluster))).await;
    let took = begun.elapsed();
    check(cluster.log("fast", "").await.unwrap().lines());
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let mut sizes = rotated_sizes(&cluster.data_dir().join(format!("pods/default_fast_{uid}/c")));
    sizes.sort_unstable();
    let (median, most) = (sizes[sizes.len() / 2], sizes[sizes.len() - 1]);
    let within = sizes.iter().filter(|size| **size <= LOG_MAX_BYTES + LOG_MAX_BYTES / 20).count();
    eprintln!(
        "{:?}: {LINES} lines to {FOLLOWERS} followers in {took:.1?}; files of {LOG_MAX_BYTES} bytes: {within} of {} \
         within 5 %, half have {median}, the largest has {most}",
        cluster.column(),
        sizes.len()
    );
    assert!(sizes.len() >= FILES, "only {} files", sizes.len());
    // How far one is overrun depends on what else the machine does; that half of them are is none of its doing.
    assert!(median <= LOG_MAX_BYTES, "half of the files have {median} bytes and more");
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

/// Sizes of the rotated files that are not compressed.
fn rotated_sizes(folder: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    let rotated = entries.filter(|entry| {
        let name = entry.file_name().into_string().unwrap();
        name.starts_with("0.log.") && !name.ends_with(".gz") && !name.ends_with(".tmp")
    });
    rotated.map(|entry| entry.metadata().unwrap().len()).collect()
}
