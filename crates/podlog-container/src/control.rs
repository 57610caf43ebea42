//! The protocol of `control.sock`: one request a line, one answer a line, in order.
//!
//! | request | answer |
//! | --- | --- |
//! | `status` | `ok running`, `ok ending` (the first process has ended, the rest is being killed) |
//! | `signal <number>` | `ok`: sent to the first process; `error …` when it has ended |
//! | `reopen` | `ok`: the log file was opened anew under its name |
//! | `build` | `ok <build>`: which build of podlog runs it, as [`Build`](crate::Build) writes it |
//! | `hand-over {"argv":[…]}` with the descriptor of a program attached | `ok`: that program has taken over, with the words of `argv` before its own; `error …`: everything is as before |
//! | `exec {"argv":[…]}` with the descriptors of stdout and stderr attached | `ok` when it runs, `error …` when it cannot be started, and later `exited <code>` |
//! | `exec-with {"argv":[…],"stdio":…}` with the descriptors of stdin, stdout and stderr (`"all"`) or a terminal's alone (`"terminal"`) attached | as `exec`; builds of before do not know it |
//! | `stdin` | `ok` with the descriptor of what the program reads attached: the end of its stdin, or its terminal; without one when it reads nothing, or nothing more. With `stdinOnce` the end of this connection is the end of stdin. Builds of before do not know it |
//!
//! Anything else is answered by `error …` and the end of the connection. A connection stays open as long as both sides
//! like; capture's end closes it, which is how the runtime learns of a container's end at once. Closing a connection
//! kills what it executes.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

/// Longest request, in bytes: what the kernel takes as arguments of a program, with room for escaping.
pub const MAX_REQUEST: usize = 512 * 1024;

/// How many descriptors come with a request at most.
const MAX_DESCRIPTORS: usize = 3;

/// What a runtime asks of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Tell how it goes.
    Status,
    /// Send a signal to the container's first process.
    Signal(i32),
    /// Open the log file anew.
    Reopen,
    /// Tell which build this is.
    Build,
    /// Become another program, which comes as a descriptor: another build of capture.
    HandOver(Program),
    /// Run a command in the container.
    Exec(Exec),
    /// Hand over the other end of what the program reads.
    Stdin,
}

/// A program that is to go on as the capture of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its name and its first arguments; `--dir` and what else it needs are added.
    pub argv: Vec<String>,
}

/// A command to run in a container, as its user, in its view and with its environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Which descriptors come with it.
    #[serde(default)]
    pub stdio: Stdio,
}

/// The standard streams of a command that come as descriptors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stdio {
    /// stdout and stderr. It has nothing to read.
    #[default]
    Output,
    /// stdin, stdout and stderr.
    All,
    /// A terminal for all three.
    Terminal,
}

impl Request {
    /// Parses a request line without its line feed.
    ///
    /// # Errors
    /// A text for the answer.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let line = std::str::from_utf8(line).map_err(|_| "request is not text".to_owned())?;
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (word, rest) {
            ("status", "") => Ok(Self::Status),
            ("reopen", "") => Ok(Self::Reopen),
            ("signal", number) => parse_signal(number).map(Self::Signal),
            ("build", "") => Ok(Self::Build),
            ("stdin", "") => Ok(Self::Stdin),
            ("hand-over", json) => parse_program(json).map(Self::HandOver),
            ("exec" | "exec-with", json) => parse_exec(json).map(Self::Exec),
            _ => Err("unknown request".to_owned()),
        }
    }
}

fn parse_signal(text: &str) -> Result<i32, String> {
    let number = text.parse().map_err(|_| "signal is not a number".to_owned())?;
    if (1..=64).contains(&number) { Ok(number) } else { Err("no such signal".to_owned()) }
}

fn parse_program(json: &str) -> Result<Program, String> {
    let program: Program =
        serde_json::from_str(json).map_err(|error| format!("bad hand-over request: {error}"))?;
    if program.argv.is_empty() { Err("hand-over without a program".to_owned()) } else { Ok(program) }
}

fn parse_exec(json: &str) -> Result<Exec, String> {
    let exec: Exec = serde_json::from_str(json).map_err(|error| format!("bad exec request: {error}"))?;
    if exec.argv.is_empty() { Err("exec without a command".to_owned()) } else { Ok(exec) }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status => f.write_str("status"),
            Self::Signal(number) => write!(f, "signal {number}"),
            Self::Reopen => f.write_str("reopen"),
            Self::Build => f.write_str("build"),
            Self::Stdin => f.write_str("stdin"),
            Self::HandOver(program) => {
                write!(f, "hand-over {}", serde_json::to_string(program).map_err(|_| fmt::Error)?)
            }
            Self::Exec(exec) => {
                let word = if exec.stdio == Stdio::Output { "exec" } else { "exec-with" };
                write!(f, "{word} {}", serde_json::to_string(exec).map_err(|_| fmt::Error)?)
            }
        }
    }
}

