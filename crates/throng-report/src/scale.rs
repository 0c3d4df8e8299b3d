//! From values to positions between 0 and 1, and the ticks that a person would have chosen.

use crate::quantity::{Unit, digits};

/// How an axis spreads its values. Every variant maps finite values into 0..=1 and clamps what lies outside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    Linear {
        low: f64,
        high: f64,
    },
    /// Both ends positive.
    Log {
        low: f64,
        high: f64,
    },
    /// Percentiles as shares: equal steps are 0, 90 %, 99 %, 99.9 %: the distance is log10(1 / (1 - p)).
    Tail {
        nines: f64,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    /// 0 to 1.
    pub at: f64,
    pub text: String,
}

/// Beyond this ratio of largest to smallest, equal steps hide the small values, and an axis is logarithmic.
pub const LOG_FROM: f64 = 12.0;

impl Scale {
    /// From zero to a round number at or above `top`.
    pub fn from_zero(top: f64) -> Scale {
        let top = if top.is_finite() && top > 0.0 { top } else { 1.0 };
        let step = nice_step(top / 4.0);
        Scale::Linear { low: 0.0, high: (top / step - 1e-9).ceil().max(1.0) * step }
    }

    /// Logarithmic, ends widened to 1, 2 or 5 times a power of ten.
    pub fn log(low: f64, high: f64) -> Scale {
        let low = if low.is_finite() && low > 0.0 { low } else { 1.0 };
        let high = if high.is_finite() && high > low { high } else { low * 2.0 };
        Scale::Log { low: mantissa_down(low), high: mantissa_up(high) }
    }

    /// Logarithmic where the values span much, else linear from zero.
    pub fn fitting(low: f64, high: f64) -> Scale {
        if low > 0.0 && high / low > LOG_FROM { Scale::log(low, high) } else { Scale::from_zero(high) }
    }

    pub fn at(&self, value: f64) -> f64 {
        let place = match *self {
            Scale::Linear { low, high } => (value - low) / (high - low),
            Scale::Log { low, high } => (value.max(low).ln() - low.ln()) / (high.ln() - low.ln()),
            Scale::Tail { nines } => -(1.0 - value.clamp(0.0, 1.0)).max(1e-300).log10() / nines,
        };
        if place.is_finite() { place.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// About `want` ticks in the unit's own words.
    pub fn ticks(&self, unit: Unit, want: usize) -> Vec<Tick> {
        match *self {
            Scale::Linear { low, high } => self.linear_ticks(unit, low, high, want),
            Scale::Log { low, high } => self.log_ticks(unit, low, high, want),
            Scale::Tail { nines } => [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999]
                .into_iter()
                .filter(|p: &f64| -(1.0 - p).log10() <= nines + 1e-6)
                .map(|p| Tick { at: self.at(p), text: percentile_label(p) })
                .collect(),
        }
    }

    fn linear_ticks(&self, unit: Unit, low: f64, high: f64, want: usize) -> Vec<Tick> {
        let (divisor, _) = unit.axis(high);
        let rough = (high - low) / divisor / want.max(1) as f64;
        let step = match unit {
            Unit::Count => nice_step(rough).max(1.0),
            Unit::Seconds if divisor == 3_600.0 => hour_step(rough),
            _ => nice_step(rough),
        };
        let first = (low / divisor / step - 1e-9).ceil();
        let last = (high / divisor / step + 1e-9).floor();
        let steps = if (last - first).is_finite() { (last - first).clamp(0.0, MAX_TICKS) as u32 } else { 0 };
        (0..=steps)
            .map(|i| (first + f64::from(i)) * step)
            .map(|v| Tick { at: self.at(v * divisor), text: digits(v) })
            .collect()
    }

    fn log_ticks(&self, unit: Unit, low: f64, high: f64, want: usize) -> Vec<Tick> {
        let (from, to) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let decades = (high / low).log10().max(0.3);
        let mantissas: &[f64] = match want as f64 / decades {
            room if room >= 2.5 => &[1.0, 2.0, 5.0],
            room if room >= 1.6 => &[1.0, 3.0],
            _ => &[1.0],
        };
        let every = (decades / want.max(1) as f64).ceil().max(1.0) as usize;
        (from..=to)
            .step_by(every)
            .flat_map(|exponent| mantissas.iter().map(move |m| m * 10f64.powi(exponent)))
            .filter(|v| *v >= low * (1.0 - 1e-9) && *v <= high * (1.0 + 1e-9))
            .map(|v| Tick { at: self.at(v), text: unit.text(v) })
            .collect()
    }
}

const MAX_TICKS: f64 = 24.0;

/// `99.9 %` for 0.999.
pub fn percentile_label(share: f64) -> String {
    let text = format!("{:.4}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// 1, 2 or 5 times a power of ten, at or above `rough`.
fn nice_step(rough: f64) -> f64 {
    if rough.is_finite() && rough > 0.0 { mantissa_up(rough) } else { 1.0 }
}

/// Steps by which people count hours, at or above `rough`.
fn hour_step(rough: f64) -> f64 {
    let usual = [0.5, 1.0, 2.0, 3.0, 6.0, 12.0, 24.0, 48.0, 168.0];
    usual.into_iter().find(|step| *step >= rough).unwrap_or_else(|| nice_step(rough))
}

fn mantissa_up(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|m| m * power)
        .find(|v| *v >= value * (1.0 - 1e-9))
        .unwrap_or(10.0 * power)
}

fn mantissa_down(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|m| m * power).find(|v| *v <= value * (1.0 + 1e-9)).unwrap_or(power)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ticks_are_round_and_share_one_unit() {
        let texts = |scale: Scale, unit, want| -> Vec<String> {
            scale.ticks(unit, want).into_iter().map(|t| t.text).collect()
        };
        assert_eq!(texts(Scale::from_zero(87_000.0), Unit::Latency, 5), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(
            texts(Scale::log(12_000.0, 400_000.0), Unit::Latency, 6),
            ["10 ms", "20 ms", "50 ms", "100 ms", "200 ms", "500 ms"]
        );
        assert_eq!(
            texts(Scale::Tail { nines: 4.0 }, Unit::Share, 5),
            ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]
        );
        let day = Scale::Linear { low: 0.0, high: 86_400.0 };
        assert_eq!(texts(day, Unit::Seconds, 9), ["0", "3", "6", "9", "12", "15", "18", "21", "24"]);
        assert_eq!(texts(Scale::from_zero(3.0), Unit::Count, 4), ["0", "1", "2", "3"]);
    }

    proptest! {
        #[test]
        fn places_stay_on_the_axis_and_keep_their_order(
            low in proptest::num::f64::ANY, high in proptest::num::f64::ANY,
            a in proptest::num::f64::ANY, b in proptest::num::f64::ANY,
        ) {
            for scale in [Scale::from_zero(high), Scale::log(low, high), Scale::fitting(low, high)] {
                let (x, y) = (scale.at(a), scale.at(b));
                prop_assert!((0.0..=1.0).contains(&x) && (0.0..=1.0).contains(&y));
                if a.is_finite() && b.is_finite() && a <= b && a.abs() < 1e15 && b.abs() < 1e15 && high.abs() < 1e15 && high.abs() > 1e-15 && low.abs() > 1e-15 && low.abs() < 1e15 {
                    prop_assert!(x <= y);
                }
                prop_assert!(scale.ticks(Unit::Latency, 6).len() <= 40);
            }
        }
    }
}
