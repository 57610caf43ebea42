//! The life of a container, from its start to its exit.
//!
//! This is the monitor: it does no log work, so that it has next to no reason to die. Should it be killed all the same, its copier
//! becomes the next monitor.

mod execs;
mod handover;
mod vigil;

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use std::{io, thread};

use jiff::Timestamp;
use podlog_container::control::{Exec, Reply, Request};
use podlog_container::{Build, Claim, ContainerDir, Exit, Process, ProcessIdentity, State};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, WaitOptions, WaitStatus, getpid, pidfd_open, set_child_subreaper, wait, waitpid,
};

use crate::clients::{ClientId, Clients, Incoming};
use crate::copier::{Order, Report};
use crate::copying::Copier;
use crate::drain::{Lost, describe, timespec};
use crate::launch;
use crate::memory::{self, Memory};
use crate::plumbing::Plumbing;
use crate::respawn::Respawn;
use crate::stdio::{self, Stdin};
use crate::sys::{self, Ended};
use crate::text::{failed, reason};
use crate::tree::Tree;
use execs::Execs;
use vigil::Vigil;

/// How often descendants that were started meanwhile are looked for, while the rest of the process tree is being killed.
const KILL_INTERVAL: Duration = Duration::from_millis(50);
/// How long to wait for descendants that cannot be killed, such as programs that run as another user.
const KILL_DEADLINE: Duration = Duration::from_secs(30);
/// How often to try to write down the exit, a second apart, when the disk is full.
const EXIT_ATTEMPTS: u32 = 30;
/// How often to try to open the log for the last words of a container.
const LAST_ATTEMPTS: u32 = 100;
/// How long the exit code of a program may take to appear after its end, when it is another process' child: not every
/// init waits for its children at once.
const REAP_DEADLINE: Duration = Duration::from_secs(5);
/// How long a copier may take to end when it has said that it has finished.
const COPIER_DEADLINE: Duration = Duration::from_secs(5);
const REAP_INTERVAL: Duration = Duration::from_millis(2);
/// Most clients that speak to the program at a time: each has a connection, beside those that execute commands, and others must get through.
const MAX_SPEAKERS: usize = 8;
const UNSEEN: &str = "nobody saw how it ended: its monitor was killed";

/// A running container.
pub(crate) struct Supervisor {
    home: Home,
    main: Main,
    phase: Phase,
    signals: OwnedFd,
    plumbing: Plumbing,
    copier: Option<Copier>,
    respawn: Respawn,
    /// Attempts to open the log for the last words that have failed.
    failures: u32,
    clients: Clients,
    /// Who waits for the log to be opened anew, in order.
    reopening: VecDeque<ClientId>,
    execs: Execs,
    /// Who has the program's stdin.
    speakers: BTreeSet<ClientId>,
    memory: Memory,
    /// While the last words are being written.
    vigil: Option<Vigil>,
}

/// What a container has from its beginning to its end, whoever its monitor is.
pub(crate) struct Home {
    pub(crate) dir: ContainerDir,
    /// Held until the last process of this capture ends.
    pub(crate) claim: Claim,
    pub(crate) process: Process,
}

/// The container's first process.
struct Main {
    pid: Pid,
    /// Readable when it has ended, when it is not this process' child.
    adopted: Option<OwnedFd>,
}

#[derive(Clone, Debug)]
enum Phase {
    /// The first process runs.
    Running,
    /// It has ended; the rest of its process tree is being killed.
    Ending { exit: Exit, deadline: Instant },
    /// Nothing is left of the process tree, or nothing that can be killed; its last words are being written.
    Draining { exit: Exit },
    /// The log is complete.
    Over { exit: Exit },
}

/// A descriptor that `poll` found ready.
enum Ready {
    Signals,
    Listener,
    Main,
    Copier,
    Client(ClientId),
    Report(Pid),
}

impl Supervisor {
    /// Starts the container's program.
    ///
    /// # Errors
    /// Why it could not be started; `exit.json` says so, too, unless another capture has the directory.
    pub(crate) fn start(dir: &ContainerDir) -> Result<Self, String> {
        let claim = dir.claim().map_err(|error| describe(&error))?;
        Self::launch(dir, claim).inspect_err(|why| {
            // The caller is told in any case.
            let _ = dir.write_exit(&Exit::start_error(why.clone(), Timestamp::now()));
        })
    }

