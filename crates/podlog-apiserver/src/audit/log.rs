//! The file of the audit log: lines of JSON, rotated by size, written by a thread of its own.
//!
//! A disk that is full or slow does not hold up requests: what cannot be written is counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use podlog_serving::metrics::{Counter, Registry};

use crate::config::AuditLogConfig;

/// Lines that may wait to be written.
const WAITING: usize = 10_000;
/// Lines are written together up to so many bytes.
const BATCH_BYTES: usize = 256 << 10;
const MODE: u32 = 0o600;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Takes lines.
pub(crate) struct AuditLog {
    sender: Mutex<Option<SyncSender<Vec<u8>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    noted: Counter,
    lost: Counter,
}

impl AuditLog {
    /// # Errors
    /// When the file cannot be opened.
    pub(super) fn start(config: &AuditLogConfig, metrics: &Registry) -> io::Result<Self> {
        let noted =
            metrics.counters("apiserver_audit_event_total", "Audit events that were noted.", &[]).with(&[]);
        let help = "Audit events that could not be written.";
        let lost = metrics.counters("apiserver_audit_error_total", help, &["plugin"]).with(&["log"]);
        let mut writer = Writer {
            config: config.clone(),
            output: None,
            size: 0,
            lost: lost.clone(),
            failing: false,
            rotated_at: Timestamp::UNIX_EPOCH,
        };
        writer.open()?;
        let (sender, receiver) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("audit".into()).spawn(move || writer.run(&receiver))?;
        Ok(AuditLog { sender: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)), noted, lost })
    }

    /// Takes a line, with its end. Never waits.
    pub(super) fn write(&self, line: Vec<u8>) {
        let taken = self.sender.lock().as_ref().is_some_and(|sender| sender.try_send(line).is_ok());
        if taken { self.noted.increment() } else { self.lost.increment() }
    }

    /// Writes what waits, and ends.
    pub(super) fn close(&self) {
        drop(self.sender.lock().take());
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the audit log failed");
        }
    }
}

struct Writer {
    config: AuditLogConfig,
    output: Option<Output>,
    size: u64,
    lost: Counter,
    /// Whether the last attempt failed: it is told once.
    failing: bool,
    /// What the last file of before is named by.
    rotated_at: Timestamp,
}

enum Output {
    Stdout,
    File(File),
}

impl Writer {
    fn run(mut self, lines: &Receiver<Vec<u8>>) {
        while let Ok(mut batch) = lines.recv() {
            let mut count = 1;
            while batch.len() < BATCH_BYTES
                && let Ok(line) = lines.try_recv()
            {
                batch.extend_from_slice(&line);
                count += 1;
            }
            match self.write(&batch) {
                Ok(()) => self.failing = false,
                Err(error) => {
                    self.lost.add(count);
                    if !std::mem::replace(&mut self.failing, true) {
                        let path = self.config.path.display();
                        tracing::error!(%path, %error, "cannot write the audit log; requests are served all the same");
                    }
                }
            }
        }
    }

    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        let length = batch.len() as u64;
        if self.size > 0 && self.size + length > self.config.max_bytes {
            self.rotate()?;
        }
        if self.output.is_none() {
            self.open()?;
        }
        let written = match &mut self.output {
            Some(Output::File(file)) => file.write_all(batch).inspect_err(|_| {
                // Whole lines or none. A device that cannot be cut has kept nothing.
                let _ = file.set_len(self.size);
            }),
            Some(Output::Stdout) => io::stdout().lock().write_all(batch),
            None => Ok(()),
        };
        match written {
            Ok(()) => self.size += length,
            Err(_) => self.output = None,
        }
        written
    }

    fn open(&mut self) -> io::Result<()> {
        if self.config.path == Path::new("-") {
            self.output = Some(Output::Stdout);
            return Ok(());
        }
        let file = OpenOptions::new().create(true).append(true).mode(MODE).open(&self.config.path)?;
        self.size = file.metadata()?.len();
        self.output = Some(Output::File(file));
        Ok(())
    }

    /// Names as `gopkg.in/natefinch/lumberjack` gives them: `audit-2006-01-02T15-04-05.000.log`.
    fn rotate(&mut self) -> io::Result<()> {
        if !matches!(self.output, Some(Output::File(_))) {
            return Ok(());
        }
        let (stem, extension) = name_parts(&self.config.path);
        // Each name later than the one before, however fast files fill.
        self.rotated_at = Timestamp::now().max(self.rotated_at + SignedDuration::from_millis(1));
        let stamp = self.rotated_at.strftime("%Y-%m-%dT%H-%M-%S%.3f").to_string();
        std::fs::rename(
            &self.config.path,
            self.config.path.with_file_name(format!("{stem}-{stamp}{extension}")),
        )?;
        self.output = None;
        self.open()?;
        self.clean(SystemTime::now())
    }

    /// Removes rotated files that are too many or too old.
    fn clean(&self, now: SystemTime) -> io::Result<()> {
        let mut rotated = rotated(&self.config.path)?;
        rotated.sort();
        let keep = self.config.max_backups.unwrap_or(usize::MAX);
        let too_many = rotated.len().saturating_sub(keep);
        for (i, path) in rotated.iter().enumerate() {
            let modified = std::fs::metadata(path)?.modified()?;
            let age = now.duration_since(modified).unwrap_or_default();
            let too_old = self.config.max_age_days.is_some_and(|days| age > DAY * days);
            if i < too_many || too_old {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn name_parts(path: &Path) -> (String, String) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let extension = path.extension().map(|extension| format!(".{}", extension.to_string_lossy()));
    (stem, extension.unwrap_or_default())
}

/// The files that this log was rotated to.
fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (stem, extension) = name_parts(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stamp = name.strip_prefix(&format!("{stem}-")).and_then(|rest| rest.strip_suffix(&extension));
        if stamp.is_some_and(|stamp| stamp.starts_with(|c: char| c.is_ascii_digit())) {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(path: PathBuf) -> AuditLogConfig {
        AuditLogConfig { path, max_bytes: 100, max_backups: Some(2), max_age_days: None }
    }

    #[test]
    fn files_are_rotated_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let log = AuditLog::start(&config(path.clone()), &Registry::new()).unwrap();
        for i in 0..20 {
            let last = format!("{i:<39}\n");
            log.write(last.into_bytes());
            // Each by itself, so that files are full when they should be.
            while !std::fs::read_to_string(&path).unwrap_or_default().contains(&format!("{i:<39}\n")) {
                std::thread::yield_now();
            }
        }
        log.close();
        let mut files = rotated(&path).unwrap();
        files.sort();
        assert_eq!(files.len(), 2, "{files:?}");
        files.push(path.clone());
        let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
        let numbers: Vec<u32> = text.lines().map(|line| line.trim().parse().unwrap()).collect();
        assert_eq!(numbers.last(), Some(&19));
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        log.write(b"late\n".to_vec());
        assert!(!std::fs::read_to_string(&path).unwrap().contains("late"));
    }

    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let metrics = Registry::new();
        let log = AuditLog::start(&config("/dev/full".into()), &metrics).unwrap();
        for _ in 0..5 {
            log.write(b"line\n".to_vec());
        }
        log.close();
        let text = metrics.render();
        assert!(text.contains("apiserver_audit_error_total{plugin=\"log\"} 5"), "{text}");
        assert!(text.contains("apiserver_audit_event_total 5"), "{text}");
    }

    #[test]
    fn a_folder_is_no_log() {
        assert!(AuditLog::start(&config("/".into()), &Registry::new()).is_err());
    }
}
