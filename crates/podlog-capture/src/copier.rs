//! The copier: the process that does the log work, a child of the monitor.
//!
//! It can be killed at any moment; the monitor starts another, which finds everything in the [`Plumbing`].

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use std::{io, thread};

use podlog_line::Stream;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use serde::{Deserialize, Serialize};

use crate::drain::{Drain, Lost, timespec};
use crate::intake::Intake;
use crate::memory;
use crate::outlet::Outlet;
use crate::pace::Pace;
use crate::plumbing::Plumbing;
use crate::policy::{Buffer, Overflow};
use crate::queue::{self, Queue};
use crate::readers::{self, Common, Readers};

/// Longest message between monitor and copier, in bytes; a longer text is cut off.
const MAX_MESSAGE: usize = 2000;
/// How often to see whether there is nothing on its way, when the copier is to become another program.
const RENEWAL_INTERVAL: Duration = Duration::from_millis(500);

/// What the monitor wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Open the log file anew. Answered.
    Reopen,
    /// The container has ended: drain what is left, and end.
    Finish,
    /// Let go of the program's stdin: it is to read its end.
    CloseStdin,
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
            ("close-stdin", "") => Some(Self::CloseStdin),
            ("renew", json) => serde_json::from_str(json).ok().map(Self::Renew),
            _ => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Reopen => "reopen".to_owned(),
            Self::Finish => "finish".to_owned(),
            Self::CloseStdin => "close-stdin".to_owned(),
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
    readers::sleep_exactly();
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
        None => copy(plumbing, drain, line),
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
        let builder = thread::Builder::new().name("podlog-writer".to_owned()).stack_size(readers::STACK);
        let tell = move |result| line.say(&Report::Reopened(result).text());
        let writer = builder.spawn_scoped(scope, move || queue::write(drain, queue, tell));
        let intake = writer.and_then(|writer| Intake::open(plumbing, queue, writer));
        let end = match intake {
            Ok(intake) => copy(plumbing, intake, line),
            Err(error) => fail(line, "buffer output", &error),
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

fn fail(line: &Line, what: &str, error: &io::Error) -> End {
    line.say(&Report::Failed(format!("{what}: {error}")).text());
    End::Failed
}

/// Where the program's output goes.
pub(crate) trait Output {
    /// Whether more can be taken. Otherwise that is tried again when it is [due](Self::due).
    fn can_take(&self) -> bool;
    /// Takes what is in a work pipe.
    ///
    /// # Errors
    /// When there is less in it.
    fn take(&mut self, outlet: &Outlet, length: usize) -> Result<(), Errno>;
    /// Nothing more will come of a stream.
    fn ended(&mut self, stream: Stream);
    /// Reads a terminal once. 0: it has ended.
    ///
    /// # Errors
    /// When it says nothing, or cannot be read.
    fn read_terminal(&mut self, terminal: &Outlet) -> Result<usize, Errno>;
    /// When [`flush`](Self::flush) has something to do; `None` while nothing waits.
    fn due(&self) -> Option<Instant>;
    /// Goes on with what has waited long enough.
    fn flush(&mut self);
    /// Opens the log file anew; `None` when somebody else will do that, and tell.
    fn reopen(&mut self) -> Option<Result<(), String>>;
    /// Takes what is left to the log, after the last process has ended. No other thread reads.
    fn finish(&mut self) -> Lost;
    /// Whether nothing is lost if this is dropped now, because there is nothing on its way that the next one would not find.
    fn is_settled(&mut self) -> bool;
}

/// Copies until something ends that.
fn copy<O: Output + Send>(plumbing: &Plumbing, output: O, line: &Line) -> End {
    let common = match Common::new(output) {
        Ok(common) => common,
        Err(error) => return fail(line, "wait for output", &error),
    };
    let end = thread::scope(|scope| match Readers::start(scope, &common, plumbing) {
        Ok(_readers) => Copier::new(plumbing, &common, line).run(),
        Err(error) => Some(fail(line, "read output", &error)),
    });
    end.unwrap_or_else(|| End::Finished(common.into_output().finish()))
}

/// The main thread.
struct Copier<'a, O> {
    plumbing: &'a Plumbing,
    common: &'a Common<O>,
    line: &'a Line,
    /// Until that ends.
    terminal: Option<&'a Outlet>,
    /// How fast that says something.
    pace: Pace,
    renewal: Option<Due>,
}

/// That the copier is to become another program.
struct Due {
    renewal: Renewal,
    /// When to look whether it can.
    at: Instant,
}

/// What `poll` found.
#[derive(Default)]
struct Found {
    /// The monitor has said something, or has ended.
    line: bool,
    /// Another thread has something to do for this one.
    wake: bool,
    /// The terminal has said something.
    terminal: bool,
}

