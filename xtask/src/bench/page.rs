//! docs/benchmarks.md, made from the records and nothing else.

use super::record::{Bar, Better, Comparison, Machine, Record, Role, Spread};
use super::{Part, QUIET};
use std::fmt::Write;

const HEAD: &str = "\
# Benchmarks

Measured by `cargo xtask bench`, which starts the peers itself, beside Throng, in the same run and on the same work.
This page and its plots are made from the records in [benchmarks/](benchmarks); every verdict is computed from them.

A figure is the median of its rounds, with the smallest and the largest round behind it. *Times* says how often as good
as the best peer Throng is: above 1 it is better, whether more or less of the figure is wanted. Its range is that of the
rounds taken pair by pair. A *bar* is what this project has set itself to reach.
";

/// The page. Parts without a record are named as not measured.
pub fn page(records: &[(Part, Option<Record>)]) -> String {
    let mut text = HEAD.to_owned();
    text += &summary(records);
    let machines: Vec<&Machine> =
        records.iter().filter_map(|(_, record)| record.as_ref()).map(|record| &record.machine).collect();
    let shared = machines.first().copied().filter(|first| machines.iter().all(|machine| machine == first));
    if let Some(machine) = shared {
        text += &format!("\n## Machine\n\n{}", machine_lines(machine));
    }
    for (part, record) in records {
        text += &format!("\n## {}\n\n", heading(*part));
        match record {
            Some(record) => text += &section(*part, record, shared.is_none()),
            None => text += &format!("Not measured yet: `cargo xtask bench {}`.\n", command(*part)),
        }
    }
    text
}

fn heading(part: Part) -> &'static str {
    match part {
        Part::Containers => "Containers: start to first answer, beside Docker",
        Part::Crowd => "Crowd: ten thousand replicas in one network",
        Part::CrowdOnDocker => "Crowd on Docker: as many as one of its networks holds",
        Part::Density => "Density: replicas on one Docker daemon, and on daemons inside it",
        Part::Balancer => "Balancer: a small answer through one thread, beside nginx and HAProxy",
        Part::Load => "Load generator: the same server under load, beside wrk and oha",
        Part::Pdfmagic => "pdfmagic: an image to a PDF, beside ImageMagick",
        Part::Planning => "Planning: what is next among ten thousand replicas",
    }
}

/// What measures a part.
fn command(part: Part) -> &'static str {
    match part {
        Part::CrowdOnDocker => "crowd --on docker",
        part => part.name(),
    }
}

fn summary(records: &[(Part, Option<Record>)]) -> String {
    let mut rows = String::new();
    for (part, record) in records {
        let comparisons = record.iter().flat_map(|record| &record.comparisons);
        for comparison in comparisons.filter(|comparison| comparison.bar.is_some()) {
            let (bar, measured) = (bar(comparison), measured(comparison));
            let (title, verdict) = (&comparison.title, verdict(comparison));
            rows += &format!("| {} | {title} | {bar} | {measured} | {verdict} |\n", part.name());
        }
        if record.is_none() {
            rows += &format!("| {} | | | | not measured |\n", part.name());
        }
    }
    format!("\n| part | figure | bar | measured | verdict |\n|---|---|---|---|---|\n{rows}")
}

/// What must be reached, in words.
fn bar(comparison: &Comparison) -> String {
    match comparison.bar {
        Some(Bar::Times(times)) if times > 1.0 => format!("at least {} times as good", number(times)),
        Some(Bar::Times(1.0)) => "at least as good".to_owned(),
        Some(Bar::Times(times)) => format!("at most {} % worse", number((1.0 - times) * 100.0)),
        Some(Bar::AtMost(most)) => format!("at most {} {}", number(most), comparison.unit),
        Some(Bar::AtLeast(least)) => format!("at least {} {}", number(least), comparison.unit),
        None => "none".to_owned(),
    }
}

/// What was reached, in words: what the bar speaks of.
pub fn measured(comparison: &Comparison) -> String {
    match (comparison.bar, comparison.ratio(), comparison.best_peer()) {
        (Some(Bar::AtMost(_) | Bar::AtLeast(_)), _, _) => {
            let ours = comparison.ours().and_then(|ours| Spread::of(&ours.rounds));
            ours.map_or_else(|| "nothing".into(), |ours| format!("{} {}", spread(ours), comparison.unit))
        }
        (_, Some(ratio), Some(peer)) => format!("{} times {}", spread(ratio), peer.name),
        _ => "nothing to compare with".into(),
    }
}

