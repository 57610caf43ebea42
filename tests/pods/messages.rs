//! Why containers ended, in the words of their status.

use serde_json::json;

use crate::cluster::{Cluster, ended, once, shell, status, with};

pub(crate) async fn last_words_of_a_file(cluster: &Cluster) {
    let own =
        with(shell("own", "printf bye > /tmp/words; exit 4"), "terminationMessagePath", json!("/tmp/words"));
    let usual = shell("usual", "printf 'so long' > /dev/termination-log");
    cluster.run("words", json!({"containers": [own, usual], "restartPolicy": "Never"})).await;
    let pod = cluster.wait_phase("words", "Failed").await;
    let message = |name: &str| status(&pod, name)["state"]["terminated"]["message"].clone();
    assert_eq!((ended(&pod, "own").0, message("own"), message("usual")), (4, json!("bye"), json!("so long")));
    cluster.remove("words").await;
}

pub(crate) async fn last_words_of_the_log(cluster: &Cluster) {
    let falls_back = |name: &str, script: &str| {
        with(shell(name, script), "terminationMessagePolicy", json!("FallbackToLogsOnError"))
    };
    let lines = "i=0; while [ $i -lt 100 ]; do i=$((i + 1)); echo line $i; done";
    let containers = [
        falls_back("good", "echo all is well"),
        falls_back("bad", &format!("{lines}; exit 1")),
        shell("plain", "echo not this; exit 1"),
    ];
    cluster.run("tail", json!({"containers": containers, "restartPolicy": "Never"})).await;
    let pod = cluster.wait_phase("tail", "Failed").await;
    let message = |name: &str| {
        status(&pod, name)["state"]["terminated"]["message"].as_str().unwrap_or_default().to_owned()
    };
    let expected: String = (21..=100).map(|number| format!("line {number}\n")).collect();
    assert_eq!([message("good"), message("bad"), message("plain")], [String::new(), expected, String::new()]);
    cluster.remove("tail").await;
}

pub(crate) async fn memory_that_is_used_up(cluster: &Cluster) {
    let hungry =
        with(shell("c", "x=a; while :; do x=$x$x; done"), "resources", json!({"limits": {"memory": "24Mi"}}));
    cluster.run("hungry", once(hungry)).await;
    let pod = cluster.wait_phase("hungry", "Failed").await;
    assert_eq!(ended(&pod, "c"), (137, "OOMKilled".to_owned()));
    cluster.remove("hungry").await;
}
