//! The one binary: applets, flags, exit codes.

mod apiserver;
mod cli;
mod down;
mod exit;
mod up;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    // Capture runs once per container: it must not pay for the parsing of a command line that the kubelet wrote.
    if let [applet, flag, dir] = arguments.as_slice()
        && applet == "capture"
        && flag == "--dir"
    {
        return podlog_capture::run(Path::new(dir));
    }
    cli::main()
}
