//! The life of a container, from its start to its exit.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use podlog_container::control::{Exec, Reply, Request};
use podlog_container::{Claim, ContainerDir, Exit, Process, ProcessIdentity, State};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process_group, set_child_subreaper, wait,
};

use crate::clients::{ClientId, Clients, Incoming};
use crate::drain::{Drain, Lost, describe, timespec};
use crate::launch::{self, Child, Place};
use crate::memory::Memory;
use crate::stdio::{self, Stdin, Theirs};
use crate::text::{failed, reason};
use crate::{sys, tree};

/// How often descendants that were started meanwhile are looked for, while the rest of the process tree is being killed.
const KILL_INTERVAL: Duration = Duration::from_millis(50);
/// How long to wait for descendants that cannot be killed, such as programs that run as another user.
const KILL_DEADLINE: Duration = Duration::from_secs(30);
/// How often to try to write down the exit, a second apart, when the disk is full.
const EXIT_ATTEMPTS: u32 = 30;
/// Most commands executed at a time.
const MAX_EXECS: usize = 64;

/// A running container.
pub(crate) struct Supervisor {
    dir: ContainerDir,
    #[expect(dead_code, reason = "held until this process ends")]
    claim: Claim,
    process: Process,
    main: Pid,
    phase: Phase,
    signals: OwnedFd,
    drain: Drain,
    clients: Clients,
    execs: Vec<Execution>,
    memory: Memory,
}

#[derive(Clone, Debug)]
enum Phase {
    /// The first process runs.
    Running,
    /// It has ended; the rest of its process tree is being killed.
    Ending { exit: Exit, deadline: Instant },
    /// Nothing is left of the process tree, or nothing that can be killed.
    Over { exit: Exit },
}

/// A command executed for a client.
struct Execution {
    pid: Pid,
    client: ClientId,
    /// Whether the program runs; `None` once that is known.
    report: Option<OwnedFd>,
    has_failed: bool,
}

/// A descriptor that `poll` found ready.
enum Ready {
    Signals,
    Listener,
    Output(usize),
    Client(ClientId),
    Report(Pid),
}

