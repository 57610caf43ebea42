//! Which process the runtime is, and when it ends.

use std::os::fd::OwnedFd;
use std::time::Duration;

use podlog_container::ProcessIdentity;
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::sleep;

use super::Endpoint;

/// Pause before it is looked again whether somebody listens. A runtime starts within some hundred milliseconds.
const LOOK: Duration = Duration::from_millis(50);

/// Tells who listens at `endpoint`, as long as somebody wants to know. A process that cannot be seen (in another PID
/// namespace) is none.
pub(super) async fn follow(endpoint: Endpoint, sender: watch::Sender<Option<ProcessIdentity>>) {
    let look = async {
        loop {
            if let Some((identity, descriptor)) = find(&endpoint).await {
                tracing::debug!(pid = identity.pid, "the container runtime is there");
                sender.send_replace(Some(identity));
                ended(descriptor).await;
                tracing::warn!("the container runtime has ended");
                sender.send_replace(None);
            }
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = look => {}
        () = sender.closed() => {}
    }
}

async fn find(endpoint: &Endpoint) -> Option<(ProcessIdentity, OwnedFd)> {
    let connection = UnixStream::connect(endpoint.path()).await.ok()?;
    // Of the process that listens, which is the one that answered as long as the connection stands.
    let pid = socket_peercred(&connection).ok()?.pid;
    let descriptor = pidfd_open(Pid::from_raw(pid.as_raw_pid())?, PidfdFlags::NONBLOCK).ok()?;
    Some((ProcessIdentity::of(pid.as_raw_pid())?, descriptor))
}

/// Returns when the process has ended, with all of its threads.
#[expect(
    unsafe_code,
    reason = "tokio has no safe way to wait for a descriptor of a kind that it does not know"
)]
async fn ended(process: OwnedFd) {
    // SAFETY: an `OwnedFd` is the same open descriptor as long as it lives.
    match unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) } {
        Ok(process) => drop(process.readable().await),
        Err(error) => {
            tracing::warn!(%error, "cannot watch the container runtime");
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// Somebody who listens: a shell cannot, python can.
    fn listen(path: &std::path::Path) -> Child {
        let script = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen()\nsys.stdin.read()";
        let mut command = Command::new("python3");
        command.args(["-c", script]).arg(path).stdin(Stdio::piped()).spawn().expect("python3")
    }

    #[tokio::test]
    async fn the_end_of_a_runtime_is_noticed_and_so_is_its_successor() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let endpoint: Endpoint = path.display().to_string().parse().expect("an absolute path");
        let (sender, mut receiver) = watch::channel(None);
        let following = tokio::spawn(follow(endpoint, sender));
        for _ in 0..2 {
            let mut process = listen(&path);
            let pid = process.id().cast_signed();
            receiver.wait_for(|now| now.as_ref().is_some_and(|now| now.pid == pid)).await.expect("found");
            process.kill().expect("killed");
            receiver.wait_for(Option::is_none).await.expect("gone");
            process.wait().expect("ended");
            std::fs::remove_file(&path).expect("a socket");
        }
        drop(receiver);
        following.await.expect("nobody wants to know");
    }
}
