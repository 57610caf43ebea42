//! The first request for a log: what the server is asked for, and what is left to us.

use podlog_api::{LogExtensions, PodLogOptions};

use super::by_frame::ByFrame;
use super::by_time::ByTime;
use super::line_filter::LineFilter;
use super::resume::{Marks, Way};
use super::stream::{LogBody, Opened, request};
use super::target::Log;
use crate::{ClientError, Connection};

/// Whether a log whose connection breaks is taken up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breaks {
    AreOvercome,
    AreFailures,
}

/// A log that has begun to arrive.
pub(super) struct Begun {
    pub(super) body: LogBody,
    pub(super) way: Way,
    /// What the server was asked for.
    pub(super) wanted: PodLogOptions,
    /// Chooses lines that the server did not choose.
    pub(super) filter: Option<LineFilter>,
    /// Only what there was is asked for; what comes later is to be asked for behind it.
    pub(super) is_past: bool,
}

/// Asks for the log. `options` has moments instead of ages.
pub(super) async fn begin(
    connection: &Connection,
    log: &Log,
    options: &PodLogOptions,
    breaks: Breaks,
) -> Result<Begun, ClientError> {
    let asked = match breaks {
        Breaks::AreOvercome => ByFrame::default().ask(options),
        Breaks::AreFailures => options.clone(),
    };
    let needed = without_choice(&options.extensions);
    let opened = request(connection, &log.namespace, &log.pod, &asked, &needed).await?;
    if !opened.honours(&options.extensions) {
        drop(opened);
        return choose_here(connection, log, options, breaks).await;
    }
    match breaks {
        Breaks::AreFailures => Ok(Begun::of(opened, Way::None, options)),
        Breaks::AreOvercome if opened.has_frames() => {
            Ok(Begun::of(opened, Way::Frame(ByFrame::default()), options))
        }
        Breaks::AreOvercome => begin_with_times(connection, log, options, opened).await,
    }
}

/// Asks for lines with times where frames are not known. Times would count where bytes are counted.
async fn begin_with_times(
    connection: &Connection,
    log: &Log,
    options: &PodLogOptions,
    opened: Opened,
) -> Result<Begun, ClientError> {
    if options.limit_bytes.is_some() {
        return Ok(Begun::of(opened, Way::None, options));
    }
    if options.timestamps {
        return Ok(Begun::of(opened, Way::Time(ByTime::new(Marks::Kept)), options));
    }
    drop(opened);
    let timed = PodLogOptions { timestamps: true, ..options.clone() };
    let opened = request(connection, &log.namespace, &log.pod, &timed, &options.extensions).await?;
    Ok(Begun::of(opened, Way::Time(ByTime::new(Marks::Removed)), options))
}

/// Asks for all lines, with their times. Those that are followed after the last few are asked for behind these: only where
/// the past ends is it known which lines these are.
async fn choose_here(
    connection: &Connection,
    log: &Log,
    options: &PodLogOptions,
    breaks: Breaks,
) -> Result<Begun, ClientError> {
    let filter = LineFilter::new(options)?;
    let counts = options.tail_lines.is_some_and(|lines| lines > 0);
    let is_past = options.follow && counts;
    let asked = PodLogOptions {
        follow: options.follow && !is_past,
        timestamps: true,
        tail_lines: options.tail_lines.filter(|_| !counts),
        limit_bytes: None,
        extensions: without_choice(&options.extensions),
        ..options.clone()
    };
    let opened = request(connection, &log.namespace, &log.pod, &asked, &asked.extensions).await?;
    let way = match breaks {
        Breaks::AreFailures if !is_past => Way::None,
        _ => Way::Time(ByTime::new(Marks::Kept)),
    };
    Ok(Begun { filter: Some(filter), is_past, ..Begun::of(opened, way, &asked) })
}

/// What only the server can do.
fn without_choice(extensions: &LogExtensions) -> LogExtensions {
    LogExtensions {
        include: Vec::new(),
        exclude: Vec::new(),
        fixed_strings: false,
        until_seconds: None,
        until_time: None,
        ..extensions.clone()
    }
}

impl Begun {
    fn of(opened: Opened, way: Way, wanted: &PodLogOptions) -> Self {
        Begun { body: opened.body, way, wanted: wanted.clone(), filter: None, is_past: false }
    }
}
