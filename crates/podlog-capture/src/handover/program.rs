//! Becoming another program.

use std::ffi::{CString, OsStr};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitOptions, getpid, waitpid};
use rustix::stdio::{dup2_stderr, dup2_stdout};

use super::{Errand, Packed};
use crate::drain::timespec;
use crate::launch::die_with;
use crate::sys::{self, Fork};
use crate::text::{failed, reason};

/// How long a new program may take to be where the old one was. The kernel ends one that takes longer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Longest text of a program that says why not, in bytes.
const MAX_REPORT: u64 = 4000;
/// What a program says that has understood its parcel.
pub(crate) const UNDERSTOOD: &[u8] = b"understood\n";

/// Has a program look into the parcel, beside this process, which waits for it.
///
/// # Errors
/// Why it cannot go on here, in its own words if it had some.
pub(crate) fn try_program(
    program: &OwnedFd,
    argv: &[String],
    dir: &Path,
    packed: &Packed,
) -> Result<(), String> {
    let (report, reporter) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("pipe"))?;
    let monitor = getpid();
    let pid = match sys::fork().map_err(failed("fork"))? {
        Fork::Parent(pid) => pid,
        Fork::Child => {
            // It has the monitor's end of the line to the copier, which is not to believe in a monitor that is dead.
            if die_with(monitor).is_err() {
                sys::exit_child(1);
            }
            let _ = dup2_stdout(&reporter).and_then(|()| dup2_stderr(&reporter));
            let why = become_program(program, argv, dir, Errand::Trial, packed);
            let _ = rustix::io::write(&reporter, why.as_bytes());
            sys::exit_child(1)
        }
    };
    drop(reporter);
    let said = read_until(report, Instant::now() + DEADLINE);
    if said.is_none() {
        let _ = sys::kill(pid, Signal::KILL.as_raw());
    }
    let status = waitpid(Some(pid), WaitOptions::empty()).map_err(failed("wait"))?;
    let is_success = status.is_some_and(|(_, status)| status.exit_status() == Some(0));
    let is_late = status.is_some_and(|(_, status)| status.terminating_signal() == Some(libc::SIGALRM));
    match said.filter(|_| !is_late) {
        None => Err(format!("the new program says nothing within {DEADLINE:?}")),
        Some(said) if is_success && said == UNDERSTOOD => Ok(()),
        Some(said) => Err(format!("the new program refuses: {}", String::from_utf8_lossy(&said).trim())),
    }
}

/// All that is said until the end; `None` when that does not come in time.
fn read_until(report: OwnedFd, deadline: Instant) -> Option<Vec<u8>> {
    let mut said = Vec::new();
    let mut report = std::fs::File::from(report).take(MAX_REPORT);
    let mut chunk = [0; 1024];
    loop {
        let rest = timespec(deadline.checked_duration_since(Instant::now())?);
        let mut polled = [PollFd::new(report.get_ref(), PollFlags::IN)];
        if poll(&mut polled, Some(&rest)).is_ok_and(|ready| ready > 0) {
            match report.read(&mut chunk) {
                Ok(0) | Err(_) => return Some(said),
                Ok(length) => said.extend_from_slice(&chunk[..length]),
            }
        }
    }
}

/// Becomes another program, with the words `argv` and what is packed. Returns, with the reason, only when that cannot be done;
/// then everything is as it was.
pub(crate) fn become_program(
    program: &impl AsFd,
    argv: &[String],
    dir: &Path,
    errand: Errand,
    packed: &Packed,
) -> String {
    let number = packed.number().to_string();
    let words = argv.iter().map(|word| word.as_bytes().to_vec());
    let rest = [OsStr::new("--dir"), dir.as_os_str(), OsStr::new(errand.flag()), OsStr::new(&number)];
    let words = words.chain(rest.map(|word| word.as_bytes().to_vec()));
    let env = std::env::vars_os().map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='));
    let strings = |words: &mut dyn Iterator<Item = Vec<u8>>| {
        words.map(CString::new).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())
    };
    let (argv, env) = match (strings(&mut words.into_iter()), strings(&mut env.into_iter())) {
        (Ok(argv), Ok(env)) => (argv, env),
        (Err(why), _) | (_, Err(why)) => return why,
    };
    let inherited: Vec<_> = packed.numbers().chain([program.as_fd().as_raw_fd()]).collect();
    let set = |inheritance| inherited.iter().for_each(|number| sys::set_inheritance(*number, inheritance));
    set(sys::Inheritance::Inherited);
    sys::end_after(Some(DEADLINE));
    let error = sys::exec_open(program, &argv, &env);
    sys::end_after(None);
    set(sys::Inheritance::Closed);
    reason(error)
}

/// The new program is where the old one was.
pub(crate) fn has_arrived() {
    sys::end_after(None);
}
