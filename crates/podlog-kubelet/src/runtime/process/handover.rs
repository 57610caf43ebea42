//! After an upgrade: captures of the build before hand their containers over to this one.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use podlog_container::control::{Program, Reply, Request};
use podlog_container::{Build, ContainerDir};
use tokio::time::timeout;

use super::control::{self, Connection};
use super::error::{blocking, failed};
use super::record::ContainerRecord;

/// How long a hand-over may take: the new program is tried first, and each time the old one waits for 5 s.
const DEADLINE: Duration = Duration::from_secs(15);

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    SameBuild,
    HandedOver,
}

/// Has a running container's capture replaced by `command`, when it is of another build. What cannot be replaced goes on as it is.
pub(super) async fn hand_over(record: &Arc<ContainerRecord>, command: &[OsString]) {
    let container = &record.metadata.id;
    match try_to_hand_over(&record.dir, command).await {
        Ok(Outcome::SameBuild) => {}
        Ok(Outcome::HandedOver) => tracing::info!(container, "this build's capture has taken over"),
        Err(error) if record.has_ended().await => {
            tracing::debug!(container, %error, "the container has ended meanwhile");
        }
        Err(error) => {
            tracing::warn!(container, %error, "the capture of another build goes on until the container is restarted");
        }
    }
}

async fn try_to_hand_over(dir: &ContainerDir, command: &[OsString]) -> io::Result<Outcome> {
    let argv = command.iter().map(|word| word.clone().into_string());
    let argv = argv.collect::<Result<Vec<_>, _>>().map_err(|_| io::ErrorKind::InvalidInput)?;
    let path = argv.first().cloned().ok_or(io::ErrorKind::InvalidInput)?;
    let open = move || {
        let (path, cannot) = (Path::new(&path), format!("cannot open {path}"));
        let opened = || Ok::<_, io::Error>((Build::of(path)?, File::open(path)?));
        opened().map_err(failed(cannot))
    };
    let (own, program) = blocking(open).await.map_err(io::Error::other)?;
    if control::ask(dir, &Request::Build).await? == own.to_string() {
        return Ok(Outcome::SameBuild);
    }
    let request = Request::HandOver(Program { argv });
    let mut connection = Connection::open(dir, &request, &[program.into()])?;
    match timeout(DEADLINE, connection.reply()).await?? {
        Reply::Error(why) => Err(io::Error::other(why)),
        Reply::Ok(_) | Reply::Exited(_) => Ok(Outcome::HandedOver),
    }
}
