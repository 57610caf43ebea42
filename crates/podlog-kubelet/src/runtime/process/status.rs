//! What the files of a container mean.

use std::path::Path;

use podlog_container::{ContainerDir, Exit, FileError, Liveness, Metadata, State};

use crate::runtime::{Container, ContainerId, ContainerState, ContainerStatus, SandboxId};

/// What was found in a container's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Findings {
    pub(super) liveness: Liveness,
    pub(super) exit: Option<Exit>,
    pub(super) state: Option<State>,
}

impl Findings {
    /// Reads the files in the order in which capture writes them backwards: whatever it does meanwhile, the findings fit
    /// together.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub(super) fn read(dir: &ContainerDir) -> Result<Self, FileError> {
        let liveness = dir.liveness()?;
        Ok(Self { liveness, exit: dir.exit()?, state: dir.state()? })
    }

    /// The container's state.
    pub(super) fn container_state(&self) -> ContainerState {
        match self {
            Self { exit: Some(_), .. } | Self { liveness: Liveness::Ended, .. } => ContainerState::Exited,
            Self { liveness: Liveness::Alive, state: Some(_), .. } => ContainerState::Running,
            // What is being started has not been started.
            _ => ContainerState::Created,
        }
    }

    /// Whether capture has ended and nobody has said how the container did.
    pub(super) fn is_unsettled(&self) -> bool {
        self.liveness == Liveness::Ended && self.exit.is_none()
    }

    /// The whole status.
    pub(super) fn status(&self, metadata: &Metadata, log_path: &Path) -> ContainerStatus {
        let exit = self.exit.as_ref();
        ContainerStatus {
            container: container(metadata, self.container_state()),
            image: metadata.image.clone(),
            image_name: String::new(),
            user: None,
            started_at: self.state.as_ref().map(|state| state.started_at),
            finished_at: exit.map(|exit| exit.finished_at),
            exit_code: exit.map_or(0, |exit| exit.exit_code),
            reason: exit.map_or_else(String::new, |exit| exit.reason.clone()),
            message: exit.map_or_else(String::new, |exit| exit.message.clone()),
            log_path: log_path.to_owned(),
        }
    }
}

/// A container as listed.
pub(super) fn container(metadata: &Metadata, state: ContainerState) -> Container {
    Container {
        id: ContainerId(metadata.id.clone()),
        sandbox: SandboxId(metadata.sandbox.clone()),
        name: metadata.name.clone(),
        attempt: metadata.attempt,
        state,
        created_at: metadata.created_at,
        labels: metadata.labels.clone(),
        annotations: metadata.annotations.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use podlog_container::ProcessIdentity;

    #[test]
    fn states_follow_from_files() {
        let exit = Some(Exit::exited(3, Timestamp::UNIX_EPOCH));
        let process = ProcessIdentity { pid: 7, start_ticks: 1, boot_id: String::new() };
        let state = Some(State { process, started_at: Timestamp::UNIX_EPOCH, exit: None });
        for (liveness, exit, state, expected, is_unsettled) in [
            (Liveness::NeverStarted, None, None, ContainerState::Created, false),
            (Liveness::Alive, None, None, ContainerState::Created, false),
            (Liveness::Alive, None, state.clone(), ContainerState::Running, false),
            (Liveness::Alive, exit.clone(), state.clone(), ContainerState::Exited, false),
            (Liveness::Ended, exit.clone(), state.clone(), ContainerState::Exited, false),
            (Liveness::Ended, exit, None, ContainerState::Exited, false),
            (Liveness::Ended, None, state, ContainerState::Exited, true),
            (Liveness::Ended, None, None, ContainerState::Exited, true),
        ] {
            let findings = Findings { liveness, exit, state };
            assert_eq!(findings.container_state(), expected, "{findings:?}");
            assert_eq!(findings.is_unsettled(), is_unsettled, "{findings:?}");
        }
    }
}
