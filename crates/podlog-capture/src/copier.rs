//! The copier: the process that does the log work, a child of the monitor.
//!
//! It can be killed at any moment; the monitor starts another, which finds everything in the [`Plumbing`].

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use std::{io, thread};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use serde::{Deserialize, Serialize};

use crate::drain::{Drain, Lost, timespec};
use crate::intake::Intake;
use crate::memory::Memory;
use crate::plumbing::Plumbing;
use crate::policy::{Buffer, Overflow};
use crate::queue::{self, Queue};
use crate::sys;

/// Longest message between monitor and copier, in bytes; a longer text is cut off.
const MAX_MESSAGE: usize = 2000;
/// What the writer of a buffered log needs, in bytes; of that it touches a part.
const WRITER_STACK: usize = 256 * 1024;

/// How often to see whether there is nothing on its way, when the copier is to become another program.
const RENEWAL_INTERVAL: Duration = Duration::from_millis(500);

/// What the monitor wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Open the log file anew. Answered.
    Reopen,
    /// The container has ended: drain what is left, and end.
    Finish,
    /// Become another program as soon as nothing is lost by that.
    Renew(Renewal),
}

/// Which program that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Renewal {
    /// The process whose program it is: the monitor.
    pub(crate) monitor: i32,
    /// The first words of its command line.
    pub(crate) argv: Vec<String>,
}

impl Order {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once(' ').unwrap_or((text, "")) {
            ("reopen", "") => Some(Self::Reopen),
            ("finish", "") => Some(Self::Finish),
            ("renew", json) => serde_json::from_str(json).ok().map(Self::Renew),
            _ => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Reopen => "reopen".to_owned(),
            Self::Finish => "finish".to_owned(),
            Self::Renew(renewal) => {
                format!("renew {}", serde_json::to_string(renewal).unwrap_or_default())
            }
        }
    }
}

/// What a copier tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The log is open, and nothing of its predecessor's is missing.
    Ready,
    /// It cannot begin, and why.
    Failed(String),
    /// The log was opened anew, or why not.
    Reopened(Result<(), String>),
    /// All that could be drained was, and what could not.
    Finished(Lost),
}

/// One end of the line between monitor and copier. The end of either process is the end of the line.
pub(crate) struct Line(OwnedFd);

/// Why a copier's work is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All output is in the log but for this, and the monitor was told.
    Finished(Lost),
    /// The log cannot be opened, and the monitor knows.
    Failed,
    /// There is no monitor any more.
    Orphaned,
    /// Nothing is lost if another program goes on here.
    Renewed(Renewal),
}

impl From<OwnedFd> for Line {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl Line {
    /// Makes a line: the monitor's end and the copier's.
    pub(crate) fn new() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (here, there) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self(here), Self(there)))
    }

    /// Gives an order. That there is nobody to take it is found out when the process has ended.
    pub(crate) fn order(&self, order: &Order) {
        self.say(&order.text());
    }

    /// The next report; `None` while there is none, or when there will be none.
    pub(crate) fn report(&self) -> Option<Report> {
        let message = self.hear().ok()??;
        Report::parse(&String::from_utf8_lossy(&message))
    }

    /// Waits for the next report; `None` when there will be none.
    pub(crate) fn wait_for_report(&self) -> Option<Report> {
        loop {
            let mut polled = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
            let _ = poll(&mut polled, None);
            match self.hear() {
                Ok(Some(message)) => return Report::parse(&String::from_utf8_lossy(&message)),
                Ok(None) => {}
                Err(_) => return None,
            }
        }
    }

    /// Waits for the end of the other process.
    pub(crate) fn wait_for_end(&self) {
        while self.hear().is_ok() {
            let mut polled = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
            let _ = poll(&mut polled, None);
        }
    }

    fn say(&self, text: &str) {
        let text = &text[..text.floor_char_boundary(MAX_MESSAGE)];
        // Both sides read all the time; who does not is about to end.
        let _ = send(&self.0, text.as_bytes(), SendFlags::NOSIGNAL);
    }

    /// # Errors
    /// When the other process has ended.
    fn hear(&self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = [0; MAX_MESSAGE];
        match recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
            Ok((0, _)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((length, _)) => Ok(Some(buffer[..length.min(MAX_MESSAGE)].to_vec())),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Report {
    fn parse(text: &str) -> Option<Self> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "ready" => Some(Self::Ready),
            "failed" => Some(Self::Failed(rest.to_owned())),
            "reopened" if rest.is_empty() => Some(Self::Reopened(Ok(()))),
            "reopened" => Some(Self::Reopened(Err(rest.to_owned()))),
            "finished" => {
                let mut fields = rest.splitn(3, ' ');
                let records = fields.next()?.parse().ok()?;
                let bytes = fields.next()?.parse().ok()?;
                let why = fields.next().unwrap_or_default().to_owned();
                Some(Self::Finished(Lost { records, bytes, why }))
            }
            _ => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Ready => "ready".to_owned(),
            Self::Failed(why) => format!("failed {why}"),
            Self::Reopened(Ok(())) => "reopened".to_owned(),
            Self::Reopened(Err(why)) => format!("reopened {why}"),
            Self::Finished(Lost { records, bytes, why }) => format!("finished {records} {bytes} {why}"),
        }
    }
}

