//! Sizes, shares and durations as people write them, read and printed the same way everywhere.

use std::time::Duration;

/// A text that is not what was expected there; the message says what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(pub(crate) String);

/// A size in bytes as Compose writes it: `64m`, `1.5gb`, `2GiB`, `1048576`, units in powers of 1,024.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let wrong =
        || UnitError(format!("{text:?} is not a size; write a number with b, k, m, g or t, as in 64m"));
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let bytes = number * (1u64 << shift) as f64;
    if bytes.is_finite() && bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(wrong()) }
}

/// The longest duration that can be written, about 292 years: Go's, which counts nanoseconds in 63 bits. Any moment of
/// today's clocks can be put off by it several times.
pub const LONGEST: Duration = Duration::from_nanos(i64::MAX as u64);

/// A duration as Compose and Go write it: `90s`, `1m30s`, `1.5h`, `200ms`, `10us`, `5ns`, at most [`LONGEST`]. A bare `0`
/// is zero.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let wrong =
        || UnitError(format!("{text:?} is not a duration; write numbers with units, as in 1m30s or 200ms"));
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut seconds = 0f64;
    while !rest.is_empty() {
        let split = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..split].parse().map_err(|_| wrong())?;
        rest = &rest[split..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..end] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                _ => return Err(wrong()),
            };
        rest = &rest[end..];
    }
    let duration = Duration::try_from_secs_f64(seconds).ok().filter(|duration| *duration <= LONGEST);
    duration
        .ok_or_else(|| UnitError(format!("{text:?} is longer than 292 years, the longest duration there is")))
}

/// Bits a second as network tools write them: `100mbit`, `1.5gbit`, `64 kbit/s`, `250000`, units in powers of 1,000.
pub fn parse_bits(text: &str) -> Result<u64, UnitError> {
    let trimmed = text.trim().to_ascii_lowercase();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let wrong = || {
        UnitError(format!(
            "{text:?} is not a bandwidth; write a number with kbit, mbit or gbit, as in 100mbit"
        ))
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.trim().trim_end_matches("/s");
    let factor = match unit {
        "" | "bit" => 1.0,
        "k" | "kbit" => 1e3,
        "m" | "mbit" => 1e6,
        "g" | "gbit" => 1e9,
        _ => return Err(wrong()),
    };
    let bits = number * factor;
    if bits.is_finite() && bits < u64::MAX as f64 { Ok(bits.round() as u64) } else { Err(wrong()) }
}

/// A part of the whole, 0 to 1, as people write it: `1%`, `0.5 %`. A bare number is a percentage, too.
pub fn parse_percent(text: &str) -> Result<f64, UnitError> {
    let wrong = || UnitError(format!("{text:?} is not a percentage from 0% to 100%, as in 1% or 0.5%"));
    let number = text.trim().trim_end_matches('%').trim();
    let percent: f64 = number.parse().map_err(|_| wrong())?;
    if (0.0..=100.0).contains(&percent) { Ok(percent / 100.0) } else { Err(wrong()) }
}

/// `1.5 GiB`, `12.0 MiB`, `312 B`.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A latency with three significant digits: `850 µs`, `12.3 ms`, `1.04 s`.
pub fn format_micros(micros: u64) -> String {
    fn three(value: f64) -> String {
        if value >= 99.95 {
            format!("{value:.0}")
        } else if value >= 9.995 {
            format!("{value:.1}")
        } else {
            format!("{value:.2}")
        }
    }
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{} ms", three(micros as f64 / 1e3)),
        _ => format!("{} s", three(micros as f64 / 1e6)),
    }
}

/// Compose's own notation, shortest form that keeps the value to the millisecond: `1m30s`, `200ms`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".into();
    }
    let (h, m, s, ms) = (millis / 3_600_000, millis / 60_000 % 60, millis / 1000 % 60, millis % 1000);
    [(h, "h"), (m, "m"), (s, "s"), (ms, "ms")]
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, unit)| format!("{n}{unit}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_as_compose_writes_them() {
        for (text, bytes) in
            [("64m", 64 << 20), ("1.5gb", 3 << 29), ("2GiB", 2 << 30), ("10", 10), ("1 k", 1024)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "m", "12x", "-1", "1..2", "99999999999t"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_as_go_writes_them() {
        for (text, millis) in
            [("90s", 90_000), ("1m30s", 90_000), ("200ms", 200), ("1.5h", 5_400_000), ("0", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "1x", "1m3", "--1s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!(parse_duration("2562047h").is_ok_and(|longest| longest <= LONGEST));
        for text in ["2562048h", "18446744073709551615s", "99999999999999999999999999999h"] {
            let error = parse_duration(text).expect_err(text).to_string();
            assert!(error.contains("longer than 292 years"), "{error}");
        }
    }

    #[test]
    fn bandwidths_and_percentages() {
        for (text, bits) in
            [("100mbit", 100_000_000), ("1.5 Gbit/s", 1_500_000_000), ("64kbit/s", 64_000), ("9600", 9_600)]
        {
            assert_eq!(parse_bits(text), Ok(bits), "{text}");
        }
        for text in ["", "mbit", "-1mbit", "1 mb", "1tbit", "fast"] {
            assert!(parse_bits(text).is_err(), "{text}");
        }
        for (text, share) in [("1%", 0.01), ("0.5 %", 0.005), ("100", 1.0), ("0%", 0.0)] {
            assert_eq!(parse_percent(text), Ok(share), "{text}");
        }
        for text in ["", "%", "101%", "-1%", "NaN", "x"] {
            assert!(parse_percent(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_formatted_duration_reads_back() {
        for millis in [0, 1, 999, 1000, 61_001, 3_600_000, 90_061_500] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
    }

    #[test]
    fn latencies_keep_three_digits() {
        for (micros, text) in
            [(850, "850 µs"), (12_345, "12.3 ms"), (1_040_000, "1.04 s"), (99_960, "100 ms")]
        {
            assert_eq!(format_micros(micros), text);
        }
    }
}