    fn launch(dir: &ContainerDir, claim: Claim) -> Result<Self, String> {
        let process = dir.config().map_err(|error| describe(&error))?.process;
        set_child_subreaper(Some(getpid())).map_err(failed("become subreaper"))?;
        let signals = sys::block_signals().map_err(failed("block signals"))?;
        let listener = dir.bind_control().map_err(|error| describe(&error))?;
        let clients = Clients::new(listener).map_err(failed("listen"))?;
        let stdio = if process.tty { stdio::terminal() } else { stdio::pipes(stdin_of(&process)) };
        let (ours, theirs) = stdio.map_err(failed("make standard streams"))?;
        let plumbing = Plumbing::new(ours, process.log.clone()).map_err(failed("make pipes"))?;
        let home = Home { dir: dir.clone(), claim, process };
        let copier = Copier::start(&home, &plumbing).map_err(failed("fork"))?;
        copier.wait_until_ready()?;
        let starting = launch::start(&home.process, &theirs, dir.path()).map_err(failed("fork"))?;
        drop(theirs);
        starting.wait_until_ready()?;
        // From here on the next monitor knows what is to be looked after.
        let pid = starting.pid;
        write_state(dir, pid)?;
        starting.let_go().inspect_err(|_| dir.remove_state())?;
        let main = Main { pid, adopted: None };
        Ok(Self::new(home, main, Phase::Running, signals, plumbing, clients).with(copier))
    }

    fn new(
        home: Home,
        main: Main,
        phase: Phase,
        signals: OwnedFd,
        plumbing: Plumbing,
        clients: Clients,
    ) -> Self {
        Self {
            home,
            main,
            phase,
            signals,
            plumbing,
            copier: None,
            respawn: Respawn::new(Instant::now()),
            failures: 0,
            clients,
            reopening: VecDeque::new(),
            execs: Execs::default(),
            speakers: BTreeSet::new(),
            memory: Memory::new(Instant::now()),
            vigil: None,
        }
    }

    fn with(self, copier: Copier) -> Self {
        Self { copier: Some(copier), ..self }
    }

    /// Takes the place of a monitor that was killed. The program is not this process' child: its exit code is what the
    /// kernel keeps for whoever has a descriptor of it (since 6.15).
    ///
    /// # Errors
    /// Why that cannot be done; then the container is lost.
    pub(crate) fn succeed(home: Home, plumbing: Plumbing) -> Result<Self, String> {
        let state = home.dir.state().map_err(|error| describe(&error))?.ok_or("nothing was started")?;
        let pid = Pid::from_raw(state.process.pid).ok_or("no process id")?;
        set_child_subreaper(Some(getpid())).map_err(failed("become subreaper"))?;
        let signals = sys::block_signals().map_err(failed("block signals"))?;
        let listener = home.dir.rebind_control().map_err(|error| describe(&error))?;
        let clients = Clients::new(listener).map_err(failed("listen"))?;
        let adopted = pidfd_open(pid, PidfdFlags::empty()).ok().filter(|_| state.process.exists());
        let phase = match (state.exit, &adopted) {
            (Some(exit), _) => Phase::ending(exit),
            (None, Some(_)) => Phase::Running,
            (None, None) => Phase::ending(Exit::unknown(UNSEEN.to_owned(), Timestamp::now())),
        };
        Ok(Self::new(home, Main { pid, adopted }, phase, signals, plumbing, clients))
    }

    /// Looks after the container until it has ended, and reports how.
    pub(crate) fn run(mut self) {
        let _ = rustix::thread::set_name(c"podlog-monitor");
        let exit = loop {
            if let Phase::Over { exit } = &self.phase {
                break exit.clone();
            }
            self.turn();
        };
        write_exit(&self.home.dir, &exit);
        // Who sees this process end is to see the container's lock free.
        if let Some(Copier { pid, line }) = self.copier.take() {
            drop(line);
            wait_for_copier(pid);
        }
    }

    fn turn(&mut self) {
        self.keep_copying();
        if matches!(self.phase, Phase::Ending { .. }) {
            self.tree().kill();
        }
        let mut may_reap = matches!(self.phase, Phase::Ending { .. });
        let ready = self.wait();
        let now = Instant::now();
        if !ready.is_empty() {
            self.memory.touch(now);
        }
        if self.memory.is_due(now) {
            memory::release();
        }
        for ready in ready {
            match ready {
                Ready::Signals => {
                    self.forget_signals();
                    may_reap = true;
                }
                Ready::Listener => self.clients.accept(),
                Ready::Main => self.adopted_ended(),
                Ready::Copier => self.hear_copier(),
                Ready::Client(id) => self.serve(id),
                Ready::Report(pid) => self.take_report(pid),
            }
        }
        if may_reap {
            self.reap();
            self.advance();
        }
        self.watch_last_words();
    }

