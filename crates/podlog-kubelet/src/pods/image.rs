//! A container's image: looked for, pulled where its policy says so.
//!
//! Follows `EnsureImageExists` of `pkg/kubelet/images/image_manager.go`.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, Pod};

use super::context::Context;
use super::image_name::{self, NotAName};
use super::pull_secrets;
use super::start::{Failure, full};
use crate::events::Level;
use crate::go;
use crate::runtime::{Image, Images, RuntimeError};

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Always,
    IfNotPresent,
    Never,
}

impl Policy {
    fn of(container: &Container) -> Policy {
        match container.image_pull_policy.as_deref() {
            Some("Always") => Policy::Always,
            Some("Never") => Policy::Never,
            _ => Policy::IfNotPresent,
        }
    }
}

/// The image of a container, there to be used.
pub(super) async fn ensure(context: &Context, pod: &Pod, container: &Container) -> Result<Image, Failure> {
    let search =
        Search { context, pod, container, name: with_tag(container.image.as_deref().unwrap_or_default()) };
    search.ensure().await
}

/// The name with the tag that is meant when there is none.
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or_default();
    let is_complete = image.is_empty() || last.contains([':', '@']);
    if is_complete { image.to_owned() } else { format!("{image}:latest") }
}

struct Search<'a> {
    context: &'a Context,
    pod: &'a Pod,
    container: &'a Container,
    /// With its tag.
    name: String,
}

impl Search<'_> {
    async fn ensure(&self) -> Result<Image, Failure> {
        let runtime = &self.context.runtime;
        if runtime.images() == Images::Unused {
            let reference = self.container.image.clone().unwrap_or_default();
            self.present();
            return Ok(Image { reference, ..Image::default() });
        }
        image_name::check(self.container.image.as_deref().unwrap_or_default())
            .map_err(|error| self.not_a_name(&error))?;
        let there = runtime.image_status(&self.name).await.map_err(|error| self.not_inspected(&error))?;
        match (Policy::of(self.container), there) {
            (Policy::IfNotPresent | Policy::Never, Some(image)) => {
                self.present();
                Ok(image)
            }
            (Policy::Never, None) => Err(self.never()),
            (Policy::IfNotPresent, None) | (Policy::Always, _) => self.pull().await,
        }
    }

    async fn pull(&self) -> Result<Image, Failure> {
        let quoted = self.quoted();
        self.event(Level::Normal, "Pulling", format!("Pulling image {quoted}"));
        let begun = Instant::now();
        let reference = self.pull_with_credentials().await.map_err(|error| self.not_pulled(&error))?;
        let took = go::duration(Duration::from_millis(begun.elapsed().as_millis() as u64));
        let details = self.context.runtime.image_status(&self.name).await;
        let details = details.map_err(|error| self.not_inspected(&error))?.unwrap_or_default();
        let message = format!(
            "Successfully pulled image {quoted} in {took} ({took} including waiting). Image size: {} bytes.",
            details.bytes
        );
        self.event(Level::Normal, "Pulled", message);
        Ok(Image { reference, ..details })
    }

    /// Tries every credential that there is; what the last one met is the error.
    async fn pull_with_credentials(&self) -> Result<String, RuntimeError> {
        let runtime = &self.context.runtime;
        let mut credentials = pull_secrets::credentials(self.context, self.pod, &self.name).await.into_iter();
        let mut outcome = runtime.pull_image(&self.name, credentials.next().as_ref()).await;
        for auth in credentials {
            if outcome.is_ok() {
                break;
            }
            outcome = runtime.pull_image(&self.name, Some(&auth)).await;
        }
        outcome
    }

    fn present(&self) {
        let quoted = self.quoted();
        let message =
            format!("Container image {quoted} already present on machine and can be accessed by the pod");
        self.event(Level::Normal, "Pulled", message);
    }

    fn never(&self) -> Failure {
        let message = format!("Container image {} is not present with pull policy of Never", self.quoted());
        self.event(Level::Warning, "ErrImageNeverPull", message.clone());
        self.event(Level::Warning, "Failed", "Error: ErrImageNeverPull".to_owned());
        Failure { reason: "ErrImageNeverPull", message }
    }

    fn not_a_name(&self, error: &NotAName) -> Failure {
        let image = self.quoted();
        let message =
            format!("Failed to apply default image tag {image}: couldn't parse image name {image}: {error}");
        self.event(Level::Warning, "InspectFailed", message.clone());
        self.event(Level::Warning, "Failed", "Error: InvalidImageName".to_owned());
        Failure { reason: "InvalidImageName", message }
    }

    fn not_inspected(&self, error: &RuntimeError) -> Failure {
        let message = format!("Failed to inspect image {}: {}", self.quoted(), full(error));
        self.event(Level::Warning, "InspectFailed", message.clone());
        self.event(Level::Warning, "Failed", "Error: ImageInspectError".to_owned());
        Failure { reason: "ImageInspectError", message }
    }

    fn not_pulled(&self, error: &RuntimeError) -> Failure {
        let message = full(error);
        self.event(Level::Warning, "Failed", format!("Failed to pull image {}: {message}", self.quoted()));
        self.event(Level::Warning, "Failed", "Error: ErrImagePull".to_owned());
        Failure { reason: "ErrImagePull", message }
    }

    /// As its author wrote it.
    fn quoted(&self) -> String {
        go::quote(self.container.image.as_deref().unwrap_or_default())
    }

    fn event(&self, level: Level, reason: &'static str, message: String) {
        self.context.events.container(self.pod, &self.container.name, level, reason, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_is_meant_when_nothing_is_said() {
        for (image, expected) in [
            ("busybox", "busybox:latest"),
            ("localhost:5000/busybox", "localhost:5000/busybox:latest"),
            ("busybox:1", "busybox:1"),
            ("a/b@sha256:00", "a/b@sha256:00"),
            ("", ""),
        ] {
            assert_eq!(with_tag(image), expected);
        }
    }
}
