//! A writer that is killed before any of its system calls, whichever of its threads makes it: while it rotates, compresses and
//! deletes. What it has handed to the kernel is there, once.
#![expect(unsafe_code, reason = "there is no safe interface to ptrace")]

use std::{
    env, fs,
    io::Read,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    ptr,
};

use podlog_driver::{CriFileSink, FileLimits, LogSource, ReadState};
use podlog_line::{Selection, Stream, Timestamp};

const WRITER: &str = "PODLOG_TEST_WRITER";
/// Current file, newest rotated file, and one that is compressed.
const LIMITS: FileLimits = FileLimits { max_bytes: 39 * LINES_OF_A_FILE as u64, max_files: 3 };
const LINES_OF_A_FILE: usize = 20;
/// A file is rotated when the first line of the next one comes.
const LINES: usize = 4 * LINES_OF_A_FILE + 5;

fn at() -> Timestamp {
    Timestamp::from_seconds(1_767_225_600, 0)
}

/// Not a test: what the killed process does. It says so before it begins, by a system call that nothing else makes, and after
/// each line, by a byte on stderr.
#[test]
fn writer() {
    let Ok(path) = env::var(WRITER) else { return };
    let _ = rustix::process::getppid();
    let mut sink = CriFileSink::open(&path, LIMITS).expect("a sink");
    for number in 0..LINES {
        sink.write(Stream::Stdout, format!("{number:08}\n").as_bytes(), at()).expect("room");
        rustix::io::write(rustix::stdio::stderr(), b"x").expect("a reader");
        if let Some(age) = (number / LINES_OF_A_FILE).checked_sub(2).filter(|_| number % LINES_OF_A_FILE == 2)
        {
            wait_for_file(Path::new(&format!("{path}.20260101-00000{age}.gz")));
        }
    }
}

/// Compression is another thread's work, at the lowest priority.
fn wait_for_file(path: &Path) {
    for _ in 0..500 {
        if path.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// How a writer ended.
struct Death {
    was_killed: bool,
    /// Lines of which it knew that they were written.
    written: usize,
}

/// Runs a writer until that many system calls after it has begun; `None` where processes may not be traced.
fn kill_before(call: usize, path: &Path) -> Option<Death> {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["--exact", "writer", "--nocapture"]).env(WRITER, path);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // SAFETY: a system call without memory, in the child.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let mut child = match command.spawn() {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return None,
        spawned => spawned.expect("a process"),
    };
    let pid = i32::try_from(child.id()).expect("a pid");
    let was_killed = Tracer { pid, left: None, is_in_call: Default::default() }.run(call);
    let mut said = Vec::new();
    child.stderr.take().expect("stderr").read_to_end(&mut said).expect("what it said");
    // It has been waited for.
    let _ = child.wait();
    Some(Death { was_killed, written: said.len() })
}

struct Tracer {
    pid: i32,
    /// Calls that are left to it, once it has begun.
    left: Option<usize>,
    /// Threads that have been stopped at the beginning of a call, and are to be at its end.
    is_in_call: std::collections::HashSet<i32>,
}

impl Tracer {
    /// Whether it was killed, and had not ended before.
    fn run(mut self, calls: usize) -> bool {
        loop {
            let mut status = 0;
            // SAFETY: the status lives until the call returns. Only children of this thread are waited for.
            let tid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
            assert!(tid > 0, "no process to wait for");
            if !libc::WIFSTOPPED(status) {
                if tid == self.pid {
                    return libc::WIFSIGNALED(status);
                }
                continue;
            }
            let signal = self.stopped(tid, libc::WSTOPSIG(status), calls);
            // SAFETY: no memory is involved; who has died meanwhile is heard of by the next wait.
            unsafe { libc::ptrace(libc::PTRACE_SYSCALL, tid, 0, signal) };
        }
    }