    /// Tells the end of the container although its log hangs.
    fn watch_last_words(&mut self) {
        let lost = self.vigil.as_mut().and_then(|vigil| vigil.look(&self.plumbing, Instant::now()));
        if let (Some(lost), Phase::Draining { exit }) = (lost, &self.phase) {
            self.phase = Phase::Over { exit: with_losses(exit.clone(), lost) };
            if let Some(copier) = &self.copier {
                vigil::give_up(copier.pid);
            }
        }
    }

    /// Starts a copier when there is none and it is time.
    fn keep_copying(&mut self) {
        let now = Instant::now();
        if self.copier.is_some() || !self.respawn.is_due(now) {
            return;
        }
        self.respawn.started(now);
        // Without room for another process it is tried again later.
        let Ok(copier) = Copier::start(&self.home, &self.plumbing) else { return };
        if matches!(self.phase, Phase::Draining { .. }) {
            copier.line.order(&Order::Finish);
            self.vigil = Some(Vigil::new(now));
        }
        // Nobody but itself knows when it opens the log: perhaps it does before somebody renames it.
        self.reopening.iter().for_each(|_| copier.line.order(&Order::Reopen));
        self.copier = Some(copier);
    }

    fn hear_copier(&mut self) {
        while let Some(report) = self.copier.as_ref().and_then(|copier| copier.line.report()) {
            match report {
                Report::Ready => self.failures = 0,
                Report::Failed(why) => self.log_cannot_be_opened(&why),
                Report::Reopened(result) => {
                    if let Some(id) = self.reopening.pop_front() {
                        self.answer_reopen(id, result);
                    }
                }
                Report::Finished(lost) => {
                    if let Phase::Draining { exit } = &self.phase {
                        self.phase = Phase::Over { exit: with_losses(exit.clone(), lost) };
                    }
                }
            }
        }
    }

    /// While the program runs, there is always another attempt.
    fn log_cannot_be_opened(&mut self, why: &str) {
        self.failures += 1;
        for id in std::mem::take(&mut self.reopening) {
            self.answer_reopen(id, Err(why.to_owned()));
        }
        if let Phase::Draining { exit } = &self.phase
            && self.failures >= LAST_ATTEMPTS
        {
            let lost = vigil::unwritten(&self.plumbing, why);
            self.phase = Phase::Over { exit: with_losses(exit.clone(), lost) };
        }
    }

    /// What it was asked for and has not done, the next one does.
    fn copier_ended(&mut self) {
        self.hear_copier();
        self.copier = None;
        self.respawn.ended(Instant::now());
    }

    fn answer_reopen(&mut self, id: ClientId, result: Result<(), String>) {
        let reply = result.map_or_else(Reply::Error, |()| Reply::Ok(String::new()));
        self.clients.pay(id, &reply);
    }

    /// The container's processes.
    fn tree(&self) -> Tree {
        let number = |pid: Pid| pid.as_raw_nonzero().get();
        Tree {
            root: number(getpid()),
            session: self.main.adopted.is_some().then(|| number(self.main.pid)),
            copier: self.copier.as_ref().map(|copier| number(copier.pid)),
        }
    }

    /// Sleeps until something happens.
    fn wait(&self) -> Vec<Ready> {
        let (ready, mut polled): (Vec<_>, Vec<_>) = self
            .sources()
            .map(|(ready, descriptor)| (ready, PollFd::from_borrowed_fd(descriptor, PollFlags::IN)))
            .unzip();
        let now = Instant::now();
        let interval = matches!(self.phase, Phase::Ending { .. }).then_some(KILL_INTERVAL);
        let respawn = self.copier.is_none().then(|| self.respawn.patience(now));
        let memory = self.memory.due().map(|due| due.saturating_duration_since(now));
        let vigil = self.vigil.as_ref().map(|vigil| vigil.due.saturating_duration_since(now));
        let timeout = [interval, respawn, memory, vigil].into_iter().flatten().min().map(timespec);
        if poll(&mut polled, timeout.as_ref()).is_err() {
            return Vec::new();
        }
        let is_ready = |polled: &PollFd<'_>| !polled.revents().is_empty();
        ready
            .into_iter()
            .zip(&polled)
            .filter(|(_, polled)| is_ready(polled))
            .map(|(ready, _)| ready)
            .collect()
    }

