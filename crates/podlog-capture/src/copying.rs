//! The copier as a process: its start, and what becomes of it when its work is over.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use podlog_container::{Claim, ContainerDir};
use rustix::process::{Pid, getppid};
use serde::{Deserialize, Serialize};

use crate::copier::{self, End, Line, Renewal, Report};
use crate::drain::describe;
use crate::handover::{self, Errand, Handed, Parcel};
use crate::plumbing::{Pipes, Plumbing};
use crate::stdio;
use crate::supervise::{Home, Supervisor};
use crate::sys::{self, Fork};
use crate::text::failed;

/// The process that does the log work, as its monitor knows it.
pub(crate) struct Copier {
    pub(crate) pid: Pid,
    pub(crate) line: Line,
}

impl Copier {
    /// Starts one.
    pub(crate) fn start(home: &Home, plumbing: &Plumbing) -> io::Result<Self> {
        let (line, theirs) = Line::new()?;
        match sys::fork()? {
            Fork::Parent(pid) => Ok(Self { pid, line }),
            Fork::Child => {
                let mut kept = plumbing.descriptors();
                kept.extend([theirs.as_fd().as_raw_fd(), home.claim.as_fd().as_raw_fd()]);
                sys::close_others(kept);
                let _ = stdio::silence();
                copy(home, plumbing, &theirs);
                sys::exit_child(0)
            }
        }
    }

    /// # Errors
    /// Why it cannot begin.
    pub(crate) fn wait_until_ready(&self) -> Result<(), String> {
        match self.line.wait_for_report() {
            Some(Report::Failed(why)) => Err(why),
            Some(_) => Ok(()),
            None => Err("the copier ended at once".to_owned()),
        }
    }
}

/// The life of a copier, which may become a monitor's.
pub(crate) fn copy(home: &Home, plumbing: &Plumbing, line: &Line) {
    let _ = rustix::thread::set_name(c"podlog-copier");
    let end = loop {
        match copier::run(plumbing, line) {
            // When it cannot be another program it goes on as this one, and nobody is the worse for it.
            End::Renewed(renewal) => drop(renew(home, plumbing, line, &renewal)),
            end => break end,
        }
    };
    match end {
        End::Failed | End::Renewed(_) => return,
        End::Finished(_) => {
            line.wait_for_end();
            if home.dir.exit().is_ok_and(|exit| exit.is_some()) {
                return;
            }
        }
        End::Orphaned => {}
    }
    let succeed = || {
        let plumbing = plumbing.hand_over().map_err(failed("take over pipes"))?;
        Supervisor::succeed(home.try_clone().map_err(failed("take over claim"))?, plumbing)
    };
    match succeed() {
        Ok(supervisor) => supervisor.run(),
        // There is nothing to look after, or no way to do it; but what was printed is kept.
        Err(_) => copier::finish(plumbing),
    }
}

/// What a copier hands to the program that it becomes.
#[derive(Debug, Serialize, Deserialize)]
struct CopierState {
    claim: Handed,
    line: Handed,
    pipes: Pipes,
}

/// Becomes the program that its monitor has become. Returns only when that cannot be done.
fn renew(home: &Home, plumbing: &Plumbing, line: &Line, renewal: &Renewal) -> Result<(), String> {
    let mut parcel = Parcel::default();
    let state = CopierState {
        claim: parcel.put(&home.claim),
        line: parcel.put(line),
        pipes: plumbing.pack(&mut parcel),
    };
    let packed = parcel.close(&state).map_err(failed("pack"))?;
    let program = std::fs::File::open(format!("/proc/{}/exe", renewal.monitor)).map_err(failed("open"))?;
    // As long as it is the parent its number is nobody else's.
    if getppid().is_none_or(|parent| parent.as_raw_nonzero().get() != renewal.monitor) {
        return Err("the monitor has ended".to_owned());
    }
    Err(handover::become_program(&program, &renewal.argv, home.dir.path(), Errand::CopyOn, &packed))
}

/// Goes on as the copier that another program was.
///
/// # Errors
/// When what it has left is not understood. Then its monitor starts another one.
pub(crate) fn go_on(dir: &ContainerDir, parcel: RawFd) -> Result<(), String> {
    let (state, mut parcel) = handover::open::<CopierState>(parcel)?;
    let process = dir.config().map_err(|error| describe(&error))?.process;
    let plumbing = Plumbing::unpack(state.pipes, &mut parcel, process.log.clone())?;
    let line = Line::from(parcel.take(state.line)?);
    let claim = Claim::from(parcel.take(state.claim)?);
    handover::has_arrived();
    copy(&Home { dir: dir.clone(), claim, process }, &plumbing, &line);
    Ok(())
}
