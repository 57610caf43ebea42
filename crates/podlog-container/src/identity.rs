//! Which process a process id meant when it was written down, and how processes are related.

use std::{fs, io};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process id that cannot be mistaken for a later process with the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessIdentity {
    /// Process id.
    pub pid: i32,
    /// When the process started, in clock ticks since boot (`/proc/<pid>/stat`, field 22).
    pub start_ticks: u64,
    /// The boot it belongs to (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
}

impl ProcessIdentity {
    /// The identity of a process that exists; `None` when it is gone.
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, start_ticks: ProcessStat::read(pid)?.start_ticks, boot_id: boot_id() })
    }

    /// Whether the process of this identity still exists, as a zombie at least.
    pub fn exists(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Whether it was started since the machine was booted.
    pub fn is_of_this_boot(&self) -> bool {
        self.boot_id == boot_id()
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// What `/proc/<pid>/stat` says about a process, as far as relations go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    /// Process id.
    pub pid: i32,
    /// The parent's process id.
    pub parent: i32,
    /// Session id.
    pub session: i32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
}

impl ProcessStat {
    /// Every process that can be seen.
    ///
    /// # Errors
    /// When there is no `/proc`.
    pub fn all() -> io::Result<Vec<Self>> {
        let entries = fs::read_dir("/proc")?;
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Ok(pids.filter_map(Self::read).collect())
    }

    /// One process; `None` when it is gone.
    pub fn read(pid: i32) -> Option<Self> {
        Self::parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Kills this process and never another one that got its number since.
    ///
    /// # Errors
    /// When it may not be killed. That it is gone is no error.
    pub fn kill(&self) -> io::Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            other => other?,
        };
        let is_same = Self::read(self.pid).is_some_and(|now| now.start_ticks == self.start_ticks);
        if !is_same {
            return Ok(());
        }
        match pidfd_send_signal(descriptor, Signal::KILL) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            other => Ok(other?),
        }
    }

    /// The fields behind the command name, which stands in parentheses and may hold anything, parentheses included: fields count
    /// from the last one.
    pub(crate) fn fields(stat: &[u8]) -> Option<impl Iterator<Item = &str>> {
        let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
        Some(std::str::from_utf8(&stat[after_name..]).ok()?.split_ascii_whitespace())
    }

    pub(crate) fn parse(pid: i32, stat: &[u8]) -> Option<Self> {
        let mut fields = Self::fields(stat)?;
        let parent = fields.nth(1)?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        let start_ticks = fields.nth(15)?.parse().ok()?;
        Some(Self { pid, parent, session, start_ticks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_any_command_name() {
        let rest = "S 1 6 5 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1000 10";
        for name in ["sh", "a) b (c", ") )", ""] {
            let stat = format!("7 ({name}) {rest}");
            let expected = ProcessStat { pid: 7, parent: 1, session: 5, start_ticks: 4711 };
            assert_eq!(ProcessStat::parse(7, stat.as_bytes()), Some(expected), "{stat}");
        }
        for stat in ["", "7 (sh", "7 (sh) S 1", "7 (sh) S 1 7 7 0 -1 1 1 0 0 0 0 0 0 0 20 0 1 0 x 1"] {
            assert!(ProcessStat::parse(7, stat.as_bytes()).is_none(), "{stat}");
        }
    }

    #[test]
    fn tells_processes_apart() {
        let own = ProcessIdentity::of(std::process::id().cast_signed()).expect("own process exists");
        assert!(own.exists());
        assert!(!ProcessIdentity { start_ticks: own.start_ticks + 1, ..own.clone() }.exists());
        assert!(!ProcessIdentity { boot_id: "another boot".to_owned(), ..own }.exists());
        assert_eq!(ProcessIdentity::of(i32::MAX), None);
    }
}
