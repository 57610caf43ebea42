//! Commands in containers, their terminals, and ports of pods, as stock kubectl asks for them: older ones by SPDY, newer ones
//! by WebSocket where the runtime can do that.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;

use crate::cluster::{Cluster, shell, with};
use crate::harness::{kubectl, text, wait_for};
use crate::probes::free_port;

/// Where a Google Cloud SDK brings several versions.
const MORE_KUBECTLS: &str = "/usr/lib/google-cloud-sdk/bin";

/// Every kubectl of this machine.
pub(crate) fn kubectls() -> Vec<PathBuf> {
    let more = std::fs::read_dir(MORE_KUBECTLS).into_iter().flatten().flatten();
    let more = more.filter(|entry| entry.file_name().to_string_lossy().starts_with("kubectl.1."));
    let mut found: Vec<PathBuf> = more.map(|entry| entry.path()).collect();
    found.sort();
    kubectl().into_iter().chain(found).collect()
}

/// Runs in the background what blocks, so that other scenarios go on.
pub(crate) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// The output of a kubectl that is told this on its standard input.
pub(crate) fn told(mut kubectl: Command, input: Vec<u8>) -> Output {
    let mut child =
        kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let teller = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    // Who does not read to the end has closed.
    let _ = teller.join().unwrap();
    output
}

/// What a shell says when it is ready.
const PROMPTS: &[&str] = &["# ", "$ "];

/// The exit code and the output of a kubectl in a terminal of 31 lines of 97 characters, to which this is typed once it has said one
/// of the `prompts`.
pub(crate) fn in_terminal(mut kubectl: Command, prompts: &[&str], typed: &str) -> (Option<i32>, String) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = openpt(flags).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let size = Winsize { ws_row: 31, ws_col: 97, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&terminal, size).unwrap();
    let end = || Stdio::from(ioctl_tiocgptpeer(&terminal, flags).unwrap());
    let mut child = kubectl.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    drop(kubectl);
    let mut terminal = std::fs::File::from(terminal);
    let (mut said, mut chunk, mut left) = (Vec::new(), [0; 4096], Some(typed));
    // Its end is an error.
    while let Ok(length @ 1..) = terminal.read(&mut chunk) {
        said.extend_from_slice(&chunk[..length]);
        if prompts.iter().any(|prompt| text(&said).contains(prompt)) {
            terminal.write_all(left.take().unwrap_or_default().as_bytes()).unwrap();
        }
    }
    (child.wait().unwrap().code(), text(&said))
}

/// kubectl complains of the empty message by which a server agrees to a WebSocket, as Kubernetes' own does, when that comes before
/// kubectl has made its streams.
fn without_greeting(stderr: &str) -> String {
    let is_greeting = |line: &&str| line.contains("] Unknown stream id 1, discarding message");
    stderr.split_inclusive('\n').filter(|line| !is_greeting(line)).collect()
}

pub(crate) async fn commands_in_containers(cluster: &Cluster) {
    let spec = json!({"containers": [shell("c", "exec sleep 100000"), shell("d", "exec sleep 100000")]});
    cluster.run("commanded", spec).await;
    cluster.wait_ready("commanded").await;
    for kubectl in kubectls() {
        let command = |arguments: &[&str]| cluster.kubectl(&kubectl, arguments);
        for (arguments, input, code, out, err) in [
            (&["-c", "c"][..], "", 0, "out\n", "err\n"),
            (&["-c", "d", "-i"], "said", 0, "out\nsaid", "err\n"),
        ] {
            let script = ["commanded", "--", "sh", "-c", "echo out; echo err >&2; cat"];
            let command = command(&[&["exec"], arguments, &script].concat());
            let output = apart(move || told(command, input.into())).await;
            let found = (output.status.code(), text(&output.stdout), without_greeting(&text(&output.stderr)));
            assert_eq!(found, (Some(code), out.into(), err.into()), "{} {arguments:?}", kubectl.display());
        }
        let fails = command(&["exec", "commanded", "-c", "c", "--", "sh", "-c", "exit 7"]);
        let output = apart(move || told(fails, Vec::new())).await;
        let expected = (Some(7), "command terminated with exit code 7\n".to_owned());
        assert_eq!((output.status.code(), text(&output.stderr)), expected, "{}", kubectl.display());
        // Both ways at once, more than any pipe holds.
        let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(|n| n.to_le_bytes()).take(3 << 20).collect();
        let (echo, input) = (command(&["exec", "commanded", "-c", "c", "-i", "--", "cat"]), bytes.clone());
        let output = apart(move || told(echo, input)).await;
        assert!(
            output.status.success() && output.stdout == bytes,
            "{}: {}",
            kubectl.display(),
            text(&output.stderr)
        );
        let shell = command(&["exec", "commanded", "-c", "c", "-it", "--", "sh"]);
        // The size of a terminal may come after its first prompt.
        let script = "n=0; until [ $n = 100 ] || [ \"$(busybox stty size 2>&1)\" = '31 97' ]; do n=$((n + 1)); sleep 0.1; done; \
            test -t 0 && echo $((6 * 7)); busybox stty size; echo err >&2; exit 5\n";
        let (code, said) = apart(move || in_terminal(shell, PROMPTS, script)).await;
        let said: Vec<&str> = said.lines().map(str::trim_end).collect();
        let answers: Vec<&&str> = said.iter().filter(|line| ["42", "31 97", "err"].contains(line)).collect();
        assert_eq!(
            (code, answers),
            (Some(5), vec![&"42", &"31 97", &"err"]),
            "{}: {said:?}",
            kubectl.display()
        );
        for (arguments, part) in [
            (&["exec", "commanded", "-c", "z", "--", "id"][..], "container z is not valid for pod commanded"),
            (&["exec", "commanded", "-c", "c", "--", "podlog-no-such"], "podlog-no-such"),
        ] {
            let command = command(arguments);
            let output = apart(move || told(command, Vec::new())).await;
            let complaint = text(&output.stderr);
            assert!(
                !output.status.success() && complaint.contains(part),
                "{}: {complaint}",
                kubectl.display()
            );
        }
    }
    cluster.remove("commanded").await;
}

