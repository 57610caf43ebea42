//! Following one container through all its instances.

use std::sync::Arc;
use std::time::Duration;

use podlog_api::{LogExtensions, PodLogOptions};
use tokio::sync::watch;

use super::Progress;
use crate::logs::{self, ByFrame, ByTime, LogBody, Opened};
use crate::output::{Gone, LineWriter};
use crate::{ClientError, Connection};

/// Pause before a log that broke off is asked for again.
const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Follower {
    pub(super) connection: Connection,
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) container: String,
    pub(super) lines: LineWriter,
    pub(super) way: Way,
    pub(super) note: Arc<dyn Fn(&str) + Send + Sync>,
}

/// How it is known where the log has to go on.
#[derive(Debug)]
pub(super) enum Way {
    /// All instances are one log, in frames.
    Frames(ByFrame),
    /// For servers that know no frames: each instance has a log, and lines carry their times.
    Times(ByTime),
}

/// How a log ended.
enum End {
    Clean,
    Failed(ClientError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instance {
    Current,
    Previous,
}

impl Follower {
    pub(super) async fn run(mut self, mut progress: watch::Receiver<Progress>) -> Result<(), Gone> {
        let mut said = String::new();
        let mut restarts = progress.borrow_and_update().restarts;
        loop {
            let end = self.copy(restarts).await?;
            let gone = match end {
                End::Clean => next_instance(&mut progress, restarts).await,
                End::Failed(error) => {
                    let text = error.message();
                    if text != said && progress.has_changed().is_ok() {
                        (self.note)(&format!("{}/{}: {text}", self.pod, self.container));
                    }
                    said = text;
                    tokio::time::sleep(RETRY).await;
                    progress.has_changed().is_err()
                }
            };
            if gone {
                // A line that was cut off does not go on.
                return self.lines.finish().await;
            }
            let now = progress.borrow_and_update().restarts;
            if now != restarts {
                restarts = now;
                self.copy_ended_instance().await?;
            }
        }
    }

    /// Copies what there is now and what comes, of instances that have ended, too, where they are one log.
    async fn copy(&mut self, restarts: i32) -> Result<End, Gone> {
        if let Way::Frames(_) = self.way {
            if let Some(end) = self.copy_frames().await? {
                return Ok(end);
            }
            self.way = Way::Times(ByTime::default());
            if restarts > 0 {
                self.copy_ended_instance().await?;
            }
        }
        self.copy_instance(Instance::Current).await
    }

    /// `None` when the server knows no frames.
    async fn copy_frames(&mut self) -> Result<Option<End>, Gone> {
        let mut body = match self.open_frames().await {
            Ok(Some(opened)) => opened.body,
            Ok(None) => return Ok(None),
            Err(error) => return Ok(Some(End::Failed(error))),
        };
        let Way::Frames(way) = &mut self.way else { return Ok(None) };
        let end = loop {
            let text = match body.next().await {
                Some(chunk) => chunk.and_then(|chunk| way.filter(&chunk)),
                None => break way.end(),
            };
            match text {
                Ok(text) => {
                    self.lines.write(&text).await?;
                    self.lines.show_unfinished().await?;
                }
                Err(error) => break Err(error),
            }
        };
        way.interrupted();
        Ok(Some(end.map_or_else(End::Failed, |()| End::Clean)))
    }

    async fn open_frames(&self) -> Result<Option<Opened>, ClientError> {
        let Way::Frames(way) = &self.way else { return Ok(None) };
        let extensions = LogExtensions { all_instances: true, ..LogExtensions::default() };
        let container = self.container.clone();
        let wanted = PodLogOptions { container, follow: true, extensions, ..PodLogOptions::default() };
        let asked = way.ask(&wanted);
        // A server that has sent frames is not asked for anything else.
        let needed = if way.has_begun() { asked.extensions.clone() } else { LogExtensions::default() };
        let opened = logs::request(&self.connection, &self.namespace, &self.pod, &asked, &needed).await?;
        Ok(opened.has_frames().then_some(opened))
    }

    /// Lines of an instance that came and went between two looks, where it has a log of its own.
    async fn copy_ended_instance(&mut self) -> Result<(), Gone> {
        if let Way::Times(_) = self.way {
            self.copy_instance(Instance::Previous).await?;
        }
        Ok(())
    }

    async fn copy_instance(&mut self, instance: Instance) -> Result<End, Gone> {
        let mut body = match self.open_instance(instance).await {
            Ok(body) => body,
            Err(error) => return Ok(End::Failed(error)),
        };
        while let (Some(chunk), Way::Times(way)) = (body.next().await, &mut self.way) {
            match chunk {
                Ok(chunk) => {
                    let text = way.filter(&chunk);
                    self.lines.write(&text).await?;
                }
                Err(error) => {
                    // The rest of a line that has begun comes later.
                    way.interrupted();
                    return Ok(End::Failed(error));
                }
            }
        }
        self.lines.finish().await?;
        Ok(End::Clean)
    }

    async fn open_instance(&mut self, instance: Instance) -> Result<LogBody, ClientError> {
        let since_time = match &mut self.way {
            Way::Frames(_) => None,
            Way::Times(way) => {
                way.begin();
                way.since()
            }
        };
        let options = PodLogOptions {
            container: self.container.clone(),
            follow: instance == Instance::Current,
            previous: instance == Instance::Previous,
            timestamps: true,
            since_time,
            ..PodLogOptions::default()
        };
        let needed = LogExtensions::default();
        let opened = logs::request(&self.connection, &self.namespace, &self.pod, &options, &needed).await?;
        Ok(opened.body)
    }
}

/// Waits for the container's next instance; whether there will be none.
async fn next_instance(progress: &mut watch::Receiver<Progress>, restarts: i32) -> bool {
    loop {
        let known = *progress.borrow_and_update();
        if known.restarts != restarts {
            return false;
        }
        if !known.ended && known.has_log {
            // The log ended and the container has not, as far as we know: look again soon.
            let changed = tokio::time::timeout(RETRY, progress.changed()).await;
            return matches!(changed, Ok(Err(_)));
        }
        if progress.changed().await.is_err() {
            return true;
        }
    }
}