    fn sources(&self) -> impl Iterator<Item = (Ready, BorrowedFd<'_>)> {
        let signals = std::iter::once((Ready::Signals, self.signals.as_fd()));
        let listener = self.clients.listener().map(|fd| (Ready::Listener, fd));
        let adopted = self.main.adopted.as_ref().filter(|_| matches!(self.phase, Phase::Running));
        let main = adopted.map(|fd| (Ready::Main, fd.as_fd()));
        let copier = self.copier.as_ref().map(|copier| (Ready::Copier, copier.line.as_fd()));
        let clients = self.clients.sockets().map(|(id, fd)| (Ready::Client(id), fd));
        let reports = self.execs.reports().map(|(pid, fd)| (Ready::Report(pid), fd));
        signals.chain(listener).chain(main).chain(copier).chain(clients).chain(reports)
    }

    /// The signal only wakes up: children are asked for one by one.
    fn forget_signals(&self) {
        let mut buffer = [0; 1024];
        while rustix::io::read(&self.signals, &mut buffer).is_ok_and(|length| length > 0) {}
    }

    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            self.ended(pid, status);
        }
    }

    fn ended(&mut self, pid: Pid, status: WaitStatus) {
        if self.copier.as_ref().is_some_and(|copier| copier.pid == pid) {
            self.copier_ended();
        } else if pid == self.main.pid && self.main.adopted.is_none() {
            self.main_ended(exit_of(status));
        } else {
            self.take_report(pid);
            if let Some(client) = self.execs.ended(pid) {
                self.clients.answer(client, &Reply::Exited(exit_of(status).exit_code));
            }
        }
    }

    /// The program, whose parent is somebody else by now, has ended.
    fn adopted_ended(&mut self) {
        let Some(descriptor) = &self.main.adopted else { return };
        let deadline = Instant::now() + REAP_DEADLINE;
        let ended = loop {
            match sys::ended(descriptor) {
                None if Instant::now() < deadline => thread::sleep(REAP_INTERVAL),
                ended => break ended,
            }
        };
        let now = Timestamp::now();
        self.main_ended(match ended {
            Some(Ended::Code(code)) => Exit::exited(code, now),
            Some(Ended::Signal(signal)) => Exit::signaled(signal, now),
            None => Exit::unknown(UNSEEN.to_owned(), now),
        });
    }

    /// Notes how the program has ended where the next monitor would find it.
    fn main_ended(&mut self, exit: Exit) {
        if let Ok(Some(state)) = self.home.dir.state() {
            // On a full disk only this monitor knows.
            let _ = self.home.dir.write_state(&State { exit: Some(exit.clone()), ..state });
        }
        self.phase = Phase::ending(exit);
    }

    fn advance(&mut self) {
        let Phase::Ending { exit, deadline } = &self.phase else { return };
        if self.tree().is_empty() {
            self.phase = Phase::Draining { exit: exit.clone() };
        } else if Instant::now() >= *deadline {
            let message =
                "some processes of the container could not be killed and were left behind".to_owned();
            self.phase = Phase::Draining { exit: Exit { message, ..exit.clone() } };
        } else {
            return;
        }
        self.plumbing.let_go();
        self.vigil = Some(Vigil::new(Instant::now()));
        if let Some(copier) = &self.copier {
            copier.line.order(&Order::Finish);
        }
    }

    fn serve(&mut self, id: ClientId) {
        for incoming in self.clients.receive(id) {
            if let Some(reply) = self.answer(id, incoming) {
                self.clients.answer(id, &reply);
            }
        }
        if !self.clients.is_connected(id) {
            self.execs.kill_all_of(id);
            let Process { stdin_once, tty, .. } = self.home.process;
            if self.speakers.remove(&id) && stdin_once && !tty {
                self.close_stdin();
            }
        }
    }

    /// The answer to a request, unless it comes later.
    fn answer(&mut self, id: ClientId, incoming: Incoming) -> Option<Reply> {
        let done = match incoming.request {
            Request::Status => Ok(self.status().to_owned()),
            Request::Build => Build::own().map(|build| build.to_string()).map_err(reason),
            Request::HandOver(program) => Err(self.hand_over(id, &program.argv, incoming.descriptors)),
            Request::Signal(number) => self.signal(number).map(|()| String::new()),
            Request::Reopen => {
                if let Some(copier) = &self.copier {
                    copier.line.order(&Order::Reopen);
                }
                self.reopening.push_back(id);
                self.clients.owe(id);
                return None;
            }
            Request::Stdin => match self.hand_stdin(id) {
                Ok(()) => return None,
                Err(why) => Err(why),
            },
            Request::Exec(exec) => match self.execute(id, &exec, incoming.descriptors) {
                Ok(()) => return None,
                Err(why) => Err(why),
            },
        };
        Some(done.map_or_else(Reply::Error, Reply::Ok))
    }

    fn hand_stdin(&mut self, id: ClientId) -> Result<(), String> {
        if self.speakers.len() >= MAX_SPEAKERS {
            return Err("too many clients speak to the container".to_owned());
        }
        let inlet = self.plumbing.inlet().map_err(reason)?;
        if inlet.is_some() {
            self.speakers.insert(id);
        }
        self.clients.answer_with(id, &Reply::Ok(String::new()), inlet);
        Ok(())
    }

    /// Has the program read the end of its stdin. The copier holds it, too.
    fn close_stdin(&mut self) {
        self.plumbing.let_go();
        if let Some(copier) = &self.copier {
            copier.line.order(&Order::CloseStdin);
        }
    }

    fn status(&self) -> &'static str {
        if matches!(self.phase, Phase::Running) { "running" } else { "ending" }
    }

    fn check_running(&self) -> Result<(), String> {
        if matches!(self.phase, Phase::Running) { Ok(()) } else { Err("the container has ended".to_owned()) }
    }

    /// The number of this process' own child is nobody else's before it has been waited for; that of an adopted one may
    /// be, when it has just ended.
    fn signal(&self, number: i32) -> Result<(), String> {
        self.check_running()?;
        if let Some(descriptor) = &self.main.adopted {
            return sys::signal(descriptor, number).map_err(reason);
        }
        sys::kill(self.main.pid, number).map_err(reason)
    }

    fn execute(&mut self, client: ClientId, exec: &Exec, descriptors: Vec<OwnedFd>) -> Result<(), String> {
        self.check_running()?;
        self.execs.start(client, &self.home.process, exec, self.main.pid, descriptors)
    }

    /// Tells the client whether its command runs.
    fn take_report(&mut self, pid: Pid) {
        if let Some((client, reply)) = self.execs.report(pid) {
            self.clients.answer(client, &reply);
        }
    }
}

