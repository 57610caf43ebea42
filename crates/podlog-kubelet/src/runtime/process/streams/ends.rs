//! Both ends of a command's streams.

use std::convert::Infallible;
use std::fs::File;
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::channels::Outflow;
use super::descriptor::{self, Descriptor};
use super::remote::{Input, Sizes};
use crate::runtime::Streams;

/// For a client to say how large its terminal is. kubectl does so at once; who never does waits no longer than this.
const FIRST_SIZE: Duration = Duration::from_millis(250);

/// Where the command reads from.
pub(super) enum Inward {
    Nothing,
    Pipe(Descriptor),
    Terminal(Arc<Descriptor>),
}

/// Where it writes to.
pub(super) enum Outward {
    /// stdout and stderr, as far as they are wanted.
    Pipes([Option<Descriptor>; 2]),
    Terminal(Arc<Descriptor>),
}

/// Makes our ends and, in the order in which capture takes them, the command's.
pub(super) fn make(wanted: Streams) -> io::Result<(Inward, Outward, Vec<OwnedFd>)> {
    if wanted.tty {
        let (ours, theirs) = descriptor::terminal()?;
        let ours = Arc::new(ours);
        return Ok((Inward::Terminal(ours.clone()), Outward::Terminal(ours), vec![theirs]));
    }
    let mut all = Vec::new();
    let inward = if wanted.stdin {
        let (ours, theirs) = descriptor::input()?;
        all.push(theirs);
        Inward::Pipe(ours)
    } else {
        Inward::Nothing
    };
    let mut output = |is_wanted: bool| {
        let (ours, theirs) = match is_wanted {
            true => descriptor::output().map(|(ours, theirs)| (Some(ours), theirs))?,
            false => (None, File::options().write(true).open("/dev/null")?.into()),
        };
        all.push(theirs);
        Ok::<_, io::Error>(ours)
    };
    let outward = Outward::Pipes([output(wanted.stdout)?, output(wanted.stderr)?]);
    Ok((inward, outward, all))
}

impl Outward {
    /// Sends the client all that is printed, until the command has `ended` and there is nothing more.
    pub(super) async fn drain(&self, to: [Option<&Outflow>; 2], ended: &CancellationToken) {
        let drain = async |from: &Option<Descriptor>, to| {
            if let Some(from) = from {
                from.drain(to, ended).await;
            }
        };
        let [stdout, stderr] = to;
        match self {
            Outward::Terminal(terminal) => terminal.drain(stdout, ended).await,
            Outward::Pipes([from_stdout, from_stderr]) => {
                tokio::join!(drain(from_stdout, stdout), drain(from_stderr, stderr));
            }
        }
    }
}

impl Inward {
    /// Passes on what the client says.
    pub(super) async fn feed(self, input: &mut Input) -> Infallible {
        let Input { stdin, sizes } = input;
        match &self {
            Inward::Nothing => {}
            Inward::Pipe(pipe) => feed(pipe, stdin.as_mut()).await,
            Inward::Terminal(terminal) => {
                tokio::join!(feed(terminal, stdin.as_mut()), resize(terminal, sizes.as_mut()));
            }
        }
        // The command reads the end of a pipe. What the client still says is thrown away.
        drop(self);
        *stdin = None;
        pending().await
    }
}

async fn feed(to: &Descriptor, stdin: Option<&mut tokio::sync::mpsc::Receiver<bytes::Bytes>>) {
    if let Some(stdin) = stdin {
        to.feed(stdin).await;
    }
}

/// Gives a terminal the size of the client's before anything runs in it, if the client says that soon.
pub(super) async fn first_size(terminal: &Descriptor, sizes: Option<&mut Sizes>) {
    let Some(sizes) = sizes else { return };
    if let Ok(Some(size)) = timeout(FIRST_SIZE, sizes.next()).await {
        terminal.set_size(size);
    }
}

/// Passes on the sizes of the client's terminal.
pub(super) async fn resize(terminal: &Descriptor, sizes: Option<&mut Sizes>) {
    let Some(sizes) = sizes else { return };
    while let Some(size) = sizes.next().await {
        terminal.set_size(size);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nothing_runs_in_a_terminal_before_it_has_its_size_or_none_has_come() {
        let size = |terminal: &OwnedFd| {
            let size = rustix::termios::tcgetwinsize(terminal).unwrap();
            (size.ws_row, size.ws_col)
        };
        let (ours, theirs) = descriptor::terminal().unwrap();
        let (client, from) = mpsc::channel(1);
        let (mut sizes, begun) = (Sizes::new(from), Instant::now());
        first_size(&ours, Some(&mut sizes)).await;
        assert_eq!((begun.elapsed(), size(&theirs)), (FIRST_SIZE, (0, 0)));
        client.send(Bytes::from(r#"{"Width":97,"Height":31}"#)).await.unwrap();
        let begun = Instant::now();
        first_size(&ours, Some(&mut sizes)).await;
        assert_eq!((begun.elapsed(), size(&theirs)), (Duration::ZERO, (31, 97)));
        drop(client);
        first_size(&ours, Some(&mut sizes)).await;
        first_size(&ours, None).await;
        assert_eq!((begun.elapsed(), size(&theirs)), (Duration::ZERO, (31, 97)));
    }
}
