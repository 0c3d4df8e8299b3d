//! Conversions of floating-point numbers as the controller's compiled code does them on amd64.
//!
//! Go leaves the result open where a float does not fit the integer. On amd64 the processor answers with the smallest
//! integer, which is why an immense metric makes Kubernetes 1.34 shrink a target. Later versions cap instead.

/// The smallest whole number that is not below `value`, or `i32::MIN` if that does not fit.
pub fn ceil_i32(value: f64) -> i32 {
    truncate_i32(value.ceil())
}

/// `value` without its fraction, or `i32::MIN` if that does not fit.
pub fn truncate_i32(value: f64) -> i32 {
    let whole = value.trunc();
    if whole >= f64::from(i32::MIN) && whole <= f64::from(i32::MAX) { whole as i32 } else { i32::MIN }
}

/// The smallest whole number that is not below `value`, or `i64::MIN` if that does not fit.
pub fn ceil_i64(value: f64) -> i64 {
    let whole = value.ceil();
    // 2^63 is a float, 2^63 - 1 is not.
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&whole) {
        whole as i64
    } else {
        i64::MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_become_integers_as_on_amd64() {
        for (value, expected) in [
            (2.0, 2),
            (2.000_000_1, 3),
            (-0.5, 0),
            (-1.5, -1),
            (2_147_483_647.0, i32::MAX),
            (2_147_483_646.5, i32::MAX),
            (2_147_483_647.5, i32::MIN),
            (f64::INFINITY, i32::MIN),
            (f64::NAN, i32::MIN),
        ] {
            assert_eq!(ceil_i32(value), expected, "{value}");
        }
        assert_eq!(truncate_i32(7.99), 7);
        assert_eq!(truncate_i32(-7.99), -7);
        assert_eq!(truncate_i32(-3e9), i32::MIN);
        assert_eq!(ceil_i64(1e18 + 0.5), 1_000_000_000_000_000_000);
        assert_eq!(ceil_i64(f64::INFINITY), i64::MIN);
        assert_eq!(ceil_i64(9_223_372_036_854_775_808.0), i64::MIN);
    }
}