/// Copies the program's output into its log until the monitor says that it has ended, or has ended itself.
pub(crate) fn run(plumbing: &Plumbing, line: &Line) -> End {
    // A rest of some microseconds is to be no longer than that.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    let drain = match Drain::open(plumbing) {
        Ok(drain) => drain,
        Err(why) => {
            line.say(&Report::Failed(why).text());
            return End::Failed;
        }
    };
    line.say(&Report::Ready.text());
    // When the end is told, the log's files keep their names: its compressor has ended with the drain.
    let end = match plumbing.overflow() {
        None => Copier::new(plumbing, drain, line).run(),
        Some(overflow) => run_buffered(plumbing, drain, line, overflow),
    };
    if let End::Finished(lost) = &end {
        line.say(&Report::Finished(lost.clone()).text());
    }
    end
}

/// Two threads with a buffer between them: one takes what the program prints, the other writes.
fn run_buffered(plumbing: &Plumbing, drain: Drain<'_>, line: &Line, overflow: Overflow) -> End {
    let capacity = usize::try_from(plumbing.log.buffer_bytes).unwrap_or(usize::MAX);
    let queue = &Queue::new(Buffer::new(overflow, capacity));
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("podlog-writer".to_owned()).stack_size(WRITER_STACK);
        let tell = move |result| line.say(&Report::Reopened(result).text());
        let writer = builder.spawn_scoped(scope, move || queue::write(drain, queue, tell));
        let intake = writer.and_then(|writer| Intake::open(plumbing, queue, writer));
        let end = match intake {
            Ok(intake) => Copier::new(plumbing, intake, line).run(),
            Err(error) => {
                line.say(&Report::Failed(format!("buffer output: {error}")).text());
                End::Failed
            }
        };
        // What can be written at once is; the rest is declared by the next copier.
        queue.close(Instant::now());
        end
    })
}

/// Drains what is there now, for nobody.
pub(crate) fn finish(plumbing: &Plumbing) {
    if let Ok((monitor, line)) = Line::new() {
        monitor.order(&Order::Finish);
        run(plumbing, &line);
    }
}

/// Where the program's output goes.
pub(crate) trait Output {
    /// The program's streams that have not ended and may be read; a place in the list is what [`read`](Self::read) takes.
    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>>;
    /// How long until [`flush`](Self::flush) has something to do; `None` while nothing waits.
    fn hold(&self) -> Option<Duration>;
    /// Reads once from each of these that has something to say. Returns for how long the next look is better put off.
    fn read(&mut self, ready: &[usize]) -> Option<Duration>;
    /// Goes on with what has waited long enough.
    fn flush(&mut self);
    /// Opens the log file anew; `None` when somebody else will do that, and tell.
    fn reopen(&mut self) -> Option<Result<(), String>>;
    /// Takes what is left to the log, after the last process has ended.
    fn finish(&mut self) -> Lost;
    /// Whether [`finish`](Self::finish) has given up somebody who writes and does not come back.
    fn is_stuck(&self) -> bool {
        false
    }
    /// Whether nothing is lost if this is dropped now, because there is nothing on its way that the next one would not find.
    fn is_settled(&mut self) -> bool;
}

struct Copier<'a, O> {
    plumbing: &'a Plumbing,
    output: O,
    line: &'a Line,
    memory: Memory,
    renewal: Option<Due>,
}

/// That the copier is to become another program.
struct Due {
    renewal: Renewal,
    /// When to look whether it can.
    at: Instant,
}

/// What `poll` found.
struct Found {
    /// The monitor has said something, or has ended.
    line: bool,
    /// Places in the list of outputs.
    outputs: Vec<usize>,
}

