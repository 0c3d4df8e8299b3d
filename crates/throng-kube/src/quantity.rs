//! Amounts in the canonical form of Kubernetes' quantities, so that what `kubectl get -o yaml` shows is what was written.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::time::Duration;

/// Cores: `2`, `250m`. Anything below a thousandth of a core is one.
pub(crate) fn cores(cores: f64) -> Quantity {
    // Binary fractions such as 0.1 + 0.2 must not become 301m.
    let milli = (cores * 1e6).round() / 1e3;
    let milli = milli.ceil().clamp(1.0, i64::MAX as f64) as i64;
    Quantity(if milli % 1000 == 0 { (milli / 1000).to_string() } else { format!("{milli}m") })
}

/// Bytes with the largest binary unit that keeps the number whole: `128Mi`, `1500`.
pub(crate) fn bytes(bytes: u64) -> Quantity {
    const UNITS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let (mut value, mut unit) = (bytes, 0);
    while value > 0 && value.is_multiple_of(1024) && unit + 1 < UNITS.len() {
        value /= 1024;
        unit += 1;
    }
    Quantity(format!("{value}{}", UNITS[unit]))
}

/// What is written with a unit of Kubernetes (`200Mi`, `1.5G`, `500m`), in thousandths; `None` if it is no quantity.
pub(crate) fn parse_milli(text: &str) -> Option<u128> {
    const UNITS: [(&str, u128); 14] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("Pi", 1 << 50),
        ("Ei", 1 << 60),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("P", 1_000_000_000_000_000),
        ("E", 1_000_000_000_000_000_000),
        ("m", 0),
        ("", 1),
    ];
    let (unit, factor) = UNITS.iter().find(|(unit, _)| text.ends_with(unit))?;
    let number = &text[..text.len() - unit.len()];
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.len() <= 15 && text.chars().all(|c| c.is_ascii_digit());
    if number.is_empty() || number == "." || !digits(whole) || !digits(part) {
        return None;
    }
    let scale = 10u128.pow(part.len() as u32);
    let all: u128 = format!("{whole}{part}").parse().ok()?;
    let milli = if *factor == 0 { all } else { all.checked_mul(*factor)?.checked_mul(1000)? };
    Some(milli.div_ceil(scale))
}

/// Whole seconds, rounded up, and at least `least`: Kubernetes knows nothing shorter.
pub(crate) fn seconds(time: Duration, least: i32) -> i32 {
    let up = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    i32::try_from(up).unwrap_or(i32::MAX).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_canonical() {
        for (given, text) in
            [(0.25, "250m"), (1.0, "1"), (1.5, "1500m"), (0.1 + 0.2, "300m"), (0.0004, "1m"), (64.0, "64")]
        {
            assert_eq!(cores(given).0, text);
        }
        for (given, text) in [
            (128 << 20, "128Mi"),
            (1 << 30, "1Gi"),
            (1500, "1500"),
            (1536 << 20, "1536Mi"),
            (0, "0"),
            (3 << 10, "3Ki"),
        ] {
            assert_eq!(bytes(given).0, text);
        }
    }

    #[test]
    fn quantities_are_read() {
        for (text, milli) in [
            ("1", Some(1000)),
            ("500m", Some(500)),
            ("200Mi", Some(200 * 1024 * 1024 * 1000)),
            ("1.5k", Some(1_500_000)),
            ("0.5", Some(500)),
            ("", None),
            ("Mi", None),
            ("-1", None),
            ("50%", None),
            (".", None),
        ] {
            assert_eq!(parse_milli(text), milli, "{text}");
        }
    }

    #[test]
    fn times_are_rounded_up() {
        for (millis, least, seconds_) in [(1500, 1, 2), (200, 1, 1), (0, 0, 0), (0, 1, 1), (30_000, 1, 30)] {
            assert_eq!(seconds(Duration::from_millis(millis), least), seconds_);
        }
    }
}
