//! Pods that do not ask for the host's network.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;

use serde_json::json;

use crate::cluster::{Cluster, shell};

/// Where Debian has CNI plugins.
const PLUGINS: &str = "/usr/lib/cni";

/// Gives the pods of a containerd a network, where there are plugins for one. Tests at the same time have others.
pub(crate) fn configure(machine: &Path) {
    let number = std::process::id();
    let subnet = format!("10.213.{}.{}/28", number >> 4 & 0xff, (number & 0xf) << 4);
    let list = json!({
        "cniVersion": "0.4.0", "name": "pods",
        "plugins": [{
            "type": "ptp",
            "ipam": {"type": "host-local", "subnet": subnet, "dataDir": machine.join("addresses")},
        }],
    });
    std::fs::write(machine.join("cni/10-pods.conflist"), list.to_string()).unwrap();
}

pub(crate) async fn a_network_of_its_own(cluster: &Cluster) {
    if !Path::new(PLUGINS).join("ptp").exists() {
        eprintln!(
            "SKIPPED: no CNI plugins in {PLUGINS}: nothing is shown about pods in networks of their own \
             (apt-get install containernetworking-plugins)"
        );
        return;
    }
    let script = "mkdir -p /www; echo hello > /www/index.html; readlink /proc/self/ns/net; ip -4 -o addr show eth0; \
                  exec httpd -f -p 8080 -h /www";
    let mut container = shell("c", script);
    container["readinessProbe"] =
        json!({"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 1});
    cluster.run("own-net", json!({"hostNetwork": false, "containers": [container]})).await;
    let pod = cluster.wait_ready("own-net").await;
    let address: IpAddr = pod["status"]["podIP"].as_str().unwrap().parse().unwrap();
    assert_ne!(pod["status"]["podIP"], pod["status"]["hostIP"]);
    assert_eq!(pod["status"]["podIPs"], json!([{"ip": address}]));
    let log = cluster.wait_log("own-net", "", &address.to_string()).await;
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert!(log.starts_with("net:") && !log.contains(&own.display().to_string()), "{log}");
    let said = tokio::task::spawn_blocking(move || fetch(SocketAddr::new(address, 8080))).await.unwrap();
    assert!(said.ends_with("hello\n"), "{said}");
    cluster.remove("own-net").await;
}

fn fetch(address: SocketAddr) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").unwrap();
    let mut said = String::new();
    connection.read_to_string(&mut said).unwrap();
    said
}