impl Home {
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { dir: self.dir.clone(), claim: self.claim.try_clone()?, process: self.process.clone() })
    }
}

impl Phase {
    fn ending(exit: Exit) -> Self {
        Self::Ending { exit, deadline: Instant::now() + KILL_DEADLINE }
    }
}

/// A copier that its file system does not let go is left behind.
fn wait_for_copier(pid: Pid) {
    let deadline = Instant::now() + COPIER_DEADLINE;
    while matches!(waitpid(Some(pid), WaitOptions::NOHANG), Ok(None)) && Instant::now() < deadline {
        thread::sleep(REAP_INTERVAL);
    }
}

fn stdin_of(process: &Process) -> Stdin {
    if process.stdin { Stdin::Open } else { Stdin::Null }
}

fn write_state(dir: &ContainerDir, main: Pid) -> Result<(), String> {
    let process = ProcessIdentity::of(main.as_raw_nonzero().get()).ok_or("/proc is not available")?;
    dir.write_state(&State { process, started_at: Timestamp::now(), exit: None })
        .map_err(|error| describe(&error))
}

/// Without this file the exit code is lost: a full disk is given some time.
fn write_exit(dir: &ContainerDir, exit: &Exit) {
    for _ in 0..EXIT_ATTEMPTS {
        if dir.write_exit(exit).is_ok() || !dir.path().exists() {
            return;
        }
        thread::sleep(Duration::from_secs(1));
    }
}

fn exit_of(status: WaitStatus) -> Exit {
    let now = Timestamp::now();
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::exited(code, now),
        (None, Some(signal)) => Exit::signaled(signal, now),
        (None, None) => Exit::unknown("wait reported neither exit code nor signal".to_owned(), now),
    }
}

fn with_losses(exit: Exit, lost: Lost) -> Exit {
    if lost.bytes == 0 {
        return exit;
    }
    let Lost { records, bytes, why } = lost;
    let text =
        format!("{bytes} bytes of output never reached the log ({records} records were dropped): {why}");
    let message =
        [exit.message, text].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ");
    Exit { message, lost_bytes: bytes, ..exit }
}
