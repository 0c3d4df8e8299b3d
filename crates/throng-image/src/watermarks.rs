//! When a disk is so full that unneeded images go by themselves.

use std::path::Path;
use std::time::Duration;

/// kubelet's defaults (`imageGCHighThresholdPercent`, `imageGCLowThresholdPercent`, `imageMinimumGCAge` in
/// KubeletConfiguration), and its rules: at or above `high_percent` images go until at most `low_percent` is used;
/// 100 turns it off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    pub high_percent: u8,
    pub low_percent: u8,
    /// Who has just been fetched or used is spared.
    pub min_age: Duration,
}

impl Default for Watermarks {
    fn default() -> Self {
        Watermarks { high_percent: 85, low_percent: 80, min_age: Duration::from_secs(120) }
    }
}

/// Bytes of a file system; what is reserved for root counts as used, as for kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    pub capacity: u64,
    pub available: u64,
}

impl Disk {
    /// The file system that holds `path`.
    pub fn of(path: &Path) -> std::io::Result<Disk> {
        let stat = rustix::fs::statvfs(path)?;
        let block = stat.f_frsize;
        Ok(Disk {
            capacity: stat.f_blocks.saturating_mul(block),
            available: stat.f_bavail.saturating_mul(block),
        })
    }

    /// Rounded up as kubelet does, so that a disk of which only less than a percent is left counts as full.
    pub fn used_percent(&self) -> u8 {
        if self.capacity == 0 {
            return 0;
        }
        let available = u128::from(self.available.min(self.capacity)) * 100 / u128::from(self.capacity);
        100 - available as u8
    }
}

impl Watermarks {
    pub fn is_reached(&self, disk: Disk) -> bool {
        self.high_percent < 100 && disk.used_percent() >= self.high_percent
    }

    /// Whether enough has gone.
    pub fn is_below_low(&self, disk: Disk) -> bool {
        disk.used_percent() <= self.low_percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_kubelets() {
        let used = |capacity, available| Disk { capacity, available }.used_percent();
        assert_eq!(used(1000, 1000), 0);
        assert_eq!(used(1000, 150), 85);
        assert_eq!(used(1000, 159), 85);
        assert_eq!(used(1000, 160), 84);
        assert_eq!(used(1000, 9), 100);
        assert_eq!(used(1000, 2000), 0, "a quota may say more is free than there is");
        assert_eq!(used(0, 0), 0);
        assert_eq!(used(u64::MAX, u64::MAX / 2), 51);
    }

    #[test]
    fn marks_are_reached_at_the_high_one_and_left_at_the_low_one() {
        let marks = Watermarks::default();
        let disk = |percent: u64| Disk { capacity: 100, available: 100 - percent };
        assert!(!marks.is_reached(disk(84)) && marks.is_reached(disk(85)));
        assert!(!marks.is_below_low(disk(81)) && marks.is_below_low(disk(80)));
        let off = Watermarks { high_percent: 100, ..marks };
        assert!(!off.is_reached(disk(100)));
    }
}
