//! The one binary: applets, flags, exit codes.

mod apiserver;
mod cli;
mod down;
mod exit;
mod kubelet;
mod lock;
mod memory;
mod node_client;
mod up;

use std::ffi::OsString;
use std::process::ExitCode;

#[global_allocator]
static MEMORY: podlog_serving::SparseBuffers = podlog_serving::SparseBuffers;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    // Capture runs once per container: it must not pay for the parsing of a command line that the kubelet wrote.
    if let [applet, arguments @ ..] = arguments.as_slice()
        && applet == "capture"
        && let Some(invocation) = podlog_capture::Invocation::parse(arguments)
    {
        return invocation.run();
    }
    cli::main()
}
