//! `podlog apiserver` before kubelets that refuse, fail, and are somebody else, over cables that break: what clients see.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use podlog_serving::ServerTls;
use podlog_serving::pki::{CertificateAuthority, CertificateRequest, KeyPairFiles};
use serde_json::{Value, json};

use crate::harness::{kubectl, text, wait_for};
use crate::scripted_kubelet::{BULK, LINES, ScriptedKubelet};
use crate::standalone::{Process, Site};
use crate::wire::Wire;

/// Where kubelets are: not where the API server is.
const NODE_IP: [u8; 4] = [127, 0, 0, 2];

/// Refusals of a kubelet by container, as in the sections 3.3 to 3.5 of what Kubernetes' own does.
const REFUSALS: [(&str, u16, &str); 9] = [
    ("c400", 400, r#"container "c400" in pod "web" is waiting to start: ContainerCreating"#),
    ("c401", 401, "Unauthorized"),
    ("c403", 403, "Forbidden (user=apiserver, verb=get, resource=nodes, subresource(s)=[proxy])\n"),
    ("c404", 404, r#"pod "web" does not exist"#),
    ("c405", 405, "Debug endpoints are disabled.\n"),
    ("c422", 422, r#"{"message": "Invalid request."}"#),
    ("c500", 500, "Authorization error (user=apiserver, verb=get, resource=nodes, subresource=proxy)"),
    ("c503", 503, "overloaded"),
    ("c418", 418, "tea"),
];

pub(crate) fn node(name: &str, address: Option<SocketAddr>) -> Value {
    let addresses: Vec<Value> =
        address.iter().map(|address| json!({"type": "InternalIP", "address": address.ip()})).collect();
    let port = address.map_or(0, |address| address.port());
    json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": name}, "status": {
        "addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}})
}

pub(crate) fn pod(name: &str, node: &str, containers: &[&str]) -> Value {
    let containers: Vec<Value> = containers.iter().map(|name| json!({"name": name, "image": "i"})).collect();
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node, "containers": containers}})
}

/// A certificate for a kubelet that can be reached under `names`.
pub(crate) fn serving(
    authority: &CertificateAuthority,
    site: &Site,
    name: &str,
    names: &[&str],
    lifetime: Duration,
) -> ServerTls {
    let files = KeyPairFiles::in_folder(site.folder.path(), name);
    let request =
        CertificateRequest { lifetime, ..CertificateRequest::serving("node", names.iter().copied()) };
    let (certificate, key) = authority.issue(&request).unwrap();
    std::fs::write(&files.certificate, certificate).unwrap();
    std::fs::write(&files.key, key).unwrap();
    ServerTls::load(files).unwrap()
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A good kubelet's certificate.
pub(crate) fn good(site: &Site) -> ServerTls {
    serving(&site.authority, site, "node", &["127.0.0.2", "127.0.0.3"], DAY)
}

/// Waits until pods can be created.
pub(crate) fn wait_for_account(site: &Site, server: &str) {
    wait_for("the default service account", || {
        site.run(server, &["get", "serviceaccounts", "-o", "name"]).contains("default").then_some(())
    });
}

/// A listener that answers every connection with the same bytes.
fn peculiar(answer: Option<&'static [u8]>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.2", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut connection in listener.incoming().flatten() {
            let _ = connection.read(&mut [0; 16 << 10]);
            let _ = connection.write_all(answer.unwrap_or_default());
            // Who says nothing does not hang up either.
            open.extend(answer.is_none().then_some(connection));
        }
    });
    address
}