/// What a capture answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done, with what was asked for.
    Ok(String),
    /// Not done, and why.
    Error(String),
    /// A command has ended with this code; 128 + signal number when a signal ended it.
    Exited(i32),
}

impl Reply {
    /// Parses an answer line without its line feed; `None` when it is none.
    pub fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "ok" => Some(Self::Ok(rest.to_owned())),
            "error" => Some(Self::Error(rest.to_owned())),
            "exited" => rest.parse().ok().map(Self::Exited),
            _ => None,
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok(text) if text.is_empty() => f.write_str("ok"),
            Self::Ok(text) => write!(f, "ok {}", one_line(text)),
            Self::Error(text) => write!(f, "error {}", one_line(text)),
            Self::Exited(code) => write!(f, "exited {code}"),
        }
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// Sends bytes with descriptors attached; returns how many bytes went.
///
/// # Errors
/// When the socket refuses.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[impl AsFd]) -> io::Result<usize> {
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

/// Receives bytes and puts descriptors that came with them (close-on-exec) at the end of `descriptors`.
///
/// # Errors
/// When the socket has nothing now or never again.
pub fn receive(socket: impl AsFd, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn requests_come_back() {
        let argv = vec!["sh".to_owned(), "-c".to_owned(), "echo \n ü".to_owned()];
        let exec = Exec { argv, stdio: Stdio::Terminal };
        let program = Program { argv: vec!["podlog".to_owned(), "capture".to_owned()] };
        for request in [
            Request::Status,
            Request::Signal(15),
            Request::Reopen,
            Request::Build,
            Request::Stdin,
            Request::HandOver(program),
            Request::Exec(exec),
        ] {
            let line = request.to_string();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(Request::parse(line.as_bytes()), Ok(request));
        }
    }

    #[test]
    fn garbage_is_refused() {
        for (line, error) in [
            (&b""[..], "unknown request"),
            (b"Status", "unknown request"),
            (b"status now", "unknown request"),
            (b"signal", "signal is not a number"),
            (b"signal TERM", "signal is not a number"),
            (b"signal 0", "no such signal"),
            (b"signal -9", "no such signal"),
            (b"signal 65", "no such signal"),
            (b"\xff\x00", "request is not text"),
            (b"exec {\"argv\":[]}", "exec without a command"),
            (b"build 1", "unknown request"),
            (b"hand-over {\"argv\":[]}", "hand-over without a program"),
        ] {
            assert_eq!(Request::parse(line), Err(error.to_owned()));
        }
        assert!(Request::parse(b"exec sh").is_err());
        // As builds of before say it.
        let before = Request::parse(br#"exec {"argv":["true"]}"#);
        assert_eq!(before, Ok(Request::Exec(Exec { argv: vec!["true".to_owned()], stdio: Stdio::Output })));
    }

    #[test]
    fn replies_come_back() {
        for (reply, line) in [
            (Reply::Ok(String::new()), "ok"),
            (Reply::Ok("running".to_owned()), "ok running"),
            (Reply::Error("no such file".to_owned()), "error no such file"),
            (Reply::Exited(137), "exited 137"),
        ] {
            assert_eq!(reply.to_string(), line);
            assert_eq!(Reply::parse(line), Some(reply));
        }
        assert_eq!(Reply::Error("a\nb".to_owned()).to_string(), "error a b");
        assert_eq!(Reply::parse("exited soon"), None);
    }

    #[test]
    fn descriptors_travel() {
        let (here, there) = UnixStream::pair().expect("socket pair");
        let (mut reader, writer) = io::pipe().expect("pipe");
        assert_eq!(send(&here, b"exec", &[writer]).expect("send"), 4);
        let (mut buffer, mut descriptors) = ([0; 16], Vec::new());
        assert_eq!(receive(&there, &mut buffer, &mut descriptors).expect("receive"), 4);
        let mut writer = std::fs::File::from(descriptors.pop().expect("one descriptor"));
        writer.write_all(b"hello").expect("write");
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("read");
        assert_eq!(text, "hello");
    }
}
