//! The few system calls that neither std nor rustix offers safely.
#![expect(unsafe_code, reason = "fork, exec, signals and mount_setattr have no safe interface")]

use std::convert::Infallible;
use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;
use std::{io, mem, ptr};

use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::memory::FileRange;

const LAST_SIGNAL: i32 = 64;

/// Which side of a fork this is.
pub(crate) enum Fork {
    /// The new process.
    Child,
    /// The old one, with the child's process id.
    Parent(Pid),
}

/// Makes a second process.
///
/// # Errors
/// When the system has no room for it.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: this process has one thread: only copiers have more, and a copier has ended them before it becomes a monitor,
    // which forks.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => {
            Pid::from_raw(pid).map(Fork::Parent).ok_or_else(|| io::Error::other("fork returned no process"))
        }
    }
}

/// Ends a forked child without running what its parent has registered for its own end.
pub(crate) fn exit_child(code: i32) -> ! {
    // SAFETY: `_exit` takes any number and does not return.
    unsafe { libc::_exit(code) }
}

/// Moves this process into new namespaces.
pub(crate) fn unshare(namespaces: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: only CLONE_FILES would be unsafe, and it is taken out.
    unsafe { unshare_unsafe(namespaces - UnshareFlags::FILES) }
}

/// Sends any signal, real-time ones included.
pub(crate) fn kill(pid: Pid, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is involved.
    match unsafe { libc::kill(pid.as_raw_nonzero().get(), signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Replaces the program of this process. Returns only when that fails.
pub(crate) fn exec(program: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let argv = null_terminated(argv);
    let env = null_terminated(env);
    // SAFETY: both arrays end in null and hold pointers to C strings that live until the call returns.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

fn null_terminated(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// Blocks every signal and returns a descriptor that becomes readable when a child has ended.
pub(crate) fn block_signals() -> io::Result<OwnedFd> {
    set_mask(&signal_set(libc::sigfillset))?;
    let mut children = signal_set(libc::sigemptyset);
    // SAFETY: the set is initialised, and SIGCHLD is a signal.
    unsafe { libc::sigaddset(&raw mut children, libc::SIGCHLD) };
    // SAFETY: the set is initialised; -1 asks for a new descriptor.
    let raw = unsafe { libc::signalfd(-1, &raw const children, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Gives every signal its default effect and lets it through, as a new program may expect it. The C library's interface
/// would leave out the signals that it keeps for itself, although whoever started capture may have them ignored.
pub(crate) fn reset_signals() -> io::Result<()> {
    // The kernel's sigaction has at most four words; all zero is the default disposition.
    let default = [0u64; 4];
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: the default disposition runs no code of ours; the structure lives until the call returns, and the size
        // is that of the kernel's signal set. Signals that cannot be changed are left alone.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null_mut::<u8>(), 8usize)
        };
    }
    set_mask(&signal_set(libc::sigemptyset))
}

/// What [`interrupt`] sends. Whoever else sends it to this process changes nothing: who is interrupted begins again.
const INTERRUPTION: i32 = libc::SIGURG;

/// Has [`INTERRUPTION`] end the waiting of a thread that [allows](allow_interruption) that, and do nothing else.
///
/// # Errors
/// When the kernel does not want that.
pub(crate) fn prepare_interruption() -> io::Result<()> {
    extern "C" fn nothing(_signal: i32) {}
    // SAFETY: the structure is plain numbers, for which zero is a value: no flags, so that calls are not begun again, and no
    // other signals blocked. The handler touches nothing.
    let result = unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        libc::sigaction(INTERRUPTION, &raw const action, ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// This thread may be interrupted.
pub(crate) fn allow_interruption() {
    let mut set = signal_set(libc::sigemptyset);
    // SAFETY: the set is initialised, and the signal's handler touches nothing; the old mask is not asked for.
    unsafe {
        libc::sigaddset(&raw mut set, INTERRUPTION);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
    }
}

/// Interrupts the waiting of a thread of this process, if it has that id and waits.
pub(crate) fn interrupt(thread: i32) {
    let process = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: no memory is involved; a thread of another process is not meant by this call.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, INTERRUPTION) };
}

fn signal_set(fill: unsafe extern "C" fn(*mut libc::sigset_t) -> i32) -> libc::sigset_t {
    // SAFETY: a signal set is plain bits, for which zero is a value; `fill` then initialises it.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        fill(&raw mut set);
        set
    }
}

fn set_mask(set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set is initialised; the old mask is not asked for.
    match unsafe { libc::sigprocmask(libc::SIG_SETMASK, set, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Marks every descriptor but the standard three to be closed by exec. Where the kernel does not know how (before 5.11)
/// they are as they were: all of ours are marked from the start.
pub(crate) fn close_others_on_exec() {
    // SAFETY: marking closes nothing now, so no owner of a descriptor is wronged.
    unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Closes every descriptor but the standard three and these: what whoever started capture forgot to close must not stay
/// open for as long as a container runs, and a copier must not hold what is its monitor's.
pub(crate) fn close_others(mut kept: Vec<RawFd>) {
    kept.sort_unstable();
    let mut first = 3;
    for last in kept.into_iter().chain([RawFd::MAX]) {
        let last = last.cast_unsigned();
        if first < last {
            // SAFETY: called in a fresh process, either before anything in it owns a descriptor, as `run` asks for, or after
            // a fork, in a child that never uses or drops what owned the closed ones in its parent.
            unsafe { libc::syscall(libc::SYS_close_range, first, last - 1, 0u32) };
        }
        first = first.max(last + 1);
    }
}

/// Sends any signal to the process that a descriptor stands for.
pub(crate) fn signal(process: impl AsFd, signal: i32) -> io::Result<()> {
    let number = process.as_fd().as_raw_fd();
    // SAFETY: no memory is involved: without details about the signal.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, number, signal, ptr::null::<u8>(), 0u32) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The beginning of the kernel's `struct pidfd_info` (`include/uapi/linux/pidfd.h`), which is all of its first version.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`: asks for the exit code.
const INFO_EXIT: u64 = 1 << 3;
/// `PIDFD_GET_INFO`: `_IOWR(0xff, 11, struct pidfd_info)`.
const GET_INFO: libc::c_ulong = 3 << 30 | (size_of::<PidfdInfo>() as libc::c_ulong) << 16 | 0xff << 8 | 11;

/// How the process ended that a descriptor stands for, as `wait` tells it: exit code or signal. `None` while its parent has
/// not waited for it, and from kernels before 6.15.
pub(crate) fn ended(process: impl AsFd) -> Option<Ended> {
    let mut info = PidfdInfo { mask: INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the structure is as large as the request says, and lives until the call returns.
    let result = unsafe { libc::ioctl(process.as_fd().as_raw_fd(), GET_INFO as _, &raw mut info) };
    if result != 0 || info.mask & INFO_EXIT == 0 {
        return None;
    }
    let status = info.exit_code;
    if libc::WIFSIGNALED(status) {
        Some(Ended::Signal(libc::WTERMSIG(status)))
    } else {
        Some(Ended::Code(libc::WEXITSTATUS(status)))
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Code(i32),
    Signal(i32),
}

/// Whether a mount and all below it can be written.
#[derive(Clone, Copy)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
}

/// Sets whether a mount and all mounts below it can be written.
pub(crate) fn set_tree_access(dir: impl AsFd, path: &CStr, access: Access) -> io::Result<()> {
    // SAFETY: the structure is plain numbers, for which zero is a value.
    let mut attributes: libc::mount_attr = unsafe { mem::zeroed() };
    match access {
        Access::ReadOnly => attributes.attr_set = libc::MOUNT_ATTR_RDONLY,
        Access::ReadWrite => attributes.attr_clr = libc::MOUNT_ATTR_RDONLY,
    }
    // SAFETY: path and structure live until the call returns, and the size is the structure's.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            mem::size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Nothing returns from a child that became a program.
pub(crate) type Never = Infallible;

/// Gives back memory that is a mere copy of a file's pages; what is touched again comes from the page cache.
pub(crate) fn release(range: FileRange) {
    // SAFETY: the range is a read-only mapping of a file in which nothing was ever written, so that the file has all of it.
    unsafe { libc::madvise(range.start as *mut libc::c_void, range.length, libc::MADV_DONTNEED) };
}

/// Whether a program that this process becomes has a descriptor.
#[derive(Clone, Copy)]
pub(crate) enum Inheritance {
    Inherited,
    Closed,
}

/// Sets that for a descriptor.
pub(crate) fn set_inheritance(number: RawFd, inheritance: Inheritance) {
    let flags = match inheritance {
        Inheritance::Inherited => 0,
        Inheritance::Closed => libc::FD_CLOEXEC,
    };
    // SAFETY: the flag closes nothing now, so no owner of the descriptor is wronged.
    unsafe { libc::fcntl(number, libc::F_SETFD, flags) };
}

/// Takes possession of a descriptor that the program before this one has left open. It is marked to be closed by exec, as all
/// others are.
///
/// # Errors
/// When it is not open.
pub(crate) fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the flag closes nothing now.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and callers ask for each number once, in a fresh program, in which nobody else has opened it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Has the kernel end this process after so long, whatever program it is by then; `None` takes that back.
pub(crate) fn end_after(deadline: Option<Duration>) {
    let mut alarm = signal_set(libc::sigemptyset);
    // SAFETY: the set is initialised, and SIGALRM is a signal, whose effect nobody here has changed.
    unsafe {
        libc::sigaddset(&raw mut alarm, libc::SIGALRM);
        let how = if deadline.is_some() { libc::SIG_UNBLOCK } else { libc::SIG_BLOCK };
        libc::sigprocmask(how, &raw const alarm, ptr::null_mut());
        libc::alarm(deadline.map_or(0, |deadline| u32::try_from(deadline.as_secs()).unwrap_or(u32::MAX)));
    }
}

/// As [`exec`], of a program that is open.
pub(crate) fn exec_open(program: &impl AsFd, argv: &[CString], env: &[CString]) -> io::Error {
    let argv = null_terminated(argv);
    let env = null_terminated(env);
    // SAFETY: both arrays end in null and hold pointers to C strings that live until the call returns; the empty path stands
    // for the descriptor.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_fd().as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}