pub fn verdict(comparison: &Comparison) -> &'static str {
    match comparison.held() {
        Some(true) => "held",
        Some(false) => "**not held**",
        None => "not measured",
    }
}

fn section(part: Part, record: &Record, own_machine: bool) -> String {
    let mut text = String::new();
    if record.quick {
        text += "**Taken with `--quick`: too short to be cited.**\n\n";
    }
    if record.busy_before > QUIET {
        let busy = record.busy_before * 100.0;
        text += &format!(
            "**Something else used {busy:.0} % of the processors when this began: read it with care.**\n\n"
        );
    }
    if own_machine {
        text += &format!("{}\n", machine_lines(&record.machine));
    }
    for sentence in &record.method {
        text += &format!("- {sentence}\n");
    }
    let versions: Vec<String> =
        record.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    text += &format!("- Versions: {}.\n", versions.join(", "));
    for comparison in &record.comparisons {
        text += &table(comparison);
        text += &format!("\n![{}]({})\n", comparison.title, plot_path(part, comparison));
    }
    text
}

fn machine_lines(machine: &Machine) -> String {
    let Machine { cpu, cores, memory_bytes, kernel, distribution } = machine;
    let memory = *memory_bytes as f64 / f64::from(1 << 30);
    format!("{cores} cores of {cpu}, {memory:.1} GiB of memory, {distribution}, Linux {kernel}.\n")
}

/// Where a comparison's plot is, from docs/.
pub fn plot_path(part: Part, comparison: &Comparison) -> String {
    format!("benchmarks/{}-{}.svg", part.name(), comparison.key)
}

fn table(comparison: &Comparison) -> String {
    let Comparison { title, unit, better, subjects, .. } = comparison;
    let wanted = match better {
        Better::Higher => "more is better",
        Better::Lower => "less is better",
    };
    let mut text =
        format!("\n### {title}\n\n| {wanted} | {unit}, median | min–max | rounds |\n|---|--:|--:|--:|\n");
    for subject in subjects {
        let name =
            if subject.role == Role::Ours { format!("**{}**", subject.name) } else { subject.name.clone() };
        let figures = match Spread::of(&subject.rounds) {
            Some(Spread { median, min, max }) => {
                format!("{} | {}–{}", number(median), number(min), number(max))
            }
            None => "not measured |".into(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {name} | {figures} | {} |", subject.rounds.len());
    }
    if let (Some(ratio), Some(peer)) = (comparison.ratio(), comparison.best_peer()) {
        text += &format!("\n{} times {}", spread(ratio), peer.name);
        text += &match comparison.bar {
            Some(_) => format!("; the bar, {}, is {}.\n", bar(comparison), verdict(comparison)),
            None => ".\n".into(),
        };
    } else if comparison.bar.is_some() {
        text += &format!("\nThe bar, {}, is {}.\n", bar(comparison), verdict(comparison));
    }
    text
}

fn spread(spread: Spread) -> String {
    let Spread { median, min, max } = spread;
    format!("{} ({}–{})", number(median), number(min), number(max))
}

/// Three digits and more, as people read them: `0.92`, `12.4`, `348`, `35,012`.
pub fn number(value: f64) -> String {
    let size = value.abs();
    let rounded = if size >= 99.95 {
        format!("{value:.0}")
    } else if size >= 9.995 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    };
    let (sign, digits) = rounded.strip_prefix('-').map_or(("", rounded.as_str()), |digits| ("-", digits));
    if digits.contains('.') && rounded.ends_with(".00") || rounded.ends_with(".0") {
        return rounded.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    if digits.contains('.') || digits.len() < 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return rounded;
    }
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap_or_default())
        .collect();
    format!("{sign}{}", groups.join(","))
}

