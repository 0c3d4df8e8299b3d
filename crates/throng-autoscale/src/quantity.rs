//! Kubernetes quantities: decimal numbers with a suffix, exact to a billionth.
//!
//! What is read: an optional sign, digits with an optional point, and a suffix: `n u m k M G T P E` (powers of 1000),
//! `Ki Mi Gi Ti Pi Ei` (powers of 1024), or an exponent as in `1e3`. What is finer than a billionth is rounded away from
//! zero, and so is what is finer than a thousandth wherever the controller counts in thousandths.

use serde::de::{self, Deserialize, Deserializer, Visitor};
use std::fmt;

/// Longest text that is read. Every quantity that fits the range can be written in far less.
pub const LENGTH_MOST: usize = 64;
const NANOS: i128 = 1_000_000_000;
const NANOS_PER_MILLI: i128 = 1_000_000;
/// Powers of ten that fit an `i128`.
const POWER_MOST: u32 = 38;

/// A number in billionths, whose thousandths fit an `i64`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    nanos: i128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("{0}")]
    NotOne(&'static str),
    #[error("the number is too large: 9223372036854775807m is the most that is counted")]
    TooLarge,
    #[error("the text is longer than {LENGTH_MOST} characters")]
    TooLong,
}

impl Quantity {
    pub const fn from_milli(milli: i64) -> Quantity {
        Quantity { nanos: milli as i128 * NANOS_PER_MILLI }
    }

    /// What meters of CPU report: billionths.
    pub const fn from_nanos(nanos: i64) -> Quantity {
        Quantity { nanos: nanos as i128 }
    }

    /// Thousandths, rounded away from zero.
    pub fn milli(self) -> i64 {
        // The constructors see to the range.
        divide_away(self.nanos, NANOS_PER_MILLI) as i64
    }

    pub fn is_positive(self) -> bool {
        self.nanos > 0
    }

    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// The number as a float, computed as the controller does it: the digits of the canonical form times its power of ten.
    pub fn as_f64(self) -> f64 {
        let (mut digits, mut power) = (self.nanos, -9);
        while digits != 0 && digits % 1000 == 0 && power < 18 {
            digits /= 1000;
            power += 3;
        }
        let ten = 10f64.powi(i32::abs(power));
        digits as f64 * if power < 0 { 1.0 / ten } else { ten }
    }

    /// The canonical text with a decimal suffix: no fraction, the largest suffix that loses nothing.
    pub fn decimal(self) -> String {
        const SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        scaled(self.nanos, 1000, &SUFFIXES)
    }

    /// The canonical text with a binary suffix, or [`decimal`](Self::decimal) below 1Ki and for a number with a fraction.
    pub fn binary(self) -> String {
        const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        let whole = self.nanos / NANOS;
        if self.nanos % NANOS != 0 || whole.abs() < 1024 {
            return self.decimal();
        }
        scaled(whole, 1024, &SUFFIXES)
    }
}

fn scaled(mut digits: i128, step: i128, suffixes: &[&str]) -> String {
    if digits == 0 {
        return "0".into();
    }
    let mut suffix = 0;
    while digits % step == 0 && suffix + 1 < suffixes.len() {
        digits /= step;
        suffix += 1;
    }
    format!("{digits}{}", suffixes[suffix])
}

/// Division that rounds away from zero, for a positive divisor.
fn divide_away(value: i128, divisor: i128) -> i128 {
    let quotient = value / divisor;
    if value % divisor == 0 { quotient } else { quotient + value.signum() }
}

/// What a suffix multiplies with.
#[derive(Clone, Copy)]
enum Scale {
    Ten(i64),
    Two(u32),
}

fn suffix(text: &str) -> Option<Scale> {
    let scale = match text {
        "n" => Scale::Ten(-9),
        "u" => Scale::Ten(-6),
        "m" => Scale::Ten(-3),
        "" => Scale::Ten(0),
        "k" => Scale::Ten(3),
        "M" => Scale::Ten(6),
        "G" => Scale::Ten(9),
        "T" => Scale::Ten(12),
        "P" => Scale::Ten(15),
        "E" => Scale::Ten(18),
        "Ki" => Scale::Two(10),
        "Mi" => Scale::Two(20),
        "Gi" => Scale::Two(30),
        "Ti" => Scale::Two(40),
        "Pi" => Scale::Two(50),
        "Ei" => Scale::Two(60),
        _ => Scale::Ten(text.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?.into()),
    };
    Some(scale)
}

impl std::str::FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Quantity, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::NotOne("an empty text is no quantity"));
        }
        if text.len() > LENGTH_MOST {
            return Err(QuantityError::TooLong);
        }
        let negative = text.starts_with('-');
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let digits_end = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (whole, rest) = unsigned.split_at(digits_end(unsigned));
        let (fraction, rest) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(digits_end(rest)),
            None => ("", rest),
        };
        let scale = suffix(rest).ok_or(QuantityError::NotOne(
            "it is a number with one of the suffixes n u m k M G T P E Ki Mi Gi Ti Pi Ei, or an exponent as in 1e3",
        ))?;
        let fraction = fraction.trim_end_matches('0');
        let nanos = nanos(whole, fraction, scale).ok_or(QuantityError::TooLarge)?;
        let quantity = Quantity { nanos: if negative { -nanos } else { nanos } };
        let milli = divide_away(nanos, NANOS_PER_MILLI);
        if milli > i128::from(i64::MAX) { Err(QuantityError::TooLarge) } else { Ok(quantity) }
    }
}

