//! Logs that the kubelet rotates for a runtime that has its troubles.

use std::fs;

use podlog_kubelet::config::KubeletConfiguration;

use crate::bench::Bench;
use crate::cri_socket::CriSocket;
use crate::followers::run_pod;

const PATH: &str = "/containerLogs/default/web/c";
const MAX_BYTES: u64 = 4000;
const REOPEN: &str = "reopen_container_log";

/// A bench with a pod whose log the kubelet rotates.
async fn rotating() -> (Bench, CriSocket) {
    let mut bench = Bench::idle().await;
    let socket = CriSocket::listen(&bench).await;
    bench.config =
        KubeletConfiguration { container_log_max_bytes: Some(MAX_BYTES), ..KubeletConfiguration::default() };
    bench.seen = Some(socket.runtime());
    bench.start().await;
    run_pod(&bench, "web", "c").await;
    (bench, socket)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_does_not_open_a_log_anew_is_asked_again() {
    let (bench, _socket) = rotating().await;
    bench.runtime.set_failing(REOPEN, true);
    let lines: Vec<String> = (0..100).map(|number| format!("line {number}")).collect();
    let print = |lines: &[String]| {
        bench.runtime.log("c", &lines.iter().map(String::as_str).collect::<Vec<_>>());
    };
    print(&lines[..80]);
    let calls = |count| move |bench: &Bench| (bench.runtime.calls(REOPEN) >= count).then_some(());
    bench.wait("another question", calls(2)).await;
    let all = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    assert_eq!(bench.get(PATH).await, (200, all(&lines[..80])), "nothing is missing meanwhile");
    bench.runtime.set_failing(REOPEN, false);
    print(&lines[80..]);
    assert_eq!(bench.get(PATH).await, (200, all(&lines)));
    let asked = bench.runtime.calls(REOPEN);
    bench.wait("the answer", calls(asked + 1)).await;
    assert_eq!(bench.get(PATH).await, (200, all(&lines)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_of_a_log_is_made_again() {
    let (bench, _socket) = rotating().await;
    bench.runtime.log("c", &["one"]);
    assert_eq!(bench.get(PATH).await, (200, "one\n".to_owned()));
    let path = bench.runtime.newest("c").unwrap().log_path;
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    bench.wait("the log again", |_| fs::metadata(&path).ok().map(drop)).await;
    bench.runtime.log("c", &["two"]);
    assert_eq!(bench.get(PATH).await, (200, "two\n".to_owned()));
    bench.runtime.end("c", 0);
    bench.api.delete_pod("web", 0);
    bench.wait("the pod to be gone", |bench| bench.api.pod("web").is_none().then_some(())).await;
}
