//! Figures as people read them: three significant digits, a unit, never `NaN`.

/// What a number measures; decides how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Microseconds.
    Latency,
    /// Seconds since a run's or a load's start.
    Seconds,
    /// Answers per second.
    Rate,
    Cores,
    Bytes,
    /// 0 to 1, written in per cent.
    Share,
    Count,
}

/// What stands where there is no figure.
pub const MISSING: &str = "–";

impl Unit {
    /// The value with its unit, three significant digits.
    pub fn text(self, value: f64) -> String {
        if !value.is_finite() {
            return MISSING.into();
        }
        match self {
            Unit::Latency => latency(value),
            Unit::Seconds => seconds(value),
            Unit::Rate => format!("{}/s", digits(value)),
            Unit::Cores => digits(value),
            Unit::Bytes => bytes(value),
            Unit::Share => format!("{} %", digits(value * 100.0)),
            Unit::Count => grouped(value),
        }
    }

    /// The divisor and the name that suit a linear axis which ends at `top`, so that all its ticks share one unit.
    pub fn axis(self, top: f64) -> (f64, &'static str) {
        let top = top.abs();
        match self {
            Unit::Latency if top < 1e3 => (1.0, "µs"),
            Unit::Latency if top < 1e6 => (1e3, "ms"),
            Unit::Latency => (1e6, "s"),
            Unit::Bytes if top < KIB => (1.0, "B"),
            Unit::Bytes if top < KIB * KIB => (KIB, "KiB"),
            Unit::Bytes if top < KIB * KIB * KIB => (KIB * KIB, "MiB"),
            Unit::Bytes => (KIB * KIB * KIB, "GiB"),
            Unit::Seconds if top > 7_200.0 => (3_600.0, "h"),
            Unit::Seconds if top > 600.0 => (60.0, "min"),
            Unit::Seconds => (1.0, "s"),
            Unit::Share => (0.01, "%"),
            Unit::Rate => (1.0, "/s"),
            Unit::Cores | Unit::Count => (1.0, ""),
        }
    }
}

const KIB: f64 = 1024.0;

/// `11.2–11.5 ms`: the unit once if both have it.
pub fn range(unit: Unit, low: f64, high: f64) -> String {
    let (low, high) = (unit.text(low), unit.text(high));
    let split = |text: &str| text.find([' ', '/']).unwrap_or(text.len());
    let (l, h) = (split(&low), split(&high));
    if low[l..] == high[h..] { format!("{}–{high}", &low[..l]) } else { format!("{low} – {high}") }
}

pub fn latency(micros: f64) -> String {
    // Judged after rounding, so that 999.7 µs is 1 ms and not "1,000 µs".
    if micros.abs() < 999.5 {
        format!("{} µs", digits(micros))
    } else if micros.abs() < 999.5e3 {
        format!("{} ms", digits(micros / 1e3))
    } else {
        format!("{} s", digits(micros / 1e6))
    }
}

pub fn seconds(value: f64) -> String {
    if !value.is_finite() {
        return MISSING.into();
    }
    let whole = value.abs().round();
    let sign = if value < 0.0 { "-" } else { "" };
    if whole < 120.0 {
        format!("{} s", digits(value))
    } else if whole < 7_200.0 {
        format!("{sign}{} min {:02} s", (whole / 60.0).floor(), whole % 60.0)
    } else {
        let minutes = (whole / 60.0).round();
        format!("{sign}{} h {:02} min", grouped((minutes / 60.0).floor()), minutes % 60.0)
    }
}

pub fn bytes(value: f64) -> String {
    let (mut value, mut unit) = (value, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value.abs() < 1_023.5 {
            break;
        }
        value /= KIB;
        unit = larger;
    }
    format!("{} {unit}", digits(value))
}

/// `8.1 times`, `12 times`, `0.35 times`.
pub fn times(ratio: f64) -> String {
    if !ratio.is_finite() {
        return MISSING.into();
    }
    let decimals = match ratio.abs() {
        size if size >= 9.95 => 0,
        size if size >= 0.95 => 1,
        _ => 2,
    };
    if decimals == 0 { grouped(ratio) } else { format!("{ratio:.decimals$}") }
}

/// Three significant digits without trailing zeros; thousands are grouped.
pub fn digits(value: f64) -> String {
    if !value.is_finite() {
        return MISSING.into();
    }
    let decimals = match value.abs() {
        size if size >= 99.95 => return grouped(value),
        size if size >= 9.995 => 1,
        size if size >= 0.9995 => 2,
        size if size >= 0.0995 => 3,
        size if size >= 0.00005 => 4,
        _ => return "0".into(),
    };
    let text = format!("{value:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// A whole number with a comma at each thousand.
pub fn grouped(value: f64) -> String {
    if !value.is_finite() {
        return MISSING.into();
    }
    let text = format!("{:.0}", value.abs());
    let mut out = String::with_capacity(text.len() + text.len() / 3 + 1);
    if value <= -0.5 {
        out.push('-');
    }
    for (index, digit) in text.chars().enumerate() {
        if index > 0 && (text.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

pub fn count(value: u64) -> String {
    grouped(value as f64)
}

/// Small numbers as words, for the beginning of a sentence.
pub fn number_word(value: u64) -> String {
    const WORDS: [&str; 13] = [
        "No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven",
        "Twelve",
    ];
    usize::try_from(value).ok().and_then(|v| WORDS.get(v)).map_or_else(|| count(value), |w| w.to_string())
}

/// `1 replica`, `3 replicas`.
pub fn plural(value: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(value), if value == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        let table = [
            (Unit::Latency, 12.0, "12 µs"),
            (Unit::Latency, 999.7, "1 ms"),
            (Unit::Latency, 12_345.0, "12.3 ms"),
            (Unit::Latency, 1_234_567.0, "1.23 s"),
            (Unit::Latency, 0.0, "0 µs"),
            (Unit::Seconds, 1.5, "1.5 s"),
            (Unit::Seconds, 125.0, "2 min 05 s"),
            (Unit::Seconds, 7_260.0, "2 h 01 min"),
            (Unit::Seconds, 7_199.6, "2 h 00 min"),
            (Unit::Rate, 1_234.4, "1,234/s"),
            (Unit::Cores, 0.5, "0.5"),
            (Unit::Bytes, 1_048_576.0, "1 MiB"),
            (Unit::Bytes, 1_023.9, "1 KiB"),
            (Unit::Share, 0.005, "0.5 %"),
            (Unit::Count, 1_234_567.0, "1,234,567"),
            (Unit::Count, -0.2, "0"),
            (Unit::Count, f64::NAN, "–"),
            (Unit::Rate, f64::INFINITY, "–"),
        ];
        for (unit, value, expected) in table {
            assert_eq!(unit.text(value), expected, "{unit:?} {value}");
        }
        assert_eq!(range(Unit::Latency, 11_200.0, 11_500.0), "11.2–11.5 ms");
        assert_eq!(range(Unit::Latency, 900.0, 1_100.0), "900 µs – 1.1 ms");
        assert_eq!(range(Unit::Rate, 80.0, 90.0), "80–90/s");
        assert_eq!(times(8.14), "8.1");
        assert_eq!(times(12.4), "12");
        assert_eq!(times(0.352), "0.35");
        assert_eq!(number_word(10), "Ten");
        assert_eq!(number_word(50), "50");
        assert_eq!(plural(1, "replica"), "1 replica");
    }
}
