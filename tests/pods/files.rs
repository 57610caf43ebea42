//! Log files that a container writes by itself.

use futures_util::{AsyncBufReadExt, TryStreamExt, pin_mut};
use serde_json::json;

use crate::cluster::{Cluster, shell};

/// Prints numbers into a file that it renames after each ten, a tenth of a second or so, beside files that are traps.
const SCRIPT: &str = "mkfifo /logs/fifo.log; ln -s /proc/1/environ /logs/proc.log; ln -s a.log /logs/link.log; mkdir /logs/d.log
i=0
while :; do
  for j in 1 2 3 4 5 6 7 8 9 10; do
    echo $i >> /logs/a.log; i=$((i+1)); sleep 0.01
  done
  mv /logs/a.log /logs/a.log.$i; rm -f /logs/a.log.$((i-2000))
done";

pub(crate) async fn log_files_of_a_container(cluster: &Cluster) {
    let mut container = shell("c", SCRIPT);
    container["volumeMounts"] = json!([{"name": "logs", "mountPath": "/logs"}]);
    let spec = json!({"containers": [container], "volumes": [{"name": "logs", "emptyDir": {}}]});
    cluster.run_annotated("files", json!({"podlog.dev/log-files.c": "/logs/*.log"}), spec).await;
    cluster.wait_log("files", "file=/logs/a.log", "\n").await;

    let lines = loop {
        // It is not there at every moment.
        if let Ok(stream) = cluster.try_stream("files", "file=/logs/a.log&follow=true").await {
            break stream.lines();
        }
    };
    pin_mut!(lines);
    let mut next: u32 = lines.try_next().await.unwrap().unwrap().parse().unwrap();
    for _ in 0..500 {
        let line = lines.try_next().await.unwrap().unwrap();
        next += 1;
        assert_eq!(line.parse(), Ok(next), "through rotations");
    }
    let last = cluster.wait_log("files", "file=/logs/link.log&tailLines=1", "\n").await;
    assert_eq!(last.lines().count(), 1, "{last}");
    let chosen = cluster.wait_log("files", "file=/logs/a.log&match=7$", "7\n").await;
    assert!(chosen.lines().all(|line| line.ends_with('7')), "{chosen}");

    for (query, code, text) in [
        ("file=/logs/none.log", 400, "there is no such file"),
        ("file=/logs/fifo.log", 400, "not a regular file"),
        ("file=/logs/d.log", 400, "not a regular file"),
        ("file=/logs/proc.log", 400, "not on a file system for files"),
        ("file=/etc/passwd", 400, "is not declared; declared are /logs/*.log"),
        ("file=/logs/../etc/passwd", 400, "is not declared"),
        ("file=/logs/a.log&timestamps=true", 422, "may only be specified together with"),
        ("file=/logs/a.log&match=(", 400, "invalid pattern"),
    ] {
        match cluster.log("files", query).await {
            Err(kube::Error::Api(status)) => {
                assert_eq!(status.code, code, "{query}: {status:?}");
                assert!(status.message.contains(text), "{query}: {status:?}");
            }
            other => panic!("{query}: {other:?}"),
        }
    }
    cluster.remove("files").await;
    while lines.try_next().await.unwrap().is_some() {}
}