/// Billionths of digits, a fraction's digits and a scale; `None` if that is beyond every range.
fn nanos(whole: &str, fraction: &str, scale: Scale) -> Option<i128> {
    let mut value: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    let mut power = 9 - i64::try_from(fraction.len()).ok()?;
    match scale {
        Scale::Ten(more) => power += more,
        Scale::Two(bits) => value = value.checked_mul(1 << bits)?,
    }
    if value == 0 {
        return Some(0);
    }
    let steps = u32::try_from(power.unsigned_abs()).unwrap_or(u32::MAX);
    if power >= 0 {
        value.checked_mul(10i128.checked_pow(steps)?)
    } else if steps > POWER_MOST {
        // Whoever asks for something gets something, however little.
        Some(1)
    } else {
        Some(divide_away(value, 10i128.pow(steps)))
    }
}

struct QuantityVisitor;

impl Visitor<'_> for QuantityVisitor {
    type Value = Quantity;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a Kubernetes quantity such as \"250m\" or \"64Mi\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
        text.trim().parse().map_err(|error| E::custom(format!("{text:?} is no quantity: {error}")))
    }

    // The API server takes bare numbers too.
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Quantity, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Quantity, E> {
        self.visit_str(&format!("{number:e}"))
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Quantity, D::Error> {
        deserializer.deserialize_any(QuantityVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn milli(text: &str) -> Option<i64> {
        text.parse::<Quantity>().ok().map(Quantity::milli)
    }

    #[test]
    fn every_form_is_read() {
        for (text, expected) in [
            ("0", 0),
            ("250m", 250),
            ("2", 2000),
            ("+2", 2000),
            ("-2", -2000),
            ("0.5", 500),
            (".5", 500),
            ("5.", 5000),
            ("007", 7000),
            ("1.5k", 1_500_000),
            ("1k", 1_000_000),
            ("1M", 1_000_000_000),
            ("1G", 1_000_000_000_000),
            ("2T", 2_000_000_000_000_000),
            ("3P", 3_000_000_000_000_000_000),
            ("1Ki", 1_024_000),
            ("1.5Ki", 1_536_000),
            ("64Mi", 67_108_864_000),
            ("1Gi", 1_073_741_824_000),
            ("1Ti", 1_099_511_627_776_000),
            ("1Pi", 1_125_899_906_842_624_000),
            ("1e3", 1_000_000),
            ("1E3", 1_000_000),
            ("1e+3", 1_000_000),
            ("1.5e-1", 150),
            ("12e-3", 12),
            ("1u", 1),
            ("1n", 1),
            ("1500u", 2),
            ("1000u", 1),
            ("1001u", 2),
            ("283235n", 1),
            ("2832350n", 3),
            ("0.1m", 1),
            ("1e-30", 1),
            ("1e-2000000000", 1),
            ("-1500u", -2),
            ("0e2000000000", 0),
            ("9223372036854775807m", i64::MAX),
            ("0.3", 300),
        ] {
            assert_eq!(milli(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "", " 1", "1 ", "1i", "1mi", "1ki", "1K", "1g", "1.1.1", "1,5", "e", "1e", "1e3m", "1-5", "--1",
            "1+1", "0x10", "abc", "10%", "1e3.5", "NaN", "inf",
        ] {
            assert!(text.parse::<Quantity>().is_err(), "{text:?}");
        }
        for text in ["10E", "9223372036854775808m", "8Ei", "1e2000000000"] {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError::TooLarge), "{text}");
        }
        assert_eq!("0".repeat(65).parse::<Quantity>(), Err(QuantityError::TooLong));
    }

    #[test]
    fn canonical_texts() {
        for (text, decimal, binary) in [
            ("0", "0", "0"),
            ("0.17", "170m", "170m"),
            ("1500m", "1500m", "1500m"),
            ("2000m", "2", "2"),
            ("12000", "12k", "12000"),
            ("1000000", "1M", "1000000"),
            ("1024", "1024", "1Ki"),
            ("1023", "1023", "1023"),
            ("1536Ki", "1572864", "1536Ki"),
            ("64Mi", "67108864", "64Mi"),
            ("1025", "1025", "1025"),
            ("2000Mi", "2097152k", "2000Mi"),
            ("1024.5", "1024500m", "1024500m"),
            ("-2Ki", "-2048", "-2Ki"),
            ("3u", "3u", "3u"),
        ] {
            let quantity: Quantity = text.parse().expect("a quantity");
            assert_eq!(quantity.decimal(), decimal, "{text}");
            assert_eq!(quantity.binary(), binary, "{text}");
        }
    }

    #[test]
    fn tolerances_are_the_floats_that_people_write() {
        for (text, expected) in
            [("0.05", 0.05), ("50m", 0.05), ("0.3", 0.3), ("1", 1.0), ("0", 0.0), ("2k", 2000.0)]
        {
            assert_eq!(text.parse::<Quantity>().expect("a quantity").as_f64(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn printing_loses_nothing(milli in -i64::MAX..=i64::MAX) {
            let quantity = Quantity::from_milli(milli);
            prop_assert_eq!(quantity.milli(), milli);
            prop_assert_eq!(quantity.decimal().parse::<Quantity>(), Ok(quantity));
            prop_assert_eq!(quantity.binary().parse::<Quantity>(), Ok(quantity));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-+]?[0-9.]{0,25}[a-zA-Z]{0,2}[-+]?[0-9]{0,6}") {
            if let Ok(quantity) = text.parse::<Quantity>() {
                prop_assert_eq!(quantity.decimal().parse::<Quantity>(), Ok(quantity));
            }
        }
    }
}
