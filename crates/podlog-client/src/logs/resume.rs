//! A followed log that is taken up again where its connection broke.

use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use podlog_api::{LogResumed, PodLogOptions};
use tokio::time::Instant;

use super::by_frame::ByFrame;
use super::by_time::ByTime;
use super::line_filter::LineFilter;
use super::opening::{Begun, Breaks, begin};
use super::stream::{LogBody, patiently, request};
use super::target::Log;
use crate::{ClientError, Connection};

/// Pause before the second attempt to take a log up again, and the longest. The first attempt waits for nothing.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// What happens to what stands before the lines only so that a log can be taken up again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Marks {
    /// Nobody asked for it.
    #[default]
    Removed,
    /// It was asked for.
    Kept,
}

/// How long is waited, and for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the container to start.
    pub(super) start: Duration,
    /// For a broken log to go on; zero: not at all.
    pub(super) reconnect: Duration,
}

/// How the place is known where a log has to go on.
#[derive(Debug)]
pub(super) enum Way {
    /// A log that breaks has failed.
    None,
    Frame(ByFrame),
    /// For servers that know no frames.
    Time(ByTime),
}

impl Way {
    fn filter(&mut self, chunk: Bytes) -> Result<Bytes, ClientError> {
        match self {
            Way::None => Ok(chunk),
            Way::Frame(way) => way.filter(&chunk),
            Way::Time(way) => Ok(way.filter(&chunk)),
        }
    }

    fn interrupted(&mut self) {
        match self {
            Way::None => {}
            Way::Frame(way) => way.interrupted(),
            Way::Time(way) => {
                way.interrupted();
                way.begin();
            }
        }
    }

    fn finish(&mut self) -> Result<Bytes, ClientError> {
        match self {
            Way::None => Ok(Bytes::new()),
            Way::Frame(way) => way.end().map(|()| Bytes::new()),
            Way::Time(way) => Ok(way.finish()),
        }
    }

    /// What to ask for; `None` when nobody knows where to go on. `begun`: something of the log has been printed.
    fn rest_of(&self, wanted: &PodLogOptions, begun: bool) -> Option<PodLogOptions> {
        match self {
            Way::None => None,
            Way::Frame(way) => (!way.is_lost()).then(|| way.ask(wanted)),
            Way::Time(way) => {
                let mut rest = PodLogOptions { timestamps: true, ..wanted.clone() };
                if let Some(since) = way.since() {
                    rest.since_time = Some(since);
                    (rest.tail_lines, rest.since_seconds) = (None, None);
                }
                (way.since().is_some() || !begun).then_some(rest)
            }
        }
    }
}

/// What went wrong since something new of the log has arrived.
#[derive(Debug)]
struct Trouble {
    since: Instant,
    pause: Duration,
}

/// One log over as many connections as it takes.
pub(super) struct ResumingLog<'a> {
    connection: &'a Connection,
    log: &'a Log,
    /// What the server is asked for, with moments instead of ages.
    wanted: PodLogOptions,
    /// Chooses lines where the server does not.
    filter: Option<LineFilter>,
    /// Only what there was is asked for so far.
    is_past: bool,
    breaks: Breaks,
    patience: Patience,
    say: &'a (dyn Fn(&str) + Sync),
    way: Way,
    body: LogBody,
    begun: bool,
    has_ended: bool,
    trouble: Option<Trouble>,
}

impl<'a> ResumingLog<'a> {
    pub(super) async fn open(
        connection: &'a Connection,
        log: &'a Log,
        patience: Patience,
        say: &'a (dyn Fn(&str) + Sync),
    ) -> Result<Self, ClientError> {
        let follow = log.options.follow;
        // There are no cursors and no times in a file to go on at.
        let has_places = log.options.extensions.file.is_none();
        let is_overcome = follow && has_places && !patience.reconnect.is_zero();
        let breaks = if is_overcome { Breaks::AreOvercome } else { Breaks::AreFailures };
        let options = with_moments(&log.options, Timestamp::now());
        let opening = || begin(connection, log, &options, breaks);
        let Begun { body, way, wanted, filter, is_past } =
            patiently(follow, patience.start, say, opening).await?;
        Ok(ResumingLog {
            connection,
            log,
            wanted,
            filter,
            is_past,
            breaks,
            patience,
            say,
            way,
            body,
            begun: false,
            has_ended: false,
            trouble: None,
        })
    }