    /// What to do about a stop; returns the signal that the thread is to get.
    fn stopped(&mut self, tid: i32, signal: i32, calls: usize) -> i32 {
        const IN_CALL: i32 = libc::SIGTRAP | 0x80;
        match signal {
            IN_CALL if self.is_in_call.remove(&tid) => 0,
            IN_CALL => {
                self.is_in_call.insert(tid);
                self.begins_call(tid, calls);
                0
            }
            // After exec, and of new threads.
            libc::SIGTRAP | libc::SIGSTOP => {
                let options =
                    libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
                // SAFETY: no memory is involved.
                unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, tid, 0, options) };
                0
            }
            signal => signal,
        }
    }

    fn begins_call(&mut self, tid: i32, calls: usize) {
        match &mut self.left {
            None if number_of_call(tid) == libc::SYS_getppid.unsigned_abs() => self.left = Some(calls),
            None => {}
            // SAFETY: no memory is involved.
            Some(0) => drop(unsafe { libc::kill(self.pid, libc::SIGKILL) }),
            Some(left) => *left -= 1,
        }
    }
}

fn number_of_call(tid: i32) -> u64 {
    // SAFETY: plain numbers, for which zero is a value; the size is the structure's, and at a call's beginning the kernel fills in
    // which one it is.
    unsafe {
        let mut info: libc::ptrace_syscall_info = std::mem::zeroed();
        libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, tid, size_of_val(&info), ptr::from_mut(&mut info));
        info.u.entry.nr
    }
}

#[expect(clippy::print_stderr, reason = "a test that does nothing must say so")]
fn skipped() {
    eprintln!("SKIPPED: this test may not trace a process of its own");
}

fn read(path: &Path) -> String {
    let mut reader =
        LogSource::open(path).and_then(|source| source.read(&Selection::default())).expect("a log");
    let mut out = Vec::new();
    while reader.read_chunk(&mut out).expect("a log") == ReadState::More {}
    reader.finish(&mut out).expect("a log");
    assert_eq!(reader.stats().malformed, 0);
    String::from_utf8(out).expect("text")
}

/// Nothing unfinished is left, and nothing is there in two forms. Returns whether something is compressed.
fn check_names(directory: &Path, call: usize) -> bool {
    let entries = fs::read_dir(directory).expect("a directory");
    let names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    for name in &names {
        let is_twice = names.contains(&format!("{name}.gz"));
        assert!(!name.ends_with(".tmp") && !is_twice, "before call {call}: {names:?}");
    }
    names.iter().any(|name| name.ends_with(".gz"))
}

#[test]
fn what_was_written_is_there_once_whichever_call_was_the_last() {
    let mut compressed = 0;
    for call in 0.. {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("0.log");
        let Some(death) = kill_before(call, &path) else { return skipped() };
        // The next writer takes up what it finds.
        let mut sink = CriFileSink::open(&path, LIMITS).expect("a sink");
        sink.write(Stream::Stdout, b"next one\n", at()).expect("room");
        // It may have begun to compress.
        drop(sink);
        compressed += usize::from(check_names(directory.path(), call));
        let text = read(&path);
        let lines = text.strip_suffix("next one\n").expect("the last line").lines();
        let numbers: Vec<usize> = lines.map(|line| line.parse().expect("a number")).collect();
        let end = numbers.last().map_or(0, |last| last + 1);
        let begin = numbers.first().copied().unwrap_or(0);
        assert_eq!(numbers, (begin..end).collect::<Vec<_>>(), "before call {call}");
        assert!(end == death.written || end == death.written + 1, "before call {call}: {end}");
        // Files that are too old go as a whole, when there is a fourth one.
        let is_kept = begin == 0 || end >= begin + 2 * LINES_OF_A_FILE;
        assert!(begin % LINES_OF_A_FILE == 0 && is_kept, "before call {call}: {begin} to {end}");
        if !death.was_killed {
            assert!(call > 200 && death.written == LINES, "only {call} calls");
            assert!(compressed > 50, "only {compressed} times there was time to compress");
            return;
        }
    }
}
