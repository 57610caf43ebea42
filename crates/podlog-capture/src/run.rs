//! The process itself: where it belongs, and what it says to whoever started it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use podlog_container::{ContainerDir, STARTED};
use rustix::process::{chdir, setsid};

use crate::copying;
use crate::handover::{self, Errand};
use crate::stdio;
use crate::supervise::Supervisor;
use crate::sys;
use crate::text::failed;

/// What a capture process is started for, as its command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    dir: PathBuf,
    /// `None`: to start the container.
    inherited: Option<Inherited>,
}

/// What another program has left to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inherited {
    errand: Errand,
    parcel: RawFd,
}

impl Invocation {
    /// To start the container whose directory holds `config.json`.
    pub fn start(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), inherited: None }
    }

    /// Parses `--dir DIR`, and what captures say to each other behind that; `None` when it is something else.
    pub fn parse(arguments: &[OsString]) -> Option<Self> {
        match arguments {
            [flag, dir] if flag == "--dir" => Some(Self::start(dir)),
            [flag, dir, errand, parcel] if flag == "--dir" => {
                let errand = Errand::of_flag(errand)?;
                let parcel = parcel.to_str()?.parse().ok()?;
                Some(Self { dir: dir.into(), inherited: Some(Inherited { errand, parcel }) })
            }
            _ => None,
        }
    }

    /// Runs the container whose directory holds `config.json`, to its end.
    ///
    /// When its program runs, [`STARTED`] is written to stdout, and both stdout and stderr are closed. When it cannot be
    /// started, the reason is written to stderr, and to `exit.json` unless the directory belongs to another capture.
    ///
    /// The process leaves the caller's session, so that neither the end of the caller nor its terminal touches it. It must be
    /// a fresh one: without threads, and with no descriptors that it still wants; they are closed.
    pub fn run(self) -> ExitCode {
        let result = check_single_threaded().and_then(|()| match self.inherited {
            None => start(&self.dir).map(Supervisor::run),
            Some(inherited) => go_on(&ContainerDir::new(self.dir), inherited),
        });
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                let _ = writeln!(io::stderr(), "{why}");
                ExitCode::FAILURE
            }
        }
    }
}

fn start(container_dir: &Path) -> Result<Supervisor, String> {
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

/// Goes on as what another program was until now.
fn go_on(dir: &ContainerDir, Inherited { errand, parcel }: Inherited) -> Result<(), String> {
    if errand == Errand::CopyOn {
        return copying::go_on(dir, parcel);
    }
    let (state, mut parcel) = handover::open(parcel)?;
    let (supervisor, asking) = Supervisor::unpack(dir, state, &mut parcel)?;
    if errand == Errand::Trial {
        return io::stdout().write_all(handover::UNDERSTOOD).map_err(failed("say so"));
    }
    supervisor.begin(asking, first_words()).map(Supervisor::run)
}

/// This program's command line before its flags.
fn first_words() -> Vec<String> {
    let words = std::env::args_os().take_while(|word| word != OsStr::new("--dir"));
    words.filter_map(|word| word.into_string().ok()).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_what_captures_are_told_is_understood() {
        let parse = |line: &str| Invocation::parse(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        let inherited = |errand| Some(Inherited { errand, parcel: 7 });
        for (line, expected) in [
            ("--dir d", Some(None)),
            ("--dir d --trial 7", Some(inherited(Errand::Trial))),
            ("--dir d --take-over 7", Some(inherited(Errand::TakeOver))),
            ("--dir d --copy-on 7", Some(inherited(Errand::CopyOn))),
            ("--dir d --copy-on seven", None),
            ("--dir d --copy-on", None),
            ("--dir d --start 7", None),
            ("--help", None),
            ("d", None),
        ] {
            let expected = expected.map(|inherited| Invocation { dir: "d".into(), inherited });
            assert_eq!(parse(line), expected, "{line}");
        }
    }
}
