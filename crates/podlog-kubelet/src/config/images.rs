//! When images that nobody uses are removed (`pkg/kubelet/images/image_gc_manager.go`).

use std::time::Duration;

/// When images that nobody uses are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageGc {
    /// How full the file system of images may be, in hundredths; 100 never removes any. Default 85.
    pub high_percent: u8,
    /// How full it may still be afterwards. Default 80.
    pub low_percent: u8,
    /// Images that are younger stay. Default 2 m.
    pub minimum_age: Duration,
    /// Images that were not used for so long go, however much room there is; `None` (the default) keeps them.
    pub maximum_age: Option<Duration>,
}

impl Default for ImageGc {
    fn default() -> Self {
        ImageGc {
            high_percent: 85,
            low_percent: 80,
            minimum_age: Duration::from_secs(120),
            maximum_age: None,
        }
    }
}
