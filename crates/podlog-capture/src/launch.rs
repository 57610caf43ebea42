//! Starting programs: the container's own, and commands that join it later.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use podlog_container::Process;
use rustix::fs::Mode;
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

/// What the container's first process says when nothing but its program is missing. No error text begins so.
const READY: u8 = 0;

/// Which view a program gets.
enum Place<'a> {
    /// A new one, put together at a directory that may be mounted over.
    New(&'a Path),
    /// That of another process, for no longer than capture, which is this one, lives.
    Of { member: Pid, capture: Pid },
}

/// The container's first process, before it becomes the program. It ends when this is dropped, so also with capture: no program
/// runs of which nobody knows.
pub(crate) struct Starting {
    /// Process id.
    pub(crate) pid: Pid,
    /// What it says comes out here; what it waits for goes in.
    line: UnixStream,
}

/// A command on its way to become a program.
pub(crate) struct Child {
    /// Process id.
    pub(crate) pid: Pid,
    /// Ends without a word when the program runs; holds the reason when it cannot be started.
    pub(crate) report: OwnedFd,
}

/// Forks the container's first process.
pub(crate) fn start(process: &Process, stdio: &Theirs, staging: &Path) -> io::Result<Starting> {
    let (line, mut theirs) = UnixStream::pair()?;
    match sys::fork()? {
        Fork::Parent(pid) => Ok(Starting { pid, line }),
        Fork::Child => {
            drop(line);
            let mut wait = || theirs.write_all(&[READY]).and_then(|()| theirs.read_exact(&mut [0]));
            let Err(why) = prepare(process, &process.argv, stdio, &Place::New(staging))
                .and_then(|image| wait().map_err(failed("wait for capture")).map(|()| image))
                .and_then(Image::run);
            give_up(theirs, why)
        }
    }
}

/// Forks a process that becomes `argv` in the view of another one, with everything else as in `process`.
pub(crate) fn join(process: &Process, argv: &[String], stdio: &Theirs, member: Pid) -> io::Result<Child> {
    let (report, reporter) = io::pipe()?;
    let capture = getpid();
    match sys::fork()? {
        Fork::Parent(pid) => Ok(Child { pid, report: report.into() }),
        Fork::Child => {
            drop(report);
            let Err(why) = prepare(process, argv, stdio, &Place::Of { member, capture }).and_then(Image::run);
            give_up(reporter, why)
        }
    }
}

fn give_up(mut reporter: impl Write, mut why: String) -> ! {
    why.truncate(why.floor_char_boundary(MAX_REPORT));
    let _ = reporter.write_all(why.as_bytes());
    sys::exit_child(127)
}

impl Starting {
    /// Waits until nothing but the program is missing.
    ///
    /// # Errors
    /// What else is.
    pub(crate) fn wait_until_ready(&self) -> Result<(), String> {
        let mut said = Vec::new();
        (&self.line).take(1).read_to_end(&mut said).map_err(failed("read report"))?;
        match said[..] {
            [READY] => Ok(()),
            [] => Err("its process ended before it could become the program".to_owned()),
            _ => {
                (&self.line).read_to_end(&mut said).map_err(failed("read report"))?;
                Err(String::from_utf8_lossy(&said).into_owned())
            }
        }
    }

    /// Lets it become the program, and waits until it is.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) fn let_go(mut self) -> Result<(), String> {
        self.line.write_all(&[0]).map_err(failed("let the program begin"))?;
        wait_for_report(self.line.into())
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

/// Gives this process everything that its program is to have.
fn prepare(process: &Process, argv: &[String], stdio: &Theirs, place: &Place<'_>) -> Result<Image, String> {
    setsid().map_err(failed("setsid"))?;
    stdio.install().map_err(failed("set up standard streams"))?;
    let privilege = match place {
        Place::New(staging) => view::enter(process, staging)?,
        Place::Of { member, .. } => view::join(*member)?,
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
    if let Place::Of { capture, .. } = place {
        die_with(*capture)?;
    }
    let mut environment = environment(process, &identity);
    if stdio.is_terminal() {
        environment.entry("TERM").or_insert("xterm");
    }
    Image::find(&environment, argv)
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

/// A program and what it is given.
struct Image {
    path: PathBuf,
    file: CString,
    argv: Vec<CString>,
    env: Vec<CString>,
}

impl Image {
    fn find(environment: &BTreeMap<&str, &str>, argv: &[String]) -> Result<Self, String> {
        let name = argv.first().ok_or("no command specified")?;
        let path = program::find(name, environment.get("PATH").copied().unwrap_or_default())?;
        let c_string =
            |text: &[u8]| CString::new(text).map_err(|_| format!("exec: {name:?}: invalid argument"));
        let file = c_string(path.as_os_str().as_bytes())?;
        let argv = argv.iter().map(|argument| c_string(argument.as_bytes())).collect::<Result<_, _>>()?;
        let env = environment.iter().map(|(name, value)| c_string(format!("{name}={value}").as_bytes()));
        let env = env.collect::<Result<_, _>>()?;
        Ok(Self { path, file, argv, env })
    }

    /// Becomes it.
    fn run(self) -> Result<Never, String> {
        sys::close_others_on_exec();
        sys::reset_signals().map_err(failed("reset signals"))?;
        let Self { path, file, argv, env } = self;
        Err(format!("exec {}: {}", path.display(), reason(sys::exec(&file, &argv, &env))))
    }
}
