//! Sizes and durations as people write them.

use std::time::Duration;

/// Longest of all times that can be set: a day.
const MAX_SECONDS: f64 = 86_400.0;

/// No image beyond this: a PDF's streams end at 2 GiB, and a conversion holds image and PDF at once.
const MAX_IMAGE: u64 = 1 << 30;

/// `500`, `64KiB`, `20MiB`, `20MB`, `1GiB`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor: u64 = match text[digits..].trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        unit => {
            return Err(format!(
                "unknown unit {unit:?}; write a whole number and B, KiB, MiB, GiB, KB, MB or GB"
            ));
        }
    };
    let number: u64 = text[..digits].parse().map_err(|_| "write a size like 20MiB".to_owned())?;
    number
        .checked_mul(factor)
        .filter(|&size| size > 0)
        .ok_or_else(|| "must be more than 0 and fit in 64 bits".to_owned())
}

/// As [`bytes()`], at most 1 GiB.
pub fn max_bytes(text: &str) -> Result<usize, String> {
    let size = bytes(text)?;
    if size > MAX_IMAGE {
        return Err("must be at most 1GiB".to_owned());
    }
    Ok(size as usize)
}

/// `250ms`, `8s`, `1.5s`, `2m`; a plain number counts seconds. At most a day.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let factor = match text[digits..].trim_start() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("unknown unit {unit:?}; write a number and ms, s, m or h")),
    };
    let number: f64 = text[..digits].parse().map_err(|_| "write a time like 8s".to_owned())?;
    let seconds = number * factor;
    if !(0.0..=MAX_SECONDS).contains(&seconds) {
        return Err("must be at most 24h".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// As [`duration()`], but not none at all: with a limit of zero nothing would ever be in time.
pub fn time_limit(text: &str) -> Result<Duration, String> {
    duration(text)
        .and_then(|time| if time.is_zero() { Err("must be more than 0".to_owned()) } else { Ok(time) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in
            [("1", 1), ("64KiB", 65_536), ("20 MiB", 20 << 20), ("3MB", 3_000_000), ("2g", 2 << 30)]
        {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in
            ["", "MiB", "-1", "1.5MiB", "0", "12 apples", "99999999999999999999", "18446744073709551615k"]
        {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert!(max_bytes("1GiB").is_ok() && max_bytes("1025MiB").is_err());
    }

    #[test]
    fn durations() {
        for (text, expected) in
            [("250ms", 250), ("8s", 8000), ("1.5s", 1500), ("2m", 120_000), ("3", 3000), ("0s", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(expected)), "{text}");
        }
        for text in ["", "s", "-1s", "1.2.3s", "25h", "1 week"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(time_limit("0s").is_err() && time_limit("1ms").is_ok() && time_limit("1 week").is_err());
    }
}
