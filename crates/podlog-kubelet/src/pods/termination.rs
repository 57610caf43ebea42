//! A container's last words: its termination message.
//!
//! Limits as `pkg/kubelet/container/runtime.go`: 4096 bytes of the file, 2048 bytes or 80 lines of the log.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use podlog_driver::{LogSource, ReadState};
use podlog_line::Selection;

use super::labels;
use crate::runtime::ContainerStatus;

const MAX_FILE_BYTES: u64 = 4096;
const MAX_LOG_BYTES: u64 = 2048;
const MAX_LOG_LINES: u64 = 80;

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
    let asks_for_log = annotation(labels::TERMINATION_POLICY) == "FallbackToLogsOnError";
    if asks_for_log && (status.exit_code != 0 || status.reason == "OOMKilled") {
        let tail = log_tail(&status.log_path);
        if !tail.is_empty() {
            return tail;
        }
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

/// The last lines of the log, cut at the front to what fits.
fn log_tail(path: &Path) -> String {
    let mut data = match read_tail(path) {
        Ok(data) => data,
        Err(error) => return format!("Error reading termination message from logs: {error}"),
    };
    let surplus = data.len().saturating_sub(MAX_LOG_BYTES as usize);
    data.drain(..surplus);
    String::from_utf8_lossy(&data).into_owned()
}

fn read_tail(path: &Path) -> Result<Vec<u8>, podlog_driver::ReadError> {
    let selection = Selection { tail: Some(MAX_LOG_LINES), ..Selection::default() };
    let mut reader = LogSource::open(path)?.read(&selection)?;
    let mut data = Vec::new();
    while matches!(reader.read_chunk(&mut data)?, ReadState::More) {
        let surplus = data.len().saturating_sub(MAX_LOG_BYTES as usize);
        data.drain(..surplus);
    }
    reader.finish(&mut data)?;
    Ok(data)
}