/// Text inside XML.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::record::{FORMAT, tests::comparison};
    use std::collections::BTreeMap;

    fn record(comparisons: Vec<Comparison>) -> Record {
        Record {
            format: FORMAT,
            quick: false,
            machine: Machine {
                cpu: "Abacus".into(),
                cores: 2,
                memory_bytes: 25 << 29,
                kernel: "6.1".into(),
                distribution: "Debian 12".into(),
            },
            busy_before: 0.05,
            versions: BTreeMap::from([("nginx".into(), "1.22.1".into()), ("throng".into(), "0.1.0".into())]),
            method: vec!["In this way.".into()],
            comparisons,
        }
    }

    fn with_bar(ours: f64, bar: Bar) -> Comparison {
        comparison(Better::Lower, &[ours], &[&[100.0]], Some(bar))
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.916, "0.92"),
            (1.0, "1"),
            (10.0, "10"),
            (12.44, "12.4"),
            (99.94, "99.9"),
            (99.96, "100"),
            (347.6, "348"),
            (1000.0, "1,000"),
            (35012.3, "35,012"),
            (1234567.0, "1,234,567"),
            (-35012.3, "-35,012"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn verdicts_follow_the_figures() {
        let page_of = |comparison: Comparison| page(&[(Part::Load, Some(record(vec![comparison])))]);
        let held = page_of(with_bar(5.0, Bar::Times(10.0)));
        assert!(
            held.contains("| load | T | at least 10 times as good | 20 (20–20) times peer 0 | held |"),
            "{held}"
        );
        let missed = page_of(with_bar(50.0, Bar::Times(10.0)));
        assert!(missed.contains("| 2 (2–2) times peer 0 | **not held** |"), "{missed}");
        let limit = page_of(with_bar(1.5, Bar::AtMost(2.0)));
        assert!(limit.contains("| at most 2 ms | 1.50 (1.50–1.50) ms | held |"), "{limit}");
        let alone = page_of(comparison(Better::Lower, &[1.0], &[], Some(Bar::Times(10.0))));
        assert!(alone.contains("| nothing to compare with | not measured |"), "{alone}");
    }

    #[test]
    fn a_part_without_a_record_is_said_to_be_missing() {
        let text = page(&[(Part::Balancer, None), (Part::Load, Some(record(vec![])))]);
        assert!(text.contains("| balancer | | | | not measured |"), "{text}");
        assert!(text.contains("Not measured yet: `cargo xtask bench balancer`."), "{text}");
    }

    #[test]
    fn one_machine_is_described_once_and_two_beside_their_figures() {
        let (first, mut second) = (record(vec![]), record(vec![]));
        let text = page(&[(Part::Load, Some(first.clone())), (Part::Balancer, Some(second.clone()))]);
        assert_eq!(text.matches("2 cores of Abacus, 12.5 GiB of memory, Debian 12, Linux 6.1.").count(), 1);
        assert!(text.contains("## Machine"));
        second.machine.cpu = "Pascaline".into();
        let text = page(&[(Part::Load, Some(first)), (Part::Balancer, Some(second))]);
        assert!(
            !text.contains("## Machine") && text.contains("Abacus") && text.contains("Pascaline"),
            "{text}"
        );
    }

    #[test]
    fn doubtful_figures_say_so() {
        let mut doubtful = record(vec![]);
        doubtful.quick = true;
        doubtful.busy_before = 0.55;
        let text = page(&[(Part::Load, Some(doubtful))]);
        assert!(
            text.contains("`--quick`: too short")
                && text.contains("Something else used 55 % of the processors"),
            "{text}"
        );
        let text = page(&[(Part::Load, Some(record(vec![])))]);
        assert!(!text.contains("--quick") && !text.contains("Something else"), "{text}");
    }

    #[test]
    fn a_section_has_method_versions_table_and_plot() {
        let text = page(&[(Part::Load, Some(record(vec![with_bar(5.0, Bar::Times(10.0))])))]);
        for expected in [
            "- In this way.\n",
            "- Versions: nginx 1.22.1, throng 0.1.0.\n",
            "| less is better | ms, median | min–max | rounds |\n",
            "| **ours** | 5 | 5–5 | 1 |\n| peer 0 | 100 | 100–100 | 1 |\n",
            "20 (20–20) times peer 0; the bar, at least 10 times as good, is held.\n",
            "![T](benchmarks/load-k.svg)\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
    }
}
