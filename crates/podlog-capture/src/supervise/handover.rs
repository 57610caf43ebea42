//! The monitor becomes another program, and goes on as one.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::time::Instant;

use podlog_container::control::Reply;
use podlog_container::{Claim, ContainerDir};
use rustix::process::{Pid, getpid, set_child_subreaper};
use serde::{Deserialize, Serialize};

use super::execs::{ExecState, Execs};
use super::{Home, Main, Phase, Supervisor};
use crate::clients::{ClientId, Clients, ClientsState};
use crate::copier::{Line, Order, Renewal};
use crate::copying::Copier;
use crate::drain::describe;
use crate::handover::{self, Errand, Handed, Packed, Parcel, Unpacked};
use crate::memory::Memory;
use crate::plumbing::{Pipes, Plumbing};
use crate::respawn::Respawn;
use crate::sys;
use crate::text::failed;

/// What a monitor leaves to the next program. The container runs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MonitorState {
    claim: Handed,
    pipes: Pipes,
    main: i32,
    adopted: Option<Handed>,
    /// Process id, and the line to it.
    copier: Option<(i32, Handed)>,
    clients: ClientsState,
    /// Who asked for the other program.
    asking: ClientId,
    reopening: VecDeque<ClientId>,
    execs: Vec<ExecState>,
    /// Builds of before hand no stdin to anybody.
    #[serde(default)]
    speakers: BTreeSet<ClientId>,
}

impl Supervisor {
    /// Becomes another program. Returns only when that cannot be done, and why; then everything is as it was.
    pub(super) fn hand_over(
        &mut self,
        asking: ClientId,
        argv: &[String],
        descriptors: Vec<OwnedFd>,
    ) -> String {
        match self.try_to_hand_over(asking, argv, descriptors) {
            Ok(why) | Err(why) => why,
        }
    }

    fn try_to_hand_over(
        &mut self,
        asking: ClientId,
        argv: &[String],
        descriptors: Vec<OwnedFd>,
    ) -> Result<String, String> {
        self.check_running()?;
        let Ok([program]) = <[OwnedFd; 1]>::try_from(descriptors) else {
            return Err("hand-over comes with the descriptor of a program".to_owned());
        };
        let packed = self.pack(asking).map_err(failed("pack"))?;
        let dir = self.home.dir.path();
        handover::try_program(&program, argv, dir, &packed)?;
        Ok(handover::become_program(&program, argv, dir, Errand::TakeOver, &packed))
    }

    fn pack(&self, asking: ClientId) -> std::io::Result<Packed> {
        let mut parcel = Parcel::default();
        let number = |pid: Pid| pid.as_raw_nonzero().get();
        let state = MonitorState {
            claim: parcel.put(&self.home.claim),
            pipes: self.plumbing.pack(&mut parcel),
            main: number(self.main.pid),
            adopted: self.main.adopted.as_ref().map(|descriptor| parcel.put(descriptor)),
            copier: self.copier.as_ref().map(|copier| (number(copier.pid), parcel.put(&copier.line))),
            clients: self.clients.pack(&mut parcel),
            asking,
            reopening: self.reopening.clone(),
            execs: self.execs.pack(&mut parcel),
            speakers: self.speakers.clone(),
        };
        parcel.close(&state)
    }

    /// Is what another program was. Nothing is changed by that.
    ///
    /// # Errors
    /// When what it has left is not understood.
    pub(crate) fn unpack(
        dir: &ContainerDir,
        state: MonitorState,
        parcel: &mut Unpacked,
    ) -> Result<(Self, ClientId), String> {
        let process = dir.config().map_err(|error| describe(&error))?.process;
        let main = Pid::from_raw(state.main).ok_or("no process id")?;
        let plumbing = Plumbing::unpack(state.pipes, parcel, process.log.clone())?;
        let copier = |(pid, line): (i32, Handed)| {
            let pid = Pid::from_raw(pid).ok_or("no process id")?;
            Ok::<_, String>(Copier { pid, line: Line::from(parcel.take(line)?) })
        };
        let copier = state.copier.map(copier).transpose()?;
        let supervisor = Self {
            home: Home { dir: dir.clone(), claim: Claim::from(parcel.take(state.claim)?), process },
            main: Main { pid: main, adopted: parcel.take_some(state.adopted)? },
            phase: Phase::Running,
            signals: sys::block_signals().map_err(failed("block signals"))?,
            plumbing,
            copier,
            respawn: Respawn::new(Instant::now()),
            failures: 0,
            clients: Clients::unpack(state.clients, parcel)?,
            reopening: state.reopening,
            execs: Execs::unpack(state.execs, parcel)?,
            speakers: state.speakers,
            memory: Memory::new(Instant::now()),
            vigil: None,
        };
        Ok((supervisor, state.asking))
    }

    /// Begins as the new program: who asked for it is told, and the copier is to become the same. `argv` are this program's
    /// first words.
    ///
    /// # Errors
    /// When it cannot be the parent of what the container leaves behind.
    pub(crate) fn begin(mut self, asking: ClientId, argv: Vec<String>) -> Result<Self, String> {
        set_child_subreaper(Some(getpid())).map_err(failed("become subreaper"))?;
        handover::has_arrived();
        if let Some(copier) = &self.copier {
            let monitor = getpid().as_raw_nonzero().get();
            copier.line.order(&Order::Renew(Renewal { monitor, argv }));
        }
        // Who has ended meanwhile has sent its signal to the program before this one, perhaps.
        self.reap();
        self.clients.answer(asking, &Reply::Ok(String::new()));
        Ok(self)
    }
}
