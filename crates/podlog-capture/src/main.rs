//! `podlog-capture --dir DIR`: capture as a program of its own, for tests and for whoever wants it without the rest of
//! podlog.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [flag, dir] if flag == "--dir" => podlog_capture::run(&PathBuf::from(dir)),
        _ => {
            let _ = writeln!(std::io::stderr(), "usage: podlog-capture --dir DIR");
            ExitCode::from(2)
        }
    }
}