/// What a client ended with: whether it succeeded, and what it said.
fn end(child: Child) -> (bool, String, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

fn start(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn clients_are_told_which_hop_failed_and_how() {
    let Some(kubectl) = kubectl() else { return };
    let site = Site::prepare(kubectl);
    let store = site.file("store.redb");
    let (_server, url) = site.server(&["--store", &store], &[]);
    let foreign = CertificateAuthority::load_or_create(site.folder.path(), "foreign", "foreign").unwrap();
    let ours = &site.authority;
    let kubelet = |tls| ScriptedKubelet::start(NODE_IP, tls, &REFUSALS);
    let kubelets = [
        ("good", kubelet(good(&site))),
        ("expired", kubelet(serving(ours, &site, "expired", &["127.0.0.2"], Duration::ZERO))),
        ("stranger", kubelet(serving(&foreign, &site, "stranger", &["127.0.0.2"], DAY))),
        ("misnamed", kubelet(serving(ours, &site, "misnamed", &["10.9.8.7"], DAY))),
    ];
    // Taken, and nobody listens there.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let closed = taken.local_addr().unwrap();
    let mut nodes: Vec<(&str, Option<SocketAddr>)> = vec![
        ("down", Some(closed)),
        ("uncertified", Some(peculiar(Some(&[21, 3, 3, 0, 2, 2, 80])))),
        ("plain", Some(peculiar(Some(b"HTTP/1.0 400 Bad Request\r\n\r\n")))),
        ("closing", Some(peculiar(Some(b"")))),
        ("mute", Some(peculiar(None))),
        ("unaddressed", None),
    ];
    nodes.extend(kubelets.iter().map(|(name, kubelet)| (*name, Some(kubelet.address))));
    wait_for_account(&site, &url);
    let mut objects: Vec<Value> = nodes.iter().map(|(name, address)| node(name, *address)).collect();
    let names: Vec<&str> = REFUSALS.iter().map(|(name, ..)| *name).chain(["late"]).collect();
    objects.push(pod("web", "good", &names));
    objects.push(pod("lost", "gone", &["c"]));
    objects.extend(nodes.iter().map(|(name, _)| pod(&format!("on-{name}"), name, &["c"])));
    site.create(&url, &objects);

    let get = |name: &str| {
        let address = nodes.iter().find(|(known, _)| *known == name).unwrap().1.unwrap();
        format!("Error from server: Get \"https://{address}/containerLogs/default/on-{name}/c\": ")
    };
    let status = |reason: &str, text: &str| format!("Error from server ({reason}): {text}");
    let rows: Vec<(&str, String)> = vec![
        ("web -c c400", status("BadRequest", REFUSALS[0].2)),
        (
            "web -c c401",
            "error: You must be logged in to the server (the server has asked for the client to provide credentials ( pods/log web))".into(),
        ),
        ("web -c c403", status("Forbidden", &format!("{} ( pods/log web)", REFUSALS[2].2))),
        ("web -c c404", status("NotFound", "the server could not find the requested resource ( pods/log web)")),
        (
            "web -c c405",
            status("MethodNotAllowed", "the server does not allow this method on the requested resource ( pods/log web)"),
        ),
        ("web -c c422", "The pods/log \"web\" is invalid".into()),
        ("web -c c500", status("InternalError", &format!("Internal error occurred: {}", REFUSALS[6].2))),
        ("web -c c503", status("ServiceUnavailable", "the server is currently unable to handle the request ( pods/log web)")),
        (
            "web -c c418",
            "Error from server: the server responded with the status code 418 but did not return more information ( pods/log web)".into(),
        ),
        ("lost -c c", status("NotFound", "nodes \"gone\" not found")),
        ("on-unaddressed", "Error from server: no preferred addresses found; known addresses: []".into()),
        ("on-down", format!("{}dial tcp {closed}: connect: connection refused", get("down"))),
        (
            "on-expired",
            format!("{}tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time ", get("expired")),
        ),
        (
            "on-stranger",
            format!("{}tls: failed to verify certificate: x509: certificate signed by unknown authority", get("stranger")),
        ),
        (
            "on-misnamed",
            format!("{}tls: failed to verify certificate: x509: certificate is valid for 10.9.8.7, not 127.0.0.2", get("misnamed")),
        ),
        ("on-uncertified", format!("{}remote error: tls: internal error", get("uncertified"))),
        (
            "on-uncertified --insecure-skip-tls-verify-backend",
            format!("{}remote error: tls: internal error", get("uncertified")),
        ),
        ("on-plain", format!("{}http: server gave HTTP response to HTTPS client", get("plain"))),
        ("on-closing", format!("{}EOF", get("closing"))),
        ("on-mute", format!("{}net/http: TLS handshake timeout", get("mute"))),
    ];
    // All at once: one of them takes its ten seconds.
    let begun = Instant::now();
    let running: Vec<_> = rows
        .iter()
        .flat_map(|(arguments, expected)| {
            let words: Vec<&str> = arguments.split(' ').collect();
            let kubectl = site.kubectl(&url, &[&["logs"], &words[..]].concat());
            [kubectl, site.podlog_logs(&url, &words)].map(|command| (arguments, expected, start(command)))
        })
        .collect();
    for (arguments, expected, child) in running {
        let (success, stdout, stderr) = end(child);
        assert!(!success && stdout.is_empty(), "{arguments}: {stdout}");
        assert!(stderr.starts_with(expected.as_str()), "{arguments}: {stderr}instead of\n{expected}");
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());

    let shown = "a line\nunable to retrieve container logs for containerd://0123";
    for arguments in [
        "web -c late",
        "on-expired --insecure-skip-tls-verify-backend",
        "on-stranger --insecure-skip-tls-verify-backend",
        "on-misnamed --insecure-skip-tls-verify-backend",
    ] {
        let words: Vec<&str> = arguments.split(' ').collect();
        assert_eq!(site.run(&url, &[&["logs"], &words[..]].concat()), shown, "{arguments}");
    }
}

/// A server, a kubelet, and a cable between them.
struct Line {
    site: Site,
    url: String,
    wire: Wire,
    _server: Process,
    kubelet: ScriptedKubelet,
}

fn line() -> Option<Line> {
    let site = Site::prepare(kubectl()?);
    let store = site.file("store.redb");
    // Upstream's names for how soon a silent kubelet is asked whether it is there.
    let environment = [("HTTP2_READ_IDLE_TIMEOUT_SECONDS", "1"), ("HTTP2_PING_TIMEOUT_SECONDS", "1")];
    let (server, url) = site.server(&["--store", &store], &environment);
    let kubelet = ScriptedKubelet::start(NODE_IP, good(&site), &[]);
    let wire = Wire::lay("127.0.0.3", vec![kubelet.address]);
    wait_for_account(&site, &url);
    site.create(&url, &[node("n", Some(wire.address)), pod("web", "n", &["counter", "bulk"])]);
    Some(Line { site, url, wire, _server: server, kubelet })
}

/// Reads lines until one has come that ends like this.
fn read_until(reader: &mut impl BufRead, ending: &str) -> String {
    let mut read = String::new();
    while !read.ends_with(ending) {
        assert!(reader.read_line(&mut read).unwrap() > 0, "ended before {ending:?}: {read}");
    }
    read
}

fn all_lines() -> String {
    (0..LINES).map(|number| format!("line {number}\n")).collect()
}

/// Breaks the cable under a follow of kubectl's and one of podlog's, and mends it.
fn follow_over_a_cable_that(breaks: impl Fn(&Wire)) {
    let Some(line) = line() else { return };
    let words = ["web", "-c", "counter", "-f"];
    let kubectl = line.site.kubectl(&line.url, &[&["logs"], &words[..]].concat());
    let podlog = line.site.podlog_logs(&line.url, &words);
    let [mut broken, mut resumed] = [kubectl, podlog].map(|command| {
        let mut child = Process(start(command));
        let mut stdout = BufReader::new(child.0.stdout.take().unwrap());
        let read = read_until(&mut stdout, "line 20\n");
        (child, stdout, read)
    });
    let begun = Instant::now();
    breaks(&line.wire);
    let (kubectl, stdout, read) = &mut broken;
    stdout.read_to_string(read).unwrap();
    assert!(!kubectl.0.wait().unwrap().success(), "kubectl took a broken log for a whole one");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(all_lines().starts_with(read.as_str()), "{read}");
    line.wire.be_good();
    line.kubelet.release();
    let (podlog, stdout, read) = &mut resumed;
    stdout.read_to_string(read).unwrap();
    assert!(podlog.0.wait().unwrap().success());
    assert!(*read == all_lines(), "{read}");
}

#[test]
fn a_follow_that_is_cut_fails_for_kubectl_and_goes_on_for_podlog() {
    follow_over_a_cable_that(Wire::cut);
}

#[test]
fn a_follow_that_falls_silent_fails_for_kubectl_and_goes_on_for_podlog() {
    follow_over_a_cable_that(Wire::go_dead);
}

#[test]
fn a_slow_cable_loses_nothing() {
    let Some(line) = line() else { return };
    line.wire.be_thin(48 << 10);
    let log = line.site.run(&line.url, &["logs", "web", "-c", "bulk"]);
    assert_eq!(log.len(), BULK);
    assert!(log.lines().all(|line| line.len() == 4095));
}

#[test]
fn a_node_that_never_answers_does_not_hold_a_client_beyond_its_limit() {
    let Some(line) = line() else { return };
    line.wire.go_dead();
    let begun = Instant::now();
    for command in [
        line.site.kubectl(&line.url, &["logs", "web", "-c", "counter", "--request-timeout=2s"]),
        line.site.podlog_logs(&line.url, &["web", "-c", "counter", "--request-timeout=2s"]),
    ] {
        let (success, stdout, stderr) = end(start(command));
        assert!(!success && stdout.is_empty() && !stderr.is_empty(), "{stdout} {stderr}");
    }
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
}
