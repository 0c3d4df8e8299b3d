//! Text that is safe inside HTML, XML and a script element, and short numbers for path data.

use std::fmt::Write as _;

/// Escapes text for element content and quoted attributes, and drops characters that XML forbids.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(' '),
            c if c.is_control() || turns_text(c) => out.push('\u{fffd}'),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The bidirectional overrides, which could make a name read as another.
pub fn turns_text(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON that may stand inside a script element: nothing in it can end the element or open a comment.
pub fn script_json(value: &serde_json::Value) -> String {
    let json = value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    json.replace(turns_text, "\u{fffd}")
}

/// One decimal, no trailing zero, and never anything but a number.
pub fn coordinate(value: f64) -> String {
    let value = if value.is_finite() { value.clamp(-1e5, 1e5) } else { 0.0 };
    let text = format!("{value:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0".into() } else { text.into() }
}

/// Path data through the points; `M` and `L` commands only.
pub fn path(points: &[(f64, f64)]) -> String {
    let mut out = String::with_capacity(points.len() * 10);
    for (index, (x, y)) in points.iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        let _ = write!(out, "{command}{} {}", coordinate(*x), coordinate(*y));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_escapes_its_place() {
        assert_eq!(
            escape("</script><b a='x'>&\u{0}\""),
            "&lt;/script&gt;&lt;b a=&#39;x&#39;&gt;&amp;\u{fffd}&quot;"
        );
        assert_eq!(
            script_json(&serde_json::json!("</script><!--&")),
            r#""\u003c/script\u003e\u003c!--\u0026""#
        );
        assert_eq!(coordinate(f64::NAN), "0");
        assert_eq!(coordinate(-0.01), "0");
        assert_eq!(path(&[(0.0, 1.25), (2.0, 3.0)]), "M0 1.2L2 3");
    }
}
