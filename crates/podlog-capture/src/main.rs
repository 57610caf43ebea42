//! `podlog-capture --dir DIR`: capture as a program of its own, for tests and for whoever wants it without the rest of
//! podlog.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match podlog_capture::Invocation::parse(&arguments) {
        Some(invocation) => invocation.run(),
        None => {
            let _ = writeln!(std::io::stderr(), "usage: podlog-capture --dir DIR");
            ExitCode::from(2)
        }
    }
}
