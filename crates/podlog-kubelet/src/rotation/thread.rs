//! A thread that is there when a file is nearly full, however busy the machine is.

use std::future::Future;
use std::io;

use tokio::sync::oneshot;

/// The lowest real-time priority: above everything that is not real-time itself.
const REAL_TIME: i32 = 1;

/// Runs `work` on a thread of its own, to its end. Where that is allowed (`CAP_SYS_NICE`), the thread has a real-time
/// priority; what it starts in turn has an ordinary one.
pub(super) async fn run<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) {
    let (sender, done) = oneshot::channel::<()>();
    let body = move || {
        // Dropped at the end, whatever that is.
        let _sender = sender;
        if let Err(error) = be_prompt() {
            tracing::debug!(%error, "logs are rotated without a real-time priority");
        }
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(work()),
            Err(error) => tracing::error!(%error, "logs are not rotated"),
        }
    };
    match std::thread::Builder::new().name("log-rotation".to_owned()).spawn(body) {
        Ok(_) => drop(done.await),
        Err(error) => tracing::error!(%error, "logs are not rotated: there is no thread for it"),
    }
}

#[expect(unsafe_code, reason = "there is no safe call for scheduling classes")]
fn be_prompt() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: REAL_TIME };
    // SAFETY: `parameters` lives through the call, and 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
