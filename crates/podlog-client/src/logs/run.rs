//! Running the command.

use std::io::Write;
use std::iter::repeat_n;
use std::sync::Mutex;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::deleted;
use super::options::LogsOptions;
use super::resume::{Patience, ResumingLog};
use super::target::{Log, Logs, resolve};
use crate::multiplexed::STREAMS;
use crate::output::{self, Gone, Output, SharedOutput, prefix, prefixed};
use crate::{ClientError, Connection};

/// Where the command writes to.
pub struct Streams {
    /// Logs, and nothing else.
    pub out: Box<dyn Write + Send>,
    /// Notes.
    pub err: Box<dyn Write + Send>,
}

impl Streams {
    /// The process's own.
    pub fn standard() -> Self {
        Streams { out: Box::new(std::io::stdout()), err: Box::new(std::io::stderr()) }
    }
}

/// Prints logs. The caller prints the error, whose `Display` is kubectl's text, and exits with its code.
///
/// # Errors
/// When arguments make no sense, a log cannot be had, or one breaks off; what came before it has been printed.
pub async fn run(
    connection: &Connection,
    options: &LogsOptions,
    streams: Streams,
) -> Result<(), ClientError> {
    if options.lists_deleted() {
        return deleted::print_list(connection, options, streams).await;
    }
    let plan = options.plan()?;
    let Logs { logs, notes } = resolve(connection, options, &plan).await?;
    let Streams { out, mut err } = streams;
    for note in notes {
        // Nobody to tell when stderr is closed.
        let _ = writeln!(err, "{note}");
    }
    let count = i64::try_from(logs.len()).unwrap_or(i64::MAX);
    if options.follow && count > 1 && count > options.max_log_requests {
        return Err(too_many(count, options.max_log_requests));
    }
    let command =
        Command { connection: connection.clone(), options: options.clone(), notes: Mutex::new(err) };
    if options.follow && logs.len() > 1 {
        command.side_by_side(logs, Output::new(out)).await
    } else {
        command.one_by_one(&logs, Output::new(out)).await
    }
}

fn too_many(count: i64, maximum: i64) -> ClientError {
    ClientError::Invalid(format!(
        "you are attempting to follow {count} log streams, but maximum allowed concurrency is {maximum}, use --max-log-requests to increase the limit"
    ))
}

struct Command {
    connection: Connection,
    options: LogsOptions,
    notes: Mutex<Box<dyn Write + Send>>,
}

/// Why a log is not printed to its end.
enum Stop {
    Failed(ClientError),
    OutputGone,
}

impl From<Gone> for Stop {
    fn from(Gone: Gone) -> Self {
        Stop::OutputGone
    }
}

impl Command {
    async fn one_by_one(&self, logs: &[Log], output: Output) -> Result<(), ClientError> {
        let mut result = Ok(());
        for log in logs {
            let copied = match self.copy(log, &output).await {
                Err(Stop::Failed(error)) if self.options.ignore_errors => {
                    output.send(error_line(&error)).await.map_err(Stop::from)
                }
                copied => copied,
            };
            match copied {
                Ok(()) => {}
                Err(Stop::OutputGone) => break,
                Err(Stop::Failed(error)) => {
                    result = Err(error);
                    break;
                }
            }
        }
        output.close().await.and(result)
    }

    /// Bytes go through untouched unless lines have a prefix.
    async fn copy(&self, log: &Log, output: &Output) -> Result<(), Stop> {
        let prefix = self.prefix(log);
        let say = |text: &str| self.note(text);
        let mut body = self.open(&self.connection, log, &say).await.map_err(Stop::Failed)?;
        let mut at_line_start = true;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(Stop::Failed)?;
            let chunk = if prefix.is_empty() { chunk } else { continued(&prefix, chunk, &mut at_line_start) };
            output.send(chunk).await?;
        }
        Ok(())
    }

    async fn side_by_side(self, logs: Vec<Log>, output: Output) -> Result<(), ClientError> {
        let shared = SharedOutput::new(output);
        let connections = self.connection.for_streams(logs.len()).await;
        let connections = connections.iter().flat_map(|connection| repeat_n(connection, STREAMS));
        let command = std::sync::Arc::new(self);
        let mut tasks = JoinSet::new();
        for (log, connection) in logs.into_iter().zip(connections) {
            let (command, shared, connection) = (command.clone(), shared.clone(), connection.clone());
            tasks.spawn(async move { command.follow(&connection, &log, &shared).await });
        }
        let mut result = Ok(());
        while let Some(ended) = tasks.join_next().await {
            match ended {
                Ok(Ok(())) => continue,
                Ok(Err(Stop::OutputGone)) => {}
                Ok(Err(Stop::Failed(error))) => result = Err(error),
                Err(error) => result = Err(ClientError::Broken(error.to_string())),
            }
            tasks.shutdown().await;
        }
        shared.close().await.and(result)
    }

    async fn follow(&self, connection: &Connection, log: &Log, shared: &SharedOutput) -> Result<(), Stop> {
        let mut lines = shared.lines(self.prefix(log));
        let say = |text: &str| self.note(text);
        let copied = async {
            let mut body = self.open(connection, log, &say).await.map_err(Stop::Failed)?;
            while let Some(chunk) = body.next().await {
                lines.write(&chunk.map_err(Stop::Failed)?).await?;
                if body.shows_unfinished() {
                    lines.show_unfinished().await?;
                }
            }
            Ok(())
        };
        let copied = copied.await;
        lines.finish().await?;
        match copied {
            Err(Stop::Failed(error)) if self.options.ignore_errors => {
                let mut plain = shared.lines(Bytes::new());
                plain.write(&error_line(&error)).await.map_err(Stop::from)
            }
            copied => copied,
        }
    }

    async fn open<'a>(
        &'a self,
        connection: &'a Connection,
        log: &'a Log,
        say: &'a (dyn Fn(&str) + Sync),
    ) -> Result<ResumingLog<'a>, ClientError> {
        let patience = Patience {
            start: self.options.pod_running_timeout.positive().unwrap_or_default(),
            reconnect: self.options.reconnect_timeout.positive().unwrap_or_default(),
        };
        ResumingLog::open(connection, log, patience, say).await
    }

    fn note(&self, text: &str) {
        if self.options.quiet {
            return;
        }
        if let Ok(mut notes) = self.notes.lock() {
            // Nobody to tell when stderr is closed.
            let _ = writeln!(notes, "{text}");
        }
    }

    fn prefix(&self, log: &Log) -> Bytes {
        if self.options.has_prefix() {
            prefix(&log.pod, &log.options.container, self.options.colour)
        } else {
            Bytes::new()
        }
    }
}

fn error_line(error: &ClientError) -> Bytes {
    format!("error: {}\n", error.message()).into()
}

/// Puts the prefix before the lines of a chunk, of which the first may have begun in an earlier chunk.
fn continued(prefix: &[u8], chunk: Bytes, at_line_start: &mut bool) -> Bytes {
    let begins_line = std::mem::replace(at_line_start, chunk.last() == Some(&b'\n'));
    if begins_line { prefixed(prefix, chunk) } else { output::continued(prefix, chunk) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_in_pieces_has_one_prefix() {
        let mut at_line_start = true;
        let chunks = ["a\nb", "c", "\n", "d\n", "\ne"];
        let text: Vec<u8> = chunks
            .iter()
            .flat_map(|chunk| continued(b"P ", Bytes::from_static(chunk.as_bytes()), &mut at_line_start))
            .collect();
        assert_eq!(text, b"P a\nP bc\nP d\nP \nP e");
    }
}
