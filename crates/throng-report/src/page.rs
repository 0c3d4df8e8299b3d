//! The page around the figures: one HTML file that needs nothing else and can reach nothing else.

use crate::svg::escape;

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/script.js");

/// SHA-256 of [`SCRIPT`] in base64: the page's policy runs this script and no other, whatever text a run may hold.
const SCRIPT_HASH: &str = "bxxqIOLIe/k+R0RyXk5PGzJJeXZTLVFlCw31/5xjAxU=";

pub struct Page {
    pub title: String,
    /// Line above the title.
    pub kicker: String,
    /// Markup below the title.
    pub lead: String,
    /// Sections in order: anchor, heading, markup. Empty ones are left out.
    pub sections: Vec<(&'static str, &'static str, String)>,
    pub footer: String,
}

impl Page {
    pub fn html(self) -> String {
        let title = escape(&self.title);
        let mut out = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
             script-src 'sha256-{SCRIPT_HASH}'; base-uri 'none'; form-action 'none'\">\
             <meta name=\"referrer\" content=\"no-referrer\"><link rel=\"icon\" href=\"data:,\">\
             <title>{title}</title><style>{STYLE}</style></head><body>\n<header><p class=\"kicker\">{}</p>\
             <button class=\"theme\" type=\"button\" hidden aria-label=\"Switch between light and dark\"></button>\
             <h1>{title}</h1>{}",
            escape(&self.kicker),
            self.lead
        );
        let sections: Vec<_> = self.sections.into_iter().filter(|(_, _, body)| !body.is_empty()).collect();
        out.push_str("<nav aria-label=\"Contents\">");
        for (anchor, heading, _) in &sections {
            out.push_str(&format!("<a href=\"#{anchor}\">{heading}</a>"));
        }
        out.push_str("</nav></header>\n<main>");
        for (anchor, heading, body) in &sections {
            out.push_str(&format!("<section id=\"{anchor}\"><h2>{heading}</h2>{body}</section>\n"));
        }
        out.push_str(&format!(
            "</main>\n<footer><p>{}</p></footer>\n<script>{SCRIPT}</script></body></html>\n",
            self.footer
        ));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use sha2::Digest;

    #[test]
    fn the_policy_names_the_script_that_is_there() {
        let hash = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(SCRIPT));
        assert_eq!(SCRIPT_HASH, hash, "the script changed: put this hash into SCRIPT_HASH");
    }

    /// Relative luminance and contrast as WCAG 2.2 defines them.
    fn contrast(a: &str, b: &str) -> f64 {
        let luminance = |hex: &str| {
            let channel = |i: usize| {
                let value =
                    f64::from(u8::from_str_radix(&hex[i..i + 2], 16).expect("two hex digits")) / 255.0;
                if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
        };
        let (x, y) = (luminance(a), luminance(b));
        (x.max(y) + 0.05) / (x.min(y) + 0.05)
    }

    #[test]
    fn text_and_series_stand_out_in_both_themes() {
        let blocks: Vec<&str> = STYLE.split("--page:").skip(1).collect();
        assert!(blocks.len() >= 3);
        for block in blocks.iter().filter(|b| b.contains("--s7")) {
            let colour = |name: &str| -> String {
                let at =
                    if name == "page" { 0 } else { block.find(&format!("--{name}:")).expect("a variable") };
                let hash = block[at..].find('#').expect("a colour") + at;
                let hex = block[hash..].split(';').next().expect("an end").trim();
                if hex.len() == 4 {
                    hex.chars().flat_map(|c| if c == '#' { vec![c] } else { vec![c, c] }).collect()
                } else {
                    hex.into()
                }
            };
            let page = colour("page");
            for name in ["text", "soft", "bad", "good", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"] {
                let least = 4.5;
                let seen = contrast(&colour(name), &page);
                assert!(seen >= least, "{name} {} on {page}: {seen:.2}", colour(name));
            }
        }
    }
}
