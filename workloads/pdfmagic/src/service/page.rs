//! The page with the form, which names its limits and its replica: behind a balancer, loading it again shows another.

use super::ServiceConfig;

const TEMPLATE: &str = include_str!("page.html");

/// Made once, when the service starts. Needs no script and nothing from elsewhere.
pub fn render(config: &ServiceConfig) -> String {
    TEMPLATE
        .replace("{bytes}", &size(config.max_bytes as u64))
        .replace("{pixels}", &grouped(config.picture.max_pixels))
        .replace("{replica}", &escape(&config.replica))
}

/// `20 MiB`: in the largest unit that needs no fraction.
fn size(bytes: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "bytes")];
    let whole = |(shift, _): &(u32, &str)| bytes >= 1 << shift && bytes.trailing_zeros() >= *shift;
    let (shift, unit) = UNITS.into_iter().find(whole).unwrap_or((0, "bytes"));
    format!("{} {unit}", grouped(bytes >> shift))
}

/// `100,000,000`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        // Decimal digits are ASCII.
        .map(|group| std::str::from_utf8(group).unwrap_or_default())
        .collect();
    groups.join(",")
}

/// For text between tags.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (bytes, expected) in [
            (20 << 20, "20 MiB"),
            (1 << 30, "1 GiB"),
            (1536 << 10, "1,536 KiB"),
            (65_537, "65,537 bytes"),
            (1, "1 bytes"),
            (0, "0 bytes"),
        ] {
            assert_eq!(size(bytes), expected);
        }
        for (number, expected) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (100_000_000, "100,000,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(number), expected);
        }
    }

    #[test]
    fn names_cannot_become_markup() {
        assert_eq!(escape("<b>&lt;"), "&lt;b&gt;&amp;lt;");
    }

    #[test]
    fn the_page_reaches_for_nothing() {
        assert!(!TEMPLATE.contains("<script") && !TEMPLATE.contains("src="));
        assert!(!TEMPLATE.contains("http:") && !TEMPLATE.contains("https:") && !TEMPLATE.contains("url("));
        for place in ["{bytes}", "{pixels}", "{replica}"] {
            assert_eq!(TEMPLATE.matches(place).count(), 1, "{place}");
        }
    }
}
