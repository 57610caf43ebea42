//! Commands that join a container for a while.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use podlog_container::Process;
use podlog_container::control::{Exec, Reply};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

use crate::clients::ClientId;
use crate::handover::{Handed, Parcel, Unpacked};
use crate::launch::{self, Child};
use crate::stdio::Theirs;
use crate::sys;
use crate::text::reason;

/// Most commands executed at a time: fewer than connections, as each has one, and others must get through.
const MAX_EXECS: usize = 48;

/// The commands that run.
#[derive(Default)]
pub(super) struct Execs(Vec<Execution>);

/// A command executed for a client.
struct Execution {
    pid: Pid,
    client: ClientId,
    /// Whether the program runs; `None` once that is known.
    report: Option<OwnedFd>,
    has_failed: bool,
}

/// A command in a parcel.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ExecState {
    pid: i32,
    client: ClientId,
    report: Option<Handed>,
    has_failed: bool,
}

impl Execs {
    /// Starts a command in the view of `member`, whose standard streams are the descriptors that came with it.
    ///
    /// # Errors
    /// Why it is not begun.
    pub(super) fn start(
        &mut self,
        client: ClientId,
        process: &Process,
        exec: &Exec,
        member: Pid,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), String> {
        if self.0.len() >= MAX_EXECS {
            return Err("too many commands are being executed".to_owned());
        }
        let stdio = Theirs::given(exec.stdio, descriptors)?;
        let Child { pid, report } = launch::join(process, &exec.argv, &stdio, member).map_err(reason)?;
        self.0.push(Execution { pid, client, report: Some(report), has_failed: false });
        Ok(())
    }

    /// Those of which it is not known whether they run.
    pub(super) fn reports(&self) -> impl Iterator<Item = (Pid, BorrowedFd<'_>)> {
        self.0.iter().filter_map(|exec| Some((exec.pid, exec.report.as_ref()?.as_fd())))
    }

    /// What its client is to be told about whether a command runs, unless it was told.
    pub(super) fn report(&mut self, pid: Pid) -> Option<(ClientId, Reply)> {
        let exec = self.0.iter_mut().find(|exec| exec.pid == pid)?;
        let reply = match launch::wait_for_report(exec.report.take()?) {
            Ok(()) => Reply::Ok(String::new()),
            Err(why) => {
                exec.has_failed = true;
                Reply::Error(why)
            }
        };
        Some((exec.client, reply))
    }

    /// A process has ended. Returns the client of the command that it was, if that ever ran.
    pub(super) fn ended(&mut self, pid: Pid) -> Option<ClientId> {
        let place = self.0.iter().position(|exec| exec.pid == pid)?;
        let exec = self.0.remove(place);
        (!exec.has_failed).then_some(exec.client)
    }

    /// Nobody waits for these any more.
    pub(super) fn kill_all_of(&self, client: ClientId) {
        for exec in self.0.iter().filter(|exec| exec.client == client) {
            // It leads a process group of its own once it runs; before that there is only itself.
            let _ = kill_process_group(exec.pid, Signal::KILL);
            let _ = sys::kill(exec.pid, Signal::KILL.as_raw());
        }
    }

    pub(super) fn pack(&self, parcel: &mut Parcel) -> Vec<ExecState> {
        let pack = |exec: &Execution| ExecState {
            pid: exec.pid.as_raw_nonzero().get(),
            client: exec.client,
            report: exec.report.as_ref().map(|report| parcel.put(report)),
            has_failed: exec.has_failed,
        };
        self.0.iter().map(pack).collect()
    }

    /// # Errors
    /// When something is missing.
    pub(super) fn unpack(states: Vec<ExecState>, parcel: &mut Unpacked) -> Result<Self, String> {
        let unpack = |state: ExecState| {
            let ExecState { pid, client, report, has_failed } = state;
            let pid = Pid::from_raw(pid).ok_or("no process id")?;
            Ok(Execution { pid, client, report: parcel.take_some(report)?, has_failed })
        };
        states.into_iter().map(unpack).collect::<Result<_, String>>().map(Self)
    }
}
