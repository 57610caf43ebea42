//! The three standard descriptors of a program and their other ends.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use podlog_container::control::Stdio;
use rustix::io::ioctl_fionbio;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::text::reason;

/// Pipe sizes to ask for, in bytes; users without privileges get less when they have many pipes. A larger pipe lets the
/// program write on while capture waits for the disk, and capture read more at once.
const PIPE_SIZES: [usize; 3] = [1 << 20, 1 << 18, 1 << 16];

/// Capture's ends.
pub(crate) struct Ours {
    /// What the program writes to stdout, or to its terminal, whose reading does not block.
    pub(crate) stdout: OwnedFd,
    /// What it writes to stderr; `None` with a terminal.
    pub(crate) stderr: Option<OwnedFd>,
    /// Held so that the program sees no end: the other end of its stdin, or its terminal.
    pub(crate) held: Option<OwnedFd>,
}

/// The program's ends.
pub(crate) struct Theirs {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    is_terminal: bool,
}

/// Whether stdin stays open without ever saying anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stdin {
    Null,
    Open,
}

/// Makes two pipes.
pub(crate) fn pipes(stdin: Stdin) -> io::Result<(Ours, Theirs)> {
    let (our_stdout, stdout) = output_pipe()?;
    let (our_stderr, stderr) = output_pipe()?;
    let (stdin, held) = match stdin {
        Stdin::Null => (null()?, None),
        Stdin::Open => pipe_with(PipeFlags::CLOEXEC).map(|(reader, writer)| (reader, Some(writer)))?,
    };
    let ours = Ours { stdout: our_stdout, stderr: Some(our_stderr), held };
    Ok((ours, Theirs { stdin, stdout, stderr, is_terminal: false }))
}

/// Makes a terminal.
pub(crate) fn terminal() -> io::Result<(Ours, Theirs)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let terminal = ioctl_tiocgptpeer(&master, flags)?;
    ioctl_fionbio(&master, true)?;
    let ours = Ours { stdout: master, stderr: None, held: Some(terminal.try_clone()?) };
    let (stdin, stdout) = (terminal.try_clone()?, terminal.try_clone()?);
    Ok((ours, Theirs { stdin, stdout, stderr: terminal, is_terminal: true }))
}

impl Theirs {
    /// What the caller says.
    ///
    /// # Errors
    /// When it is not as many descriptors as are needed, or no terminal.
    pub(crate) fn given(stdio: Stdio, descriptors: Vec<OwnedFd>) -> Result<Self, String> {
        let mut given = descriptors.into_iter();
        let mut take = || given.next().ok_or("exec comes with the descriptors of its standard streams");
        let theirs = match stdio {
            Stdio::Output => {
                Self { stdin: null().map_err(reason)?, stdout: take()?, stderr: take()?, is_terminal: false }
            }
            Stdio::All => Self { stdin: take()?, stdout: take()?, stderr: take()?, is_terminal: false },
            Stdio::Terminal => {
                let terminal = take()?;
                let again = || terminal.try_clone().map_err(reason);
                Self { stdin: again()?, stdout: again()?, stderr: terminal, is_terminal: true }
            }
        };
        if given.next().is_some() {
            Err("exec comes with too many descriptors".to_owned())
        } else {
            Ok(theirs)
        }
    }

    /// Whether they are a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Makes them the standard descriptors of this process, which leads a session.
    pub(crate) fn install(&self) -> io::Result<()> {
        if self.is_terminal {
            ioctl_tiocsctty(&self.stdin)?;
        }
        dup2_stdin(&self.stdin)?;
        dup2_stdout(&self.stdout)?;
        Ok(dup2_stderr(&self.stderr)?)
    }
}

/// Lets go of the standard descriptors of capture itself.
pub(crate) fn silence() -> io::Result<()> {
    let null = null()?;
    Theirs { stdin: null.try_clone()?, stdout: null.try_clone()?, stderr: null, is_terminal: false }.install()
}

fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    // A pipe of the default size does as well.
    let _ = PIPE_SIZES.into_iter().find(|size| fcntl_setpipe_size(&writer, *size).is_ok());
    Ok((reader, writer))
}

fn null() -> io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null")?.into())
}
