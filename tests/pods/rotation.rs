//! A container that prints as fast as its runtime can write, through many rotations, and clients that follow.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::{AsyncBufReadExt, TryStreamExt, pin_mut};
use podlog_line::Timestamp;
use serde_json::json;

use crate::cluster::{Cluster, Column, PATIENCE, log_max_bytes, setting, shell, with};
use crate::numbered::{Seen, script};

/// How many bytes are printed at least: more, until there were [`ROTATIONS`], however late a busy machine is with each.
const BYTES: &str = "PODLOG_FLOOD_BYTES";
/// Bytes of a line.
const WIDTH: &str = "PODLOG_FLOOD_WIDTH";
/// How many follow.
const FOLLOWERS: &str = "PODLOG_FLOOD_FOLLOWERS";
const ROTATIONS: u64 = 50;
/// A limit as it is by default (`containerLogMaxSize`).
pub(crate) const USUAL_MAX_BYTES: u64 = 10 << 20;

pub(crate) async fn every_line_through_rotations(cluster: &Cluster) {
    let (width, limit) = (setting(WIDTH, 1000), log_max_bytes());
    let at_least = setting(BYTES, ROTATIONS * limit) / width;
    let flood = Flood::start(cluster, "fast", at_least, width).await;
    let (begun, followers) = (Instant::now(), setting(FOLLOWERS, 3));
    let readers = (0..followers).map(|_| read(cluster, "follow=true", width));
    tokio::join!(flood.stop_after(ROTATIONS as usize), futures_util::future::join_all(readers));
    let took = begun.elapsed().as_secs_f64();
    cluster.wait_log("fast", "tailLines=1", "end").await;
    let lines = read(cluster, "", width).await;
    assert!(lines >= at_least, "only {lines} lines");
    let sizes = rotated(&flood.logs);
    let printing = printing_seconds(cluster, "fast").await;
    eprintln!(
        "{:?}: {} lines of {width} bytes, printed at {:.0} MB/s, with {followers} followers in {took:.1} s, {} rotations; {}",
        cluster.column(),
        lines,
        (lines * width) as f64 / 1e6 / printing,
        sizes.len(),
        shares(&sizes, limit)
    );
    match cluster.column() {
        // Whoever writes a log rotates it: before a record would not fit.
        Column::Process | Column::CriServer => assert!(sizes.iter().all(|size| *size <= limit)),
        // How far a small one is overrun depends on what else the machine does; that half of them are is none of its doing.
        Column::Containerd => assert!(sizes[sizes.len() / 2] <= limit, "{sizes:?}"),
    }
    cluster.remove("fast").await;
}

/// At the limit that there is by default, no file is more than five hundredths larger.
pub(crate) async fn files_of_the_usual_size_stay_within_it(cluster: &Cluster) {
    let width = 200;
    let flood = Flood::start(cluster, "large", 6 * USUAL_MAX_BYTES / width, width).await;
    flood.stop_after(5).await;
    cluster.wait_log("large", "tailLines=1", "end").await;
    let sizes = rotated(&flood.logs);
    eprintln!("{:?}: {}", cluster.column(), shares(&sizes, USUAL_MAX_BYTES));
    assert!(sizes.iter().all(|size| *size <= USUAL_MAX_BYTES + USUAL_MAX_BYTES / 20), "{sizes:?}");
    cluster.remove("large").await;
}

/// A pod that prints.
struct Flood {
    /// The directory of its log.
    logs: PathBuf,
    /// When this file is there it prints no more.
    stop: PathBuf,
}

