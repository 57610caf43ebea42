//! The process itself: where it belongs, and what it says to whoever started it.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use podlog_container::{ContainerDir, STARTED};
use rustix::process::{chdir, setsid};

use crate::stdio;
use crate::supervise::Supervisor;
use crate::sys;
use crate::text::failed;

/// Runs the container whose directory holds `config.json`, to its end.
///
/// When its program runs, [`STARTED`] is written to stdout, and both stdout and stderr are closed. When it cannot be
/// started, the reason is written to stderr, and to `exit.json` unless the directory belongs to another capture.
///
/// The process leaves the caller's session, so that neither the end of the caller nor its terminal touches it. It must be
/// a fresh one: without threads, and with no descriptors that it still wants; they are closed.
pub fn run(container_dir: &Path) -> ExitCode {
    match start(container_dir) {
        Ok(supervisor) => {
            supervisor.run();
            ExitCode::SUCCESS
        }
        Err(why) => {
            let _ = writeln!(io::stderr(), "{why}");
            ExitCode::FAILURE
        }
    }
}

fn start(container_dir: &Path) -> Result<Supervisor, String> {
    check_single_threaded()?;
    sys::close_others(Vec::new());
    // It stays valid after the change of directory.
    let path = container_dir.canonicalize().map_err(failed(container_dir.display()))?;
    chdir("/").map_err(failed("chdir"))?;
    // The leader of a process group cannot leave; then somebody started it by hand, and it stays where it is.
    let _ = setsid();
    let supervisor = Supervisor::start(&ContainerDir::new(path))?;
    // The caller may be gone; the container runs all the same.
    let _ = io::stdout().write_all(STARTED).and_then(|()| io::stdout().flush());
    let _ = stdio::silence();
    Ok(supervisor)
}

/// Programs are started by forking, and a child would lack the other threads and have whatever they have locked.
fn check_single_threaded() -> Result<(), String> {
    let threads = fs::read_dir("/proc/self/task").map_err(failed("/proc/self/task"))?.count();
    if threads == 1 {
        Ok(())
    } else {
        Err(format!("capture must not be started from a process with {threads} threads"))
    }
}
