//! Readings of single settings: durations, sizes.

use std::time::Duration;

use jiff::SignedDuration;

/// Reads a duration as people write it: `90s`, `2m`, `1h 30m`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    Duration::try_from(text.parse::<SignedDuration>().ok()?).ok()
}

/// Reads a time span that may be counted in days of 24 hours: `400d`, `36h`.
pub(super) fn age(text: &str) -> Option<Duration> {
    match text.trim().strip_suffix('d') {
        Some(days) => Some(Duration::from_secs(days.trim().parse::<u64>().ok()?.checked_mul(24 * 3_600)?)),
        None => duration(text),
    }
}

/// Reads a size in bytes: `512MiB`, `1GiB`, `2GB`.
pub(super) fn size_bytes(text: &str) -> Option<usize> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor).filter(|bytes| *bytes > 0)
}
