//! Commands in running containers, with their streams.

use podlog_container::ContainerDir;
use podlog_container::control::{Exec, Reply, Request, Stdio};
use tokio_util::sync::CancellationToken;

use super::ends::{self, Inward, Outward, first_size};
use super::remote::{Input, Outcome, Remote};
use crate::runtime::Streams;
use crate::runtime::process::control::Connection;

/// Runs a command, and tells the client how it ended. When the client goes, so do the command's streams: it reads an end, writes
/// into nothing, or its terminal hangs up. What it makes of that is its own business, as with other runtimes.
pub(super) async fn serve(dir: &ContainerDir, command: &[String], wanted: Streams, mut remote: Remote) {
    let begun = match Execution::begin(dir, command, wanted, &mut remote.input).await {
        Ok(begun) => begun,
        Err(why) => {
            let why = format!("error executing command in container: {why}");
            return remote.end(&Outcome::Failed(why)).await;
        }
    };
    let Execution { mut control, inward, outward } = begun;
    let ended = CancellationToken::new();
    let exited = {
        let Remote { input, stdout, stderr, connection, .. } = &mut remote;
        let exit = async {
            let code = exit_code(&mut control).await;
            ended.cancel();
            code
        };
        let outputs = outward.drain([stdout.as_ref(), stderr.as_ref()], &ended);
        let over = async { tokio::join!(exit, outputs).0 };
        tokio::select! {
            code = over => Some(code),
            never = inward.feed(input) => match never {},
            () = connection.gone() => None,
        }
    };
    drop(outward);
    match exited {
        Some(Ok(code)) => remote.end(&Outcome::Exited { command: command.to_vec(), code }).await,
        Some(Err(why)) => {
            let why = format!("error executing command in container: {why}");
            remote.end(&Outcome::Failed(why)).await;
        }
        None => {
            drop(remote);
            // Who closes this connection has the command killed.
            let _ = exit_code(&mut control).await;
        }
    }
}

struct Execution {
    control: Connection,
    inward: Inward,
    outward: Outward,
}

impl Execution {
    async fn begin(
        dir: &ContainerDir,
        command: &[String],
        wanted: Streams,
        input: &mut Input,
    ) -> Result<Self, String> {
        let (inward, outward, theirs) = ends::make(wanted).map_err(|error| error.to_string())?;
        if let Inward::Terminal(terminal) = &inward {
            first_size(terminal, input.sizes.as_mut()).await;
        }
        let stdio = match wanted {
            Streams { tty: true, .. } => Stdio::Terminal,
            Streams { stdin: true, .. } => Stdio::All,
            _ => Stdio::Output,
        };
        let request = Request::Exec(Exec { argv: command.to_vec(), stdio });
        let mut control = Connection::open(dir, &request, &theirs).map_err(|error| error.to_string())?;
        drop(theirs);
        match control.reply().await.map_err(|error| error.to_string())? {
            Reply::Ok(_) => Ok(Execution { control, inward, outward }),
            Reply::Error(why) => Err(why),
            Reply::Exited(_) => Err("capture answered another question".to_owned()),
        }
    }
}

async fn exit_code(control: &mut Connection) -> Result<i32, String> {
    match control.reply().await {
        Ok(Reply::Exited(code)) => Ok(code),
        Ok(_) => Err("capture answered another question".to_owned()),
        Err(error) => Err(format!("the container ended before the command: {error}")),
    }
}