/// Whether there are child processes.
#[derive(PartialEq, Eq)]
enum Children {
    Left,
    None,
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
        let mut drain = Drain::open(&process.log).map_err(|error| describe(&error))?;
        let listener = dir.bind_control().map_err(|error| describe(&error))?;
        let clients = Clients::new(listener).map_err(failed("listen"))?;
        let stdio = if process.tty { stdio::terminal() } else { stdio::pipes(stdin_of(&process)) };
        let (ours, theirs) = stdio.map_err(failed("make standard streams"))?;
        let place = Place::New(dir.path());
        let child = launch::start(&process, &process.argv, &theirs, &place).map_err(failed("fork"))?;
        drop(theirs);
        launch::wait_for_report(child.report)?;
        drain.attach(ours);
        write_state(dir, child.pid)?;
        let (dir, main) = (dir.clone(), child.pid);
        Ok(Self {
            dir,
            claim,
            process,
            main,
            phase: Phase::Running,
            signals,
            drain,
            clients,
            execs: Vec::new(),
            memory: Memory::new(Instant::now()),
        })
    }

    /// Looks after the container until it has ended, and reports how.
    pub(crate) fn run(mut self) {
        let exit = loop {
            if let Phase::Over { exit } = &self.phase {
                break exit.clone();
            }
            self.turn();
        };
        write_exit(&self.dir, &with_losses(exit, self.drain.finish()));
    }

    fn turn(&mut self) {
        if matches!(self.phase, Phase::Ending { .. }) {
            tree::kill_descendants(getpid().as_raw_nonzero().get());
        }
        let mut outputs = Vec::new();
        let mut may_reap = matches!(self.phase, Phase::Ending { .. });
        let ready = self.wait();
        self.note_activity(&ready);
        for ready in ready {
            match ready {
                Ready::Signals => {
                    self.forget_signals();
                    may_reap = true;
                }
                Ready::Listener => self.clients.accept(),
                Ready::Output(index) => outputs.push(index),
                Ready::Client(id) => self.serve(id),
                Ready::Report(pid) => self.take_report(pid),
            }
        }
        self.drain.read(&outputs);
        self.drain.flush();
        if may_reap {
            let children = self.reap();
            self.advance(&children);
        }
    }

    /// Sleeps until something happens.
    fn wait(&self) -> Vec<Ready> {
        let (ready, mut polled): (Vec<_>, Vec<_>) = self
            .sources()
            .map(|(ready, descriptor)| (ready, PollFd::from_borrowed_fd(descriptor, PollFlags::IN)))
            .unzip();
        let interval = matches!(self.phase, Phase::Ending { .. }).then_some(KILL_INTERVAL);
        let timeout = [interval, self.drain.hold(), self.memory.patience(Instant::now())]
            .into_iter()
            .flatten()
            .min()
            .map(timespec);
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

    /// Without anything to do the wait was as long as the shortest patience.
    fn note_activity(&mut self, ready: &[Ready]) {
        let now = Instant::now();
        let is_idle = ready.is_empty() && self.drain.hold().is_none() && self.memory.patience(now).is_some();
        if !ready.is_empty() {
            self.memory.touched();
        }
        if is_idle || self.memory.is_overdue(now) {
            self.memory.release(now);
        }
    }

    fn sources(&self) -> impl Iterator<Item = (Ready, BorrowedFd<'_>)> {
        let signals = std::iter::once((Ready::Signals, self.signals.as_fd()));
        let listener = self.clients.listener().map(|fd| (Ready::Listener, fd));
        let outputs = self.drain.descriptors().enumerate().map(|(index, fd)| (Ready::Output(index), fd));
        let clients = self.clients.sockets().map(|(id, fd)| (Ready::Client(id), fd));
        let reports = self
            .execs
            .iter()
            .filter_map(|exec| Some((Ready::Report(exec.pid), exec.report.as_ref()?.as_fd())));
        signals.chain(listener).chain(outputs).chain(clients).chain(reports)
    }

    /// The signal only wakes up: children are asked for one by one.
    fn forget_signals(&self) {
        let mut buffer = [0; 1024];
        while rustix::io::read(&self.signals, &mut buffer).is_ok_and(|length| length > 0) {}
    }

    fn reap(&mut self) -> Children {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.ended(pid, status),
                Ok(None) => return Children::Left,
                Err(_) => return Children::None,
            }
        }
    }

    fn ended(&mut self, pid: Pid, status: WaitStatus) {
        if pid == self.main {
            let deadline = Instant::now() + KILL_DEADLINE;
            self.phase = Phase::Ending { exit: exit_of(status), deadline };
        } else if self.execs.iter().any(|exec| exec.pid == pid) {
            self.take_report(pid);
            self.execs.retain(|exec| {
                let is_it = exec.pid == pid;
                if is_it && !exec.has_failed {
                    self.clients.answer(exec.client, &Reply::Exited(exit_of(status).exit_code));
                }
                !is_it
            });
        }
    }

    fn advance(&mut self, children: &Children) {
        let Phase::Ending { exit, deadline } = &self.phase else { return };
        if *children == Children::None {
            self.phase = Phase::Over { exit: exit.clone() };
        } else if Instant::now() >= *deadline {
            let message =
                "some processes of the container could not be killed and were left behind".to_owned();
            self.phase = Phase::Over { exit: Exit { message, ..exit.clone() } };
        }
    }

    fn serve(&mut self, id: ClientId) {
        for incoming in self.clients.receive(id) {
            if let Some(reply) = self.answer(id, incoming) {
                self.clients.answer(id, &reply);
            }
        }
        if !self.clients.is_connected(id) {
            self.kill_execs_of(id);
        }
    }

    /// The answer to a request, unless it comes later.
    fn answer(&mut self, id: ClientId, incoming: Incoming) -> Option<Reply> {
        let done = match incoming.request {
            Request::Status => Ok(self.status().to_owned()),
            Request::Signal(number) => self.signal(number).map(|()| String::new()),
            Request::Reopen => self.drain.reopen().map(|()| String::new()).map_err(|error| describe(&error)),
            Request::Exec(exec) => match self.execute(id, &exec, incoming.descriptors) {
                Ok(()) => return None,
                Err(why) => Err(why),
            },
        };
        Some(done.map_or_else(Reply::Error, Reply::Ok))
    }

    fn status(&self) -> &'static str {
        if matches!(self.phase, Phase::Running) { "running" } else { "ending" }
    }

    fn check_running(&self) -> Result<(), String> {
        if matches!(self.phase, Phase::Running) { Ok(()) } else { Err("the container has ended".to_owned()) }
    }

    /// The first process is this process' own child: its number is nobody else's before it has been waited for.
    fn signal(&self, number: i32) -> Result<(), String> {
        self.check_running()?;
        sys::kill(self.main, number).map_err(reason)
    }

    fn execute(&mut self, client: ClientId, exec: &Exec, descriptors: Vec<OwnedFd>) -> Result<(), String> {
        self.check_running()?;
        if self.execs.len() >= MAX_EXECS {
            return Err("too many commands are being executed".to_owned());
        }
        let Ok([stdout, stderr]) = <[OwnedFd; 2]>::try_from(descriptors) else {
            return Err("exec comes with the descriptors of stdout and stderr".to_owned());
        };
        let stdio = Theirs::given(stdout, stderr).map_err(reason)?;
        let place = Place::Of(self.main);
        let Child { pid, report } =
            launch::start(&self.process, &exec.argv, &stdio, &place).map_err(reason)?;
        self.execs.push(Execution { pid, client, report: Some(report), has_failed: false });
        Ok(())
    }

    /// Tells the client whether its command runs.
    fn take_report(&mut self, pid: Pid) {
        let Some(exec) = self.execs.iter_mut().find(|exec| exec.pid == pid) else { return };
        let Some(report) = exec.report.take() else { return };
        let reply = match launch::wait_for_report(report) {
            Ok(()) => Reply::Ok(String::new()),
            Err(why) => {
                exec.has_failed = true;
                Reply::Error(why)
            }
        };
        self.clients.answer(exec.client, &reply);
    }

    fn kill_execs_of(&self, client: ClientId) {
        for exec in self.execs.iter().filter(|exec| exec.client == client) {
            // It leads a process group of its own once it runs; before that there is only itself.
            let _ = kill_process_group(exec.pid, Signal::KILL);
            let _ = sys::kill(exec.pid, Signal::KILL.as_raw());
        }
    }
}

fn stdin_of(process: &Process) -> Stdin {
    if process.stdin { Stdin::Open } else { Stdin::Null }
}

fn write_state(dir: &ContainerDir, main: Pid) -> Result<(), String> {
    let process = ProcessIdentity::of(main.as_raw_nonzero().get()).ok_or("/proc is not available")?;
    dir.write_state(&State { process, started_at: Timestamp::now() }).map_err(|error| describe(&error))
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

fn with_losses(exit: Exit, lost: Option<Lost>) -> Exit {
    let Some(Lost { records, bytes, why }) = lost else { return exit };
    let text =
        format!("{bytes} bytes of output never reached the log ({records} records were dropped): {why}");
    let message =
        [exit.message, text].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ");
    Exit { message, lost_bytes: bytes, ..exit }
}
