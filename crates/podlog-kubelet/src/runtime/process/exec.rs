//! Commands in running containers.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use podlog_container::ContainerDir;
use podlog_container::control::{Exec, Reply, Request, Stdio};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::timeout;

use super::control::Connection;
use super::error::failed;
use crate::runtime::{ExecResult, RuntimeError};

/// Output kept of each stream, in bytes; the rest is read and forgotten. As in containerd's CRI service.
const MAX_OUTPUT: usize = 16 << 20;
/// How long to wait for the end of the output after the command has ended: what it left running may hold it open.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// Runs a command; a zero `limit` is none.
///
/// # Errors
/// When it cannot be started, the container ends, or it takes too long. In the last case it is killed.
pub(super) async fn exec(
    dir: &ContainerDir,
    command: &[String],
    limit: Duration,
) -> Result<ExecResult, RuntimeError> {
    let begun = Execution::begin(dir, command).map_err(failed("cannot exec in container"))?;
    if limit.is_zero() {
        return begun.finish().await;
    }
    // Dropping the execution closes its connection, which kills the command.
    timeout(limit, begun.finish())
        .await
        .unwrap_or_else(|_| Err(RuntimeError::ExecTimeout { command: command.to_vec(), timeout: limit }))
}

struct Execution {
    connection: Connection,
    stdout: Output,
    stderr: Output,
}

impl Execution {
    fn begin(dir: &ContainerDir, command: &[String]) -> io::Result<Self> {
        let (stdout, their_stdout) = Output::new()?;
        let (stderr, their_stderr) = Output::new()?;
        let request = Request::Exec(Exec { argv: command.to_vec(), stdio: Stdio::Output });
        let connection = Connection::open(dir, &request, &[their_stdout, their_stderr])?;
        Ok(Self { connection, stdout, stderr })
    }

    async fn finish(mut self) -> Result<ExecResult, RuntimeError> {
        let exit_code = {
            let exited = exit_code(&mut self.connection);
            let outputs = async { tokio::join!(self.stdout.read(), self.stderr.read()) };
            tokio::pin!(exited, outputs);
            tokio::select! {
                exited = &mut exited => {
                    let exit_code = exited?;
                    let _ = timeout(LAST_OUTPUT, outputs).await;
                    exit_code
                }
                _ = &mut outputs => exited.await?,
            }
        };
        Ok(ExecResult { exit_code, stdout: self.stdout.kept, stderr: self.stderr.kept })
    }
}

async fn exit_code(connection: &mut Connection) -> Result<i32, RuntimeError> {
    loop {
        match connection.reply().await.map_err(failed("the container ended before the command"))? {
            Reply::Ok(_) => {}
            Reply::Error(why) => return Err(failed("cannot exec in container")(why)),
            Reply::Exited(code) => return Ok(code),
        }
    }
}

struct Output {
    pipe: Receiver,
    kept: Vec<u8>,
}

impl Output {
    fn new() -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = io::pipe()?;
        let reader = OwnedFd::from(reader);
        rustix::io::ioctl_fionbio(&reader, true)?;
        Ok((Self { pipe: Receiver::from_owned_fd(reader)?, kept: Vec::new() }, writer.into()))
    }

    async fn read(&mut self) -> io::Result<()> {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            let length = self.pipe.read(&mut chunk).await?;
            if length == 0 {
                return Ok(());
            }
            let room = MAX_OUTPUT - self.kept.len();
            self.kept.extend_from_slice(&chunk[..length.min(room)]);
        }
    }
}
