//! Conversions of images into PDFs beside ImageMagick's `convert`.

use super::record::{Bar, Better, Comparison, Role, Subject};
use super::{Measured, Session, built, machine};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// At least so many times as many conversions.
const TIMES: f64 = 50.0;
const ROUND_LIMIT: Duration = Duration::from_secs(120);
const POLICIES: [&str; 2] = ["/etc/ImageMagick-6/policy.xml", "/etc/ImageMagick-7/policy.xml"];

/// What the program prints.
#[derive(Debug, Deserialize)]
struct Round {
    conversions_per_second_per_core: f64,
    convert_per_second_per_core: Option<f64>,
    convert_error: Option<String>,
}

pub fn measure(session: &Session) -> Result<Measured> {
    let program = built::program(&["-p", "pdfmagic", "--example", "throughput"])?;
    let policies = permissive_policies(session.folder.path())?;
    let count = session.size(5, 1);
    let busy_before = session.settle()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for number in 1..=count {
        let text = session.children.output(with_policies(&program, &policies), ROUND_LIMIT)?;
        let round: Round = serde_json::from_str(&text).context("throughput prints something else")?;
        let Some(convert) = round.convert_per_second_per_core else {
            bail!("convert: {}", round.convert_error.unwrap_or_else(|| "no figure".into()));
        };
        let own = round.conversions_per_second_per_core;
        eprintln!("round {number}: pdfmagic {own:9.0}/s, convert {convert:6.1}/s");
        ours.push(own);
        theirs.push(convert);
    }
    let method = vec![
        format!(
            "workloads/pdfmagic/examples/throughput.rs: 64 different random JPEGs of 640 × 480 are converted one after \
             another on one core, for 3 s by pdfmagic's own function, then for 3 s by one process of `convert` for \
             each image (with MAGICK_THREAD_LIMIT=1), as a service does that calls it. Rounds: {count}."
        ),
        "Where the distribution's policy forbids `convert` to write PDFs, the benchmark lifts that for its own \
         processes, in a mount namespace."
            .into(),
    ];
    let versions = machine::versions(&[("ImageMagick", &[&image_magick(), "-version"])]);
    Ok(Measured { busy_before, versions, method, comparisons: vec![comparison(ours, theirs)] })
}

fn comparison(ours: Vec<f64>, theirs: Vec<f64>) -> Comparison {
    Comparison {
        key: "conversions".into(),
        title: "JPEG to PDF, conversions a second on one core".into(),
        unit: "conversions/s".into(),
        better: Better::Higher,
        subjects: vec![
            Subject { name: "pdfmagic".into(), role: Role::Ours, rounds: ours },
            Subject { name: "convert".into(), role: Role::Peer, rounds: theirs },
        ],
        bar: Some(Bar::Times(TIMES)),
    }
}

fn image_magick() -> String {
    let debian = ["/usr/bin/convert", "/usr/bin/magick"].into_iter().find(|path| Path::new(path).exists());
    debian.unwrap_or("convert").to_owned()
}

/// A policy of the host, and a copy of it that allows PDFs.
struct Policy {
    host: &'static str,
    copy: PathBuf,
}

fn permissive_policies(folder: &Path) -> Result<Vec<Policy>> {
    let mut policies = Vec::new();
    for (number, host) in POLICIES.into_iter().enumerate() {
        let Ok(text) = std::fs::read_to_string(host) else { continue };
        let copy = folder.join(format!("policy-{number}.xml"));
        std::fs::write(&copy, allowing_pdf(&text)).context("cannot write a policy")?;
        policies.push(Policy { host, copy });
    }
    Ok(policies)
}

/// The policy without what forbids the coder PDF. Debian forbids it because of Ghostscript, which does not take part
/// when a PDF is written.
fn allowing_pdf(policy: &str) -> String {
    let forbids = |line: &&str| line.contains("domain=\"coder\"") && line.contains("\"PDF\"");
    policy.lines().filter(|line| !forbids(line)).map(|line| format!("{line}\n")).collect()
}

/// The program with the copies in place of the host's policies, for itself and its children only: later policies
/// cannot lift earlier ones, so the files themselves must differ (mount_namespaces(7)).
fn with_policies(program: &Path, policies: &[Policy]) -> Command {
    const SCRIPT: &str =
        "while [ $# -gt 1 ]; do mount --bind \"$1\" \"$2\" || exit; shift 2; done; exec \"$1\"";
    if policies.is_empty() {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", SCRIPT, "sh"]);
    for policy in policies {
        command.arg(&policy.copy).arg(policy.host);
    }
    command.arg(program);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_ban_on_pdf_is_lifted() {
        let policy = "<policymap>\n  <policy domain=\"coder\" rights=\"none\" pattern=\"PDF\" />\n  \
                      <policy domain=\"coder\" rights=\"none\" pattern=\"PS\" />\n</policymap>\n";
        let allowed = allowing_pdf(policy);
        assert_eq!(
            allowed,
            "<policymap>\n  <policy domain=\"coder\" rights=\"none\" pattern=\"PS\" />\n</policymap>\n"
        );
        assert_eq!(allowing_pdf(&allowed), allowed);
    }

    #[test]
    fn what_the_program_prints_is_read() {
        let text = r#"{"conversions_per_second_per_core":9000.0,"convert_error":null,
            "convert_per_second_per_core":28.4,"image":{"height":480,"width":640},"times_faster":317.0}"#;
        let round: Round = serde_json::from_str(text).expect("as printed");
        let found = comparison(
            vec![round.conversions_per_second_per_core],
            vec![round.convert_per_second_per_core.expect("a figure")],
        );
        assert_eq!(found.held(), Some(true));
        assert_eq!(comparison(vec![100.0], vec![2.1]).held(), Some(false));
    }
}
