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

impl ImageGc {
    /// How many bytes have to be given back on a file system with so many bytes left of all; `None` when there is room enough.
    pub fn surplus(&self, left: u64, all: u64) -> Option<u64> {
        let used_percent = 100 - (u128::from(left.min(all)) * 100).checked_div(u128::from(all))?;
        let is_too_full = self.high_percent < 100 && used_percent >= u128::from(self.high_percent);
        let wanted = all / 100 * u64::from(100_u8.saturating_sub(self.low_percent));
        is_too_full.then(|| wanted.saturating_sub(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_has_something_to_give_back() {
        let check = |high_percent, low_percent, left, all, expected| {
            let rules = ImageGc { high_percent, low_percent, ..ImageGc::default() };
            assert_eq!(rules.surplus(left, all), expected, "{high_percent} {low_percent} {left} {all}");
        };
        check(85, 80, 160, 1000, None);
        check(85, 80, 150, 1000, Some(50));
        check(85, 80, 0, 1000, Some(200));
        check(100, 80, 0, 1000, None);
        check(85, 80, 0, 0, None);
    }
}
