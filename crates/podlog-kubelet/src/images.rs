//! Removes images that nobody uses, when room is short or they are old.
//!
//! Follows `pkg/kubelet/images/image_gc_manager.go`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::time::Instant;

use crate::config::ImageGc;
use crate::runtime::{ContainerRuntime, Images, ListedImage, RuntimeError};

/// When an image was seen first, and when it was in use last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    first: Instant,
    used: Option<Instant>,
}

/// The images of a runtime, as far as they may be removed.
pub(crate) struct ImageCollector {
    runtime: Arc<dyn ContainerRuntime>,
    rules: ImageGc,
    seen: HashMap<String, Seen>,
}

/// What removing images gave back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Freed {
    pub(crate) images: usize,
    pub(crate) bytes: u64,
}

impl ImageCollector {
    pub(crate) fn new(runtime: Arc<dyn ContainerRuntime>, rules: ImageGc) -> Self {
        ImageCollector { runtime, rules, seen: HashMap::new() }
    }

    /// Notes which images there are and which are used, and removes those that were not used for too long.
    ///
    /// # Errors
    /// When the runtime does not answer.
    pub(crate) async fn look(&mut self, now: Instant) -> Result<(), RuntimeError> {
        if self.runtime.images() == Images::Unused {
            return Ok(());
        }
        let unused = self.unused(now).await?;
        let Some(maximum) = self.rules.maximum_age else { return Ok(()) };
        let is_old = |seen: &Seen| now - seen.used.unwrap_or(seen.first) >= maximum;
        let old = unused.into_iter().filter(|(_, seen)| is_old(seen)).map(|(image, _)| image);
        self.remove(old.collect(), u64::MAX).await;
        Ok(())
    }

    /// Removes unused images, those first that were used least recently, until so many bytes were given back.
    ///
    /// # Errors
    /// When the runtime does not answer.
    pub(crate) async fn free(&mut self, bytes: u64, now: Instant) -> Result<Freed, RuntimeError> {
        if self.runtime.images() == Images::Unused {
            return Ok(Freed::default());
        }
        let mut unused = self.unused(now).await?;
        unused.retain(|(_, seen)| now - seen.first >= self.rules.minimum_age);
        unused.sort_by_key(|(_, seen)| (seen.used, seen.first));
        Ok(self.remove(unused.into_iter().map(|(image, _)| image).collect(), bytes).await)
    }

    async fn remove(&mut self, images: Vec<ListedImage>, bytes: u64) -> Freed {
        let mut freed = Freed::default();
        for image in images {
            if freed.bytes >= bytes {
                break;
            }
            match self.runtime.remove_image(&image.id).await {
                Ok(()) => {
                    tracing::info!(image = image.id, names = ?image.names, bytes = image.bytes, "unused image removed");
                    self.seen.remove(&image.id);
                    freed = Freed { images: freed.images + 1, bytes: freed.bytes + image.bytes };
                }
                Err(error) => tracing::warn!(image = image.id, %error, "cannot remove an image"),
            }
        }
        freed
    }

    /// Images that no container is made from and that the runtime does not need itself.
    async fn unused(&mut self, now: Instant) -> Result<Vec<(ListedImage, Seen)>, RuntimeError> {
        let used = self.used().await?;
        let images = self.runtime.list_images().await?;
        let is_used = |image: &ListedImage| {
            used.contains(&image.id) || image.names.iter().any(|name| used.contains(name))
        };
        let known = std::mem::take(&mut self.seen);
        let mut unused = Vec::new();
        for image in images {
            let before = known.get(&image.id).copied().unwrap_or(Seen { first: now, used: None });
            let is_used = is_used(&image);
            let seen = if is_used { Seen { used: Some(now), ..before } } else { before };
            self.seen.insert(image.id.clone(), seen);
            if !is_used && !image.is_pinned {
                unused.push((image, seen));
            }
        }
        Ok(unused)
    }

    /// What containers say they are made from, whether they run or not.
    async fn used(&self) -> Result<HashSet<String>, RuntimeError> {
        let mut used = HashSet::new();
        for container in self.runtime.list_containers(None).await? {
            match self.runtime.container_status(&container.id).await {
                Ok(status) => drop(used.insert(status.image)),
                Err(RuntimeError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(used)
    }
}