/// What the monitor's word leads to.
enum Obeyed {
    GoOn,
    /// The container has ended.
    Finish,
    /// There is no monitor any more.
    Orphaned,
}

impl<'a, O: Output> Copier<'a, O> {
    fn new(plumbing: &'a Plumbing, common: &'a Common<O>, line: &'a Line) -> Self {
        let terminal = plumbing.terminal();
        let pace = Pace::new(Instant::now(), terminal.map_or(0, Outlet::pipe_bytes));
        Self { plumbing, common, line, terminal, pace, renewal: None }
    }

    /// Runs until somebody else is to go on here, or, `None`, until the container has ended.
    fn run(mut self) -> Option<End> {
        loop {
            let found = self.wait();
            if found.wake {
                self.common.is_awake();
            }
            if found.line {
                match self.obey() {
                    Obeyed::GoOn => {}
                    Obeyed::Finish => return None,
                    Obeyed::Orphaned => return Some(End::Orphaned),
                }
            }
            let rest = if found.terminal { self.read_terminal() } else { None };
            self.look_after(found.line);
            if let Some(renewal) = self.renewed() {
                return Some(End::Renewed(renewal));
            }
            if let Some(rest) = rest {
                thread::sleep(rest);
            }
        }
    }

    fn wait(&self) -> Found {
        let mut state = self.common.lock();
        let renewal = self.renewal.as_ref().map(|due| due.at);
        state.planned = [state.due(), renewal].into_iter().flatten().min();
        let planned = state.planned;
        let terminal = self.terminal.filter(|_| state.output.can_take());
        drop(state);
        let sources = [self.line.as_fd(), self.common.wake()].into_iter().chain(terminal.map(AsFd::as_fd));
        let mut polled: Vec<_> =
            sources.map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN)).collect();
        let timeout = planned.map(|planned| timespec(planned.saturating_duration_since(Instant::now())));
        if poll(&mut polled, timeout.as_ref()).is_err() {
            return Found::default();
        }
        let is_ready = |index: usize| polled.get(index).is_some_and(|polled| !polled.revents().is_empty());
        Found { line: is_ready(0), wake: is_ready(1), terminal: is_ready(2) }
    }

    fn read_terminal(&mut self) -> Option<Duration> {
        let mut state = self.common.lock();
        let now = Instant::now();
        state.memory.touch(now);
        match state.output.read_terminal(self.terminal?) {
            Ok(length @ 1..) => self.pace.rest(length as u64, now),
            Err(Errno::AGAIN | Errno::INTR) => None,
            // A terminal says so when its last user is gone.
            Ok(0) | Err(_) => {
                state.output.ended(self.terminal.take()?.stream);
                None
            }
        }
    }

    /// Does what is due.
    fn look_after(&self, is_touched: bool) {
        let mut state = self.common.lock();
        let could_take = state.output.can_take();
        state.output.flush();
        if !could_take && state.output.can_take() {
            self.common.resume();
        }
        let now = Instant::now();
        if is_touched {
            state.memory.touch(now);
        }
        let is_due = state.memory.is_due(now);
        drop(state);
        if is_due {
            memory::release();
        }
    }

    /// Does what the monitor says.
    fn obey(&mut self) -> Obeyed {
        let Ok(message) = self.line.hear() else { return Obeyed::Orphaned };
        match message.and_then(|message| Order::parse(&String::from_utf8_lossy(&message))) {
            None => {}
            Some(Order::Reopen) => {
                if let Some(result) = self.common.lock().output.reopen() {
                    self.line.say(&Report::Reopened(result).text());
                }
            }
            Some(Order::Finish) => {
                self.plumbing.let_go();
                return Obeyed::Finish;
            }
            Some(Order::CloseStdin) => self.plumbing.let_go(),
            Some(Order::Renew(renewal)) => self.renewal = Some(Due { renewal, at: Instant::now() }),
        }
        Obeyed::GoOn
    }

    /// Which program to become now; then nothing more is begun here.
    fn renewed(&mut self) -> Option<Renewal> {
        let due = self.renewal.as_mut().filter(|due| due.at <= Instant::now())?;
        let mut state = self.common.lock();
        if state.output.is_settled() {
            self.common.close(state);
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
        for order in
            [Order::Reopen, Order::Finish, Order::CloseStdin, Order::Renew(Renewal { monitor: 7, argv })]
        {
            monitor.order(&order);
            let message = copier.hear().expect("no end").expect("an order");
            assert_eq!(Order::parse(&String::from_utf8_lossy(&message)), Some(order));
        }
        assert_eq!(copier.hear().expect("no end"), None);
        drop(monitor);
        assert!(copier.hear().is_err());
    }
}