pub(crate) async fn files_are_copied(cluster: &Cluster) {
    let Some(kubectl) = kubectl() else { return };
    let work = with(
        shell("c", "exec sleep 100000"),
        "volumeMounts",
        json!([{"name": "work", "mountPath": "/work"}]),
    );
    cluster.run("copied", json!({"containers": [work], "volumes": [{"name": "work", "emptyDir": {}}]})).await;
    cluster.wait_ready("copied").await;
    let (here, back) = (cluster.path("copied-there"), cluster.path("copied-back"));
    let bytes: Vec<u8> = (0..1_000_000_u32).flat_map(|n| n.to_be_bytes()).collect();
    std::fs::write(&here, &bytes).unwrap();
    for (from, to) in [
        (here.display().to_string(), "copied:/work/file".to_owned()),
        ("copied:/work/file".to_owned(), back.display().to_string()),
    ] {
        let command = cluster.kubectl(&kubectl, &["cp", &from, &to]);
        let output = apart(move || told(command, Vec::new())).await;
        assert!(output.status.success(), "{from} {to}: {}", text(&output.stderr));
    }
    assert!(std::fs::read(&back).unwrap() == bytes, "other bytes came back");
    cluster.remove("copied").await;
}

/// A kubectl that goes on until it is dropped.
pub(crate) struct Running(pub(crate) std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) async fn ports_are_forwarded(cluster: &Cluster) {
    let port = free_port();
    let script = format!("echo forwarded > /www/page; exec busybox httpd -f -p 127.0.0.1:{port} -h /www");
    let main = with(shell("c", &script), "volumeMounts", json!([{"name": "www", "mountPath": "/www"}]));
    cluster.run("far", json!({"containers": [main], "volumes": [{"name": "www", "emptyDir": {}}]})).await;
    cluster.wait_ready("far").await;
    for kubectl in kubectls() {
        let mut command = cluster.kubectl(&kubectl, &["port-forward", "pod/far", &format!(":{port}")]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut running = Running(child);
        let stdout = running.0.stdout.take().unwrap();
        let (near, stdout) = apart(move || forwarded_port(stdout)).await;
        for _ in 0..2 {
            let page = apart(move || wait_for("the page", || page(near))).await;
            assert!(page.ends_with("forwarded\n"), "{}: {page}", kubectl.display());
        }
        drop((running, stdout));
    }
    cluster.remove("far").await;
}

/// The port in `Forwarding from 127.0.0.1:45667 -> 80`.
fn forwarded_port(stdout: impl Read) -> (u16, impl Read) {
    let mut lines = std::io::BufReader::new(stdout);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
    let port = line.split(" -> ").next().and_then(|from| from.rsplit(':').next()?.parse().ok());
    (port.unwrap_or_else(|| panic!("no port in {line:?}")), lines)
}

fn page(port: u16) -> Option<String> {
    let mut connection = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    connection.write_all(b"GET /page HTTP/1.0\r\n\r\n").ok()?;
    let mut page = String::new();
    connection.read_to_string(&mut page).ok()?;
    Some(page).filter(|page| !page.is_empty())
}