impl<'a, O: Output> Copier<'a, O> {
    fn new(plumbing: &'a Plumbing, output: O, line: &'a Line) -> Self {
        Self { plumbing, output, line, memory: Memory::new(Instant::now()), renewal: None }
    }

    fn run(mut self) -> End {
        loop {
            let found = self.wait();
            self.note_activity(&found);
            if found.line
                && let Some(end) = self.obey()
            {
                return end;
            }
            let rest = self.output.read(&found.outputs);
            self.output.flush();
            if let Some(renewal) = self.renewed() {
                return End::Renewed(renewal);
            }
            if let Some(rest) = rest {
                thread::sleep(rest);
            }
        }
    }

    fn wait(&self) -> Found {
        let line = std::iter::once(self.line.as_fd());
        let mut polled: Vec<_> = line
            .chain(self.output.descriptors())
            .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
            .collect();
        let patience = self.memory.patience(Instant::now());
        let renewal = self.renewal.as_ref().map(|due| due.at.saturating_duration_since(Instant::now()));
        let timeout = [self.output.hold(), patience, renewal].into_iter().flatten().min().map(timespec);
        if poll(&mut polled, timeout.as_ref()).is_err() {
            return Found { line: false, outputs: Vec::new() };
        }
        let is_ready = |index: &usize| !polled[*index].revents().is_empty();
        Found {
            line: is_ready(&0),
            outputs: (1..polled.len()).filter(is_ready).map(|index| index - 1).collect(),
        }
    }

    fn note_activity(&mut self, found: &Found) {
        let is_quiet = !found.line && found.outputs.is_empty();
        self.memory.note(Instant::now(), is_quiet, self.output.hold().is_some());
    }

    /// Does what the monitor says.
    fn obey(&mut self) -> Option<End> {
        let Ok(message) = self.line.hear() else { return Some(End::Orphaned) };
        match Order::parse(&String::from_utf8_lossy(&message?))? {
            Order::Reopen => {
                if let Some(result) = self.output.reopen() {
                    self.line.say(&Report::Reopened(result).text());
                }
                None
            }
            Order::Finish => {
                self.plumbing.let_go();
                let lost = self.output.finish();
                if self.output.is_stuck() {
                    self.line.say(&Report::Finished(lost).text());
                    // Whoever is stuck would be waited for otherwise.
                    sys::exit_child(0);
                }
                Some(End::Finished(lost))
            }
            Order::Renew(renewal) => {
                self.renewal = Some(Due { renewal, at: Instant::now() });
                None
            }
        }
    }

    /// Which program to become now.
    fn renewed(&mut self) -> Option<Renewal> {
        let due = self.renewal.as_mut().filter(|due| due.at <= Instant::now())?;
        if self.output.is_settled() {
            return self.renewal.take().map(|due| due.renewal);
        }
        due.at = Instant::now() + RENEWAL_INTERVAL;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_arrive() {
        let (monitor, copier) = Line::new().expect("a line");
        assert_eq!(monitor.report(), None);
        let lost = Lost { records: 1, bytes: 20, why: "no space left".to_owned() };
        for report in [
            Report::Ready,
            Report::Failed("no such file".to_owned()),
            Report::Reopened(Ok(())),
            Report::Reopened(Err("disk full".to_owned())),
            Report::Finished(Lost::default()),
            Report::Finished(lost),
        ] {
            copier.say(&report.text());
            assert_eq!(monitor.report(), Some(report));
        }
        copier.say(&Report::Failed("ü".repeat(MAX_MESSAGE)).text());
        assert!(matches!(monitor.wait_for_report(), Some(Report::Failed(_))));
        drop(copier);
        assert_eq!(monitor.wait_for_report(), None);
    }

    #[test]
    fn orders_arrive_and_the_end_of_a_monitor_is_noticed() {
        let (monitor, copier) = Line::new().expect("a line");
        let argv = vec!["/proc/self/exe".to_owned(), "a \"b\"\n".to_owned()];
        for order in [Order::Reopen, Order::Finish, Order::Renew(Renewal { monitor: 7, argv })] {
            monitor.order(&order);
            let message = copier.hear().expect("no end").expect("an order");
            assert_eq!(Order::parse(&String::from_utf8_lossy(&message)), Some(order));
        }
        assert_eq!(copier.hear().expect("no end"), None);
        drop(monitor);
        assert!(copier.hear().is_err());
    }
}
