//! From the process that was started to the one that stays.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use podlog_container::ContainerDir;
use rustix::process::{chdir, setsid};

use crate::stdio;
use crate::supervise::Supervisor;
use crate::sys::{self, Fork};
use crate::text::failed;

/// What the process that stays says when the container's program runs.
const STARTED: &str = "started";

/// Starts the container whose directory holds `config.json`, and leaves a process behind that looks after it. Returns
/// when the program runs, or when it cannot be started, which is then on stderr and, unless the directory could not be
/// claimed, in `exit.json`.
///
/// The process left behind is in a session of its own, so that neither the end of the caller nor its terminal touches it.
/// The calling process must not have threads.
pub fn run(container_dir: &Path) -> ExitCode {
    match start(container_dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(io::stderr(), "{why}");
            ExitCode::FAILURE
        }
    }
}

fn start(container_dir: &Path) -> Result<(), String> {
    check_single_threaded()?;
    // It stays valid after the change of directory.
    let path = container_dir.canonicalize().map_err(failed(container_dir.display()))?;
    let (mut report, reporter) = io::pipe().map_err(failed("pipe"))?;
    match sys::fork().map_err(failed("fork"))? {
        Fork::Child => {
            drop(report);
            stay(&ContainerDir::new(path), File::from(std::os::fd::OwnedFd::from(reporter)));
            sys::exit_child(0)
        }
        Fork::Parent(_) => {
            drop(reporter);
            let mut text = String::new();
            report.read_to_string(&mut text).map_err(failed("read report"))?;
            match text.as_str() {
                STARTED => Ok(()),
                "" => Err("capture ended while it was starting".to_owned()),
                why => Err(why.to_owned()),
            }
        }
    }
}

/// The process that stays is a copy of this one, without its other threads and whatever they have locked.
fn check_single_threaded() -> Result<(), String> {
    let threads = fs::read_dir("/proc/self/task").map_err(failed("/proc/self/task"))?.count();
    if threads == 1 {
        Ok(())
    } else {
        Err(format!("capture must not be started from a process with {threads} threads"))
    }
}

fn stay(dir: &ContainerDir, mut reporter: File) {
    let started = settle().map_err(failed("detach")).and_then(|()| Supervisor::start(dir));
    let text = started.as_ref().map_or_else(String::as_str, |_| STARTED);
    // The caller may be gone; the container runs all the same.
    let _ = reporter.write_all(text.as_bytes());
    drop(reporter);
    if let Ok(supervisor) = started {
        supervisor.run();
    }
}

/// Depends on nothing of the caller any more.
fn settle() -> io::Result<()> {
    setsid()?;
    stdio::silence()?;
    Ok(chdir("/")?)
}
