//! What a scalar without quotes means: YAML makes numbers and booleans of some, and Compose makes texts of them again.
//!
//! `MODE: 0755` is the number 493 to every YAML reader, and so the text `493` where a text is wanted. The rules are those
//! of the reader in Docker Compose (go-yaml 3), which takes the forms of YAML 1.2 and the octal ones of 1.1.

use super::Scalar;

/// A scalar as YAML reads it, if that is no text.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Meaning {
    Whole(i128),
    Float(f64),
    Boolean(bool),
}

impl Scalar {
    /// Whether YAML makes a text of it, not a number or a boolean.
    pub fn is_text(&self) -> bool {
        !self.plain || meaning(&self.text).is_none()
    }

    /// The text that Compose makes of what YAML reads here, if that is another one.
    pub fn as_read(&self) -> Option<String> {
        let text = match meaning(&self.text).filter(|_| self.plain)? {
            Meaning::Whole(number) => number.to_string(),
            Meaning::Float(number) => float(number),
            Meaning::Boolean(value) => value.to_string(),
        };
        (text != self.text).then_some(text)
    }
}

fn meaning(text: &str) -> Option<Meaning> {
    match text {
        "true" | "True" | "TRUE" => return Some(Meaning::Boolean(true)),
        "false" | "False" | "FALSE" => return Some(Meaning::Boolean(false)),
        ".nan" | ".NaN" | ".NAN" => return Some(Meaning::Float(f64::NAN)),
        _ => {}
    }
    let (sign, unsigned) = match text.strip_prefix(['+', '-']) {
        Some(rest) => (if text.starts_with('-') { -1 } else { 1 }, rest),
        None => (1, text),
    };
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Some(Meaning::Float(f64::INFINITY * f64::from(sign)));
    }
    // Names such as "infinity", which Rust would take for numbers.
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let digits = unsigned.replace('_', "");
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] if digits.bytes().all(|digit| digit.is_ascii_digit()) => (8, &digits[1..]),
        _ => (10, digits.as_str()),
    };
    let whole = i128::from_str_radix(digits, base).ok().filter(|_| !digits.starts_with(['+', '-']));
    // Beyond that it is a number with a decimal point to Docker's reader.
    if let Some(number) = whole.filter(|number| *number <= i128::from(u64::MAX)) {
        return Some(Meaning::Whole(number * i128::from(sign)));
    }
    let number: f64 = unsigned.parse().ok()?;
    (base == 10 || unsigned.bytes().all(|digit| digit.is_ascii_digit()))
        .then_some(Meaning::Float(number * f64::from(sign)))
}

/// As Go prints it: the fewest digits that tell the number apart, with an exponent below -4 and from 6 on.
fn float(number: f64) -> String {
    /// The exponent from which on it is written (strconv.FormatFloat, 'g', shortest).
    const EXPONENT_FROM: i32 = 6;
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..EXPONENT_FROM).contains(&exponent) {
        return number.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_docker_compose_reads() {
        for (text, read) in [
            ("0755", Some("493")),
            ("0o17", Some("15")),
            ("0x1F", Some("31")),
            ("0b101", Some("5")),
            ("+7", Some("7")),
            ("-08", Some("-8")),
            ("1_000", Some("1000")),
            ("1.10", Some("1.1")),
            ("1e3", Some("1000")),
            (".5", Some("0.5")),
            ("1e30", Some("1e+30")),
            ("1234567.5", Some("1.2345675e+06")),
            ("0.00001", Some("1e-05")),
            ("True", Some("true")),
            ("8080", None),
            ("0", None),
            ("-1", None),
            ("1.5", None),
            ("true", None),
            ("yes", None),
            ("inf", None),
            ("infinity", None),
            ("1.2.3", None),
            ("0x", None),
            ("0xyz", None),
            ("12:30", None),
            ("", None),
        ] {
            assert_eq!(Scalar { text: text.into(), plain: true }.as_read().as_deref(), read, "{text}");
            assert_eq!(Scalar { text: text.into(), plain: false }.as_read(), None, "{text} in quotes");
        }
        for number in ["5", "0x10", "1.5", "1e3", ".inf", "-.INF", ".nan", "true", "FALSE"] {
            assert!(!Scalar { text: number.into(), plain: true }.is_text(), "{number}");
        }
        for text in ["a", "", "yes", "nan", "1.2.3", "0xg", "-", ".", "1e", "12:30", "_1"] {
            assert!(Scalar { text: text.into(), plain: true }.is_text(), "{text}");
        }
    }
}