impl Flood {
    /// Prints so many lines, then more until it is stopped, then `end` and how many they were.
    async fn start(cluster: &Cluster, name: &str, lines: u64, width: u64) -> Self {
        let signals = cluster.path(&format!("{name}-signals"));
        std::fs::create_dir(&signals).unwrap();
        let width = usize::try_from(width).unwrap();
        let burst = lines / 10;
        let (first, more) = (
            script("1", &lines.to_string(), width),
            script("$((n + 1))", &format!("$((n + {burst}))"), width),
        );
        let print = format!(
            "{first}; n={lines}; until [ -e /signals/stop ]; do {more}; n=$((n + {burst})); done; echo end $n; sleep 1000"
        );
        let container =
            with(shell("c", &print), "volumeMounts", json!([{"name": "signals", "mountPath": "/signals"}]));
        let volumes = json!([{"name": "signals", "hostPath": {"path": signals}}]);
        let made = cluster.run(name, json!({"containers": [container], "volumes": volumes})).await;
        cluster.wait_log(name, "limitBytes=10", "1 xx").await;
        let uid = made["metadata"]["uid"].as_str().unwrap();
        let logs = cluster.data_dir().join(format!("pods/default_{name}_{uid}/c"));
        Flood { logs, stop: signals.join("stop") }
    }

    /// Has it end when its log was rotated so often.
    async fn stop_after(&self, rotations: usize) {
        let begun = Instant::now();
        while rotated(&self.logs).len() < rotations {
            assert!(begun.elapsed() < PATIENCE, "only {} rotations", rotated(&self.logs).len());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        std::fs::write(&self.stop, "").unwrap();
    }
}

/// Between the first and the last record.
async fn printing_seconds(cluster: &Cluster, name: &str) -> f64 {
    let mut times = Vec::new();
    for query in ["limitBytes=30", "tailLines=1"] {
        let line = cluster.log(name, &format!("timestamps=true&{query}")).await.unwrap();
        let time = line.split(['Z', ' ']).next().unwrap();
        times.push(Timestamp::parse(format!("{time}Z").as_bytes()).unwrap().as_nanoseconds());
    }
    (times[1] - times[0]) as f64 / 1e9
}

/// Reads to the last line; every line must be there once, and nothing else. Returns how many there were.
async fn read(cluster: &Cluster, query: &str, width: u64) -> u64 {
    let stream = cluster.stream("fast", query).await.lines();
    pin_mut!(stream);
    let mut seen = Seen::new(usize::try_from(width).unwrap());
    while let Some(line) = stream.try_next().await.unwrap() {
        if let Some(lines) = line.strip_prefix("end ") {
            assert_eq!((seen.last, seen.markers), (lines.parse().unwrap(), 0));
            return seen.last;
        }
        seen.line(&line);
    }
    panic!("the stream ended after {} lines", seen.last);
}

/// Sizes of the files that were rotated away, before they were compressed, the smallest first.
fn rotated(folder: &Path) -> Vec<u64> {
    let mut sizes = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        // What is being compressed is there twice; what was removed meanwhile is there under another name.
        let Some(stamp) = name.strip_prefix("0.log.").filter(|_| !name.ends_with(".tmp")) else { continue };
        let Ok(size) = unpacked_size(&entry.path()) else { continue };
        sizes.insert(stamp.trim_end_matches(".gz").to_owned(), size);
    }
    let mut sizes: Vec<u64> = sizes.into_values().collect();
    sizes.sort_unstable();
    sizes
}

/// gzip ends with the number of bytes it holds.
fn unpacked_size(path: &Path) -> std::io::Result<u64> {
    let mut file = std::fs::File::open(path)?;
    if path.extension().is_none_or(|extension| extension != "gz") {
        return Ok(file.metadata()?.len());
    }
    let mut size = [0; 4];
    file.seek(SeekFrom::End(-4))?;
    file.read_exact(&mut size)?;
    Ok(u32::from_le_bytes(size).into())
}

fn shares(sizes: &[u64], limit: u64) -> String {
    let within = sizes.iter().filter(|size| **size <= limit + limit / 20).count();
    let share = |size: Option<&u64>| size.map_or(0, |size| size * 100 / limit);
    format!(
        "of {} files of {limit} bytes {within} are within 5 %; the smallest has {} % of that, the median {} %, the largest {} %",
        sizes.len(),
        share(sizes.first()),
        share(sizes.get(sizes.len() / 2)),
        share(sizes.last())
    )
}
