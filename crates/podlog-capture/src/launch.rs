//! Starting programs: the container's own, and commands that join it later.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use podlog_container::Process;
use rustix::fs::Mode;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, chdir, getpid, getppid, set_parent_process_death_signal, setsid, umask};
use rustix::thread::set_no_new_privs;

use crate::stdio::Theirs;
use crate::sys::{self, Fork, Never};
use crate::text::{failed, reason};
use crate::user::Identity;
use crate::{program, view};

/// Longest error text a child can report, in bytes: below what a pipe takes in one piece.
const MAX_REPORT: usize = 4000;
const DEFAULT_UMASK: u32 = 0o022;

/// Which view a program gets.
pub(crate) enum Place<'a> {
    /// A new one, put together at a directory that may be mounted over.
    New(&'a Path),
    /// That of another process.
    Of(Pid),
}

/// A process on its way to become a program.
pub(crate) struct Child {
    /// Process id.
    pub(crate) pid: Pid,
    /// Ends without a word when the program runs; holds the reason when it cannot be started.
    pub(crate) report: OwnedFd,
}

/// Forks a process that becomes `argv`, with everything else as in `process`.
pub(crate) fn start(
    process: &Process,
    argv: &[String],
    stdio: &Theirs,
    place: &Place<'_>,
) -> io::Result<Child> {
    let (report, reporter) = pipe_with(PipeFlags::CLOEXEC)?;
    let capture = getpid();
    match sys::fork()? {
        Fork::Parent(pid) => Ok(Child { pid, report }),
        Fork::Child => {
            drop(report);
            let Err(mut why) = become_program(process, argv, stdio, place, capture);
            why.truncate(why.floor_char_boundary(MAX_REPORT));
            let _ = std::fs::File::from(reporter).write_all(why.as_bytes());
            sys::exit_child(127)
        }
    }
}

/// Waits until the program runs.
///
/// # Errors
/// Why it does not.
pub(crate) fn wait_for_report(report: OwnedFd) -> Result<(), String> {
    let mut why = String::new();
    std::fs::File::from(report).read_to_string(&mut why).map_err(failed("read report"))?;
    if why.is_empty() { Ok(()) } else { Err(why) }
}

fn become_program(
    process: &Process,
    argv: &[String],
    stdio: &Theirs,
    place: &Place<'_>,
    capture: Pid,
) -> Result<Never, String> {
    setsid().map_err(failed("setsid"))?;
    stdio.install().map_err(failed("set up standard streams"))?;
    let privilege = match place {
        Place::New(staging) => view::enter(process, staging)?,
        Place::Of(pid) => view::join(*pid)?,
    };
    umask(Mode::from_raw_mode(process.umask.unwrap_or(DEFAULT_UMASK)));
    let identity = Identity::resolve(&process.user);
    let early = enter_cwd(process);
    identity.assume(privilege)?;
    // Some directories only root may enter, some only the user.
    early.or_else(|_| enter_cwd(process))?;
    if process.no_new_privileges {
        set_no_new_privs(true).map_err(failed("set no_new_privs"))?;
    }
    if let Place::Of(_) = place {
        die_with(capture)?;
    }
    let mut environment = environment(process, &identity);
    if stdio.is_terminal() {
        environment.entry("TERM").or_insert("xterm");
    }
    exec(&environment, argv)
}

fn enter_cwd(process: &Process) -> Result<(), String> {
    let cwd = process.cwd.as_deref().unwrap_or(Path::new("/"));
    chdir(cwd).map_err(failed(format!("chdir to cwd ({:?}) failed", cwd.display())))
}

/// Has the kernel kill this process when its parent, `capture`, ends: nobody waits for a command then. The container's own
/// program goes on: its copier becomes the next monitor.
///
/// # Errors
/// When the parent has ended already.
pub(crate) fn die_with(capture: Pid) -> Result<(), String> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("set parent death signal"))?;
    if getppid() == Some(capture) { Ok(()) } else { Err("capture has ended".to_owned()) }
}

fn environment<'a>(process: &'a Process, identity: &'a Identity) -> BTreeMap<&'a str, &'a str> {
    let home = [("HOME", identity.home.as_str())];
    home.into_iter().chain(process.env.iter().map(|var| (var.name.as_str(), var.value.as_str()))).collect()
}

fn exec(environment: &BTreeMap<&str, &str>, argv: &[String]) -> Result<Never, String> {
    let name = argv.first().ok_or("no command specified")?;
    let path = program::find(name, environment.get("PATH").copied().unwrap_or_default())?;
    let c_string = |text: &[u8]| CString::new(text).map_err(|_| format!("exec: {name:?}: invalid argument"));
    let file = c_string(path.as_os_str().as_bytes())?;
    let argv = argv.iter().map(|argument| c_string(argument.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let env = environment.iter().map(|(name, value)| c_string(format!("{name}={value}").as_bytes()));
    let env = env.collect::<Result<Vec<_>, _>>()?;
    sys::close_others_on_exec();
    sys::reset_signals().map_err(failed("reset signals"))?;
    Err(format!("exec {}: {}", path.display(), reason(sys::exec(&file, &argv, &env))))
}
