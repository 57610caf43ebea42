//! What there is in the log directory of a pod.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use crate::layout::log_number;

/// The logs of a pod, by container.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    pub(super) containers: Vec<ContainerLogs>,
}

/// The logs of a container.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContainerLogs {
    pub(super) name: String,
    /// Restart counts.
    instances: BTreeSet<u32>,
    /// Of all files.
    bytes: u64,
    /// When the last of them was written to.
    ended_at: Option<Timestamp>,
}

impl Contents {
    /// What cannot be read is not there.
    pub(super) fn read(directory: &Path) -> Self {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut containers: Vec<ContainerLogs> = directories
            .filter_map(|entry| {
                Some(ContainerLogs::read(entry.file_name().into_string().ok()?, &entry.path()))
            })
            .filter(|logs| !logs.instances.is_empty())
            .collect();
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        Contents { containers }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.containers.iter().map(|logs| logs.bytes).sum()
    }
}

impl ContainerLogs {
    fn read(name: String, directory: &Path) -> Self {
        let mut logs = ContainerLogs { name, instances: BTreeSet::new(), bytes: 0, ended_at: None };
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let number = entry.file_name().to_str().and_then(log_number);
            // Some runtimes put links there.
            let (Some(number), Ok(metadata)) = (number, fs::metadata(entry.path())) else { continue };
            logs.instances.insert(number);
            logs.bytes += metadata.len();
            let written = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
            logs.ended_at = logs.ended_at.max(written);
        }
        logs
    }
}
