//! A container's last words: its termination message.
//!
//! Limits as `pkg/kubelet/container/runtime.go`: 4096 bytes of the file, 2048 bytes or 80 lines of the log.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::labels;
use crate::runtime::ContainerStatus;

const MAX_FILE_BYTES: u64 = 4096;

/// The message of an ended container: what it wrote into its file, else the end of its log if it failed and asks for
/// that, else what the runtime says. Reads files.
pub(super) fn message(status: &ContainerStatus) -> String {
    let annotation =
        |key: &str| status.container.annotations.get(key).map(String::as_str).unwrap_or_default();
    let path = annotation(labels::TERMINATION_HOST_PATH);
    let written = if path.is_empty() { String::new() } else { file(Path::new(path)) };
    if !written.is_empty() {
        return written;
    }
    status.message.clone()
}

fn file(path: &Path) -> String {
    let mut data = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut data));
    match read {
        Ok(_) => String::from_utf8_lossy(&data).into_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => format!("Error on reading termination log {}: {error}", path.display()),
    }
}