    /// The next piece of what was asked for; `None` at a clean end.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, ClientError>> {
        loop {
            if self.has_ended {
                return None;
            }
            if self.is_over() {
                return self.last(&[]);
            }
            let read = match self.body.next().await {
                Some(chunk) => chunk.and_then(|chunk| self.way.filter(chunk)),
                None if self.is_past => match self.end_past().await {
                    Ok(text) => return Some(Ok(text)),
                    Err(error) => return Some(Err(error)),
                },
                None => match self.way.finish() {
                    Ok(rest) => return self.last(&rest),
                    Err(error) => Err(error),
                },
            };
            match read {
                Ok(text) if text.is_empty() => {}
                Ok(text) => {
                    self.begun = true;
                    self.trouble = None;
                    return Some(Ok(self.choose(text)));
                }
                Err(error) => {
                    if let Err(error) = self.resume(error).await {
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    /// All that was wanted has come.
    fn is_over(&self) -> bool {
        let is_complete = matches!(&self.way, Way::Frame(way) if way.is_complete(&self.wanted));
        is_complete || self.filter.as_ref().is_some_and(LineFilter::is_over)
    }

    fn choose(&mut self, text: Bytes) -> Bytes {
        match &mut self.filter {
            Some(filter) => filter.filter(&text),
            None => text,
        }
    }

    /// What is left when the log has ended.
    fn last(&mut self, rest: &[u8]) -> Option<Result<Bytes, ClientError>> {
        let text = match self.filter.take() {
            Some(mut filter) => [filter.filter(rest), filter.finish()].concat(),
            None => rest.to_vec(),
        };
        self.has_ended = true;
        (!text.is_empty()).then(|| Ok(text.into()))
    }

    /// What there was has come. Asks for what comes behind it.
    async fn end_past(&mut self) -> Result<Bytes, ClientError> {
        self.is_past = false;
        self.wanted.follow = true;
        self.way.interrupted();
        let rest = self.way.rest_of(&self.wanted, self.begun).unwrap_or_else(|| self.wanted.clone());
        let needed = &rest.extensions;
        let opened = request(self.connection, &self.log.namespace, &self.log.pod, &rest, needed).await?;
        self.body = opened.body;
        Ok(self.filter.as_mut().map(LineFilter::end_of_past).unwrap_or_default())
    }

    /// Asks for the rest, until it comes or patience is over.
    async fn resume(&mut self, broken: ClientError) -> Result<(), ClientError> {
        self.way.interrupted();
        let rest = self.way.rest_of(&self.wanted, self.begun).filter(|_| self.breaks == Breaks::AreOvercome);
        let Some(rest) = rest else { return Err(broken) };
        let mut error = broken;
        loop {
            self.wait(error).await?;
            let needed = &rest.extensions;
            match request(self.connection, &self.log.namespace, &self.log.pod, &rest, needed).await {
                Ok(opened) => {
                    self.tell(opened.resumed);
                    self.body = opened.body;
                    return Ok(());
                }
                Err(failed) if may_pass(&failed) => error = failed,
                Err(failed) => return Err(failed),
            }
        }
    }

    /// Waits for the next attempt.
    ///
    /// # Errors
    /// `error`, when there has been trouble for too long.
    async fn wait(&mut self, error: ClientError) -> Result<(), ClientError> {
        let Some(trouble) = &mut self.trouble else {
            (self.say)(&format!("{}: {}; going on where it stopped", self.name(), error.message()));
            self.trouble = Some(Trouble { since: Instant::now(), pause: FIRST_PAUSE });
            return Ok(());
        };
        if trouble.since.elapsed() + trouble.pause > self.patience.reconnect {
            return Err(error);
        }
        tokio::time::sleep(trouble.pause).await;
        trouble.pause = (trouble.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    fn tell(&self, resumed: LogResumed) {
        let LogResumed::Gone { bytes } = resumed else { return };
        let lost = bytes.map_or_else(|| "a part".to_owned(), |bytes| format!("{bytes} bytes"));
        (self.say)(&format!("{}: {lost} of the log had been deleted meanwhile", self.name()));
    }

    /// Whether the text that comes ends inside a line only where that line is to be seen as far as it has come.
    pub(super) fn shows_unfinished(&self) -> bool {
        matches!(self.way, Way::Frame(_))
    }

    fn name(&self) -> String {
        format!("{}/{}", self.log.pod, self.log.options.container)
    }
}

/// Ages mean another moment each time they are asked for.
fn with_moments(options: &PodLogOptions, now: Timestamp) -> PodLogOptions {
    let mut options = options.clone();
    let ago = |seconds: i64| now.checked_sub(SignedDuration::from_secs(seconds)).ok();
    if let Some(until) = options.extensions.until_seconds.and_then(ago) {
        options.extensions.until_seconds = None;
        options.extensions.until_time = Some(until);
    }
    options
}

/// Whether the log may be had in a moment.
fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Status(status) => matches!(status.code, 429 | 500 | 502 | 503 | 504),
        ClientError::Unreachable { .. } | ClientError::Broken(_) => true,
        _ => false,
    }
}
