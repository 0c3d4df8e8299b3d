//! Stages and their instructions.

use super::instruction;
use super::lines::{LogicalLine, split};
use super::{Dockerfile, Instruction, Kind, Place, Stage};
use std::path::Path;
use throng_model::diagnostic::{Diagnostic, Severity};

/// Findings beyond this many are not worth reading; the file is probably no Dockerfile.
const MAX_FINDINGS: usize = 50;

/// Reads the text of a Dockerfile. `file` is only used to say where a finding is.
///
/// # Errors
/// All findings in the order of their lines, if at least one of them is an error.
pub fn parse(text: &str, file: &Path) -> Result<Dockerfile, Vec<Diagnostic>> {
    let lines = split(text, file);
    let mut findings = lines.findings;
    let mut dockerfile = Dockerfile { escape: lines.escape, ..Default::default() };
    for line in &lines.lines {
        if findings.len() >= MAX_FINDINGS {
            break;
        }
        if let Err(finding) = add(&mut dockerfile, line, &mut findings) {
            findings.push(finding);
        }
    }
    if dockerfile.stages.is_empty() && !findings.iter().any(|finding| finding.severity == Severity::Error) {
        findings.push(
            Diagnostic::error(format!("{} has no FROM instruction", file.display()))
                .hint("begin it with FROM scratch or FROM and the name of an image"),
        );
    }
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        findings.sort_by_key(|finding| finding.location.as_ref().map_or(0, |location| location.line));
        return Err(findings);
    }
    dockerfile.warnings = findings;
    Ok(dockerfile)
}

fn add(
    dockerfile: &mut Dockerfile,
    line: &LogicalLine,
    findings: &mut Vec<Diagnostic>,
) -> Result<(), Diagnostic> {
    let place = Place { location: line.location.clone(), keyword: line.keyword.clone() };
    if line.keyword == "FROM" {
        let stage = from(dockerfile, line, place)?;
        dockerfile.stages.push(stage);
        return Ok(());
    }
    if !super::KEYWORDS.contains(&line.keyword.as_str()) {
        return Err(instruction::unknown(&line.keyword, &place));
    }
    let kind = instruction::read(line, &place, dockerfile.escape)?;
    let Some(stage) = dockerfile.stages.last_mut() else {
        return match kind {
            Kind::Arg(args) => {
                dockerfile.global_args.extend(args);
                Ok(())
            }
            _ => Err(place.error("only ARG may stand before the first FROM").hint("begin with FROM")),
        };
    };
    if let Kind::Maintainer(_) = kind {
        findings.push(
            place
                .warning("it is deprecated")
                .hint("write LABEL org.opencontainers.image.authors=\"…\" instead"),
        );
    }
    if let Some(earlier) = replaced(stage, &kind) {
        findings.push(
            place.warning(format!(
                "it replaces the one in line {earlier}; only the last one of a stage counts"
            )),
        );
    }
    let text = format!("{} {}", line.keyword, line.rest);
    stage.instructions.push(Instruction { place, text, kind });
    Ok(())
}

/// One instruction of an image's ONBUILD. `place` is where it is carried out.
///
/// # Errors
/// What is wrong with it, at that place.
pub(crate) fn parse_trigger(text: &str, place: &Place) -> Result<Instruction, Diagnostic> {
    let lines = split(text, place.file());
    let Some(line) = lines.lines.first().filter(|_| lines.lines.len() == 1) else {
        return Err(place.error(format!("{text:?} is no instruction")));
    };
    let place = Place { location: place.location.clone(), keyword: line.keyword.clone() };
    if !super::KEYWORDS.contains(&line.keyword.as_str()) || line.keyword == "FROM" {
        return Err(instruction::unknown(&line.keyword, &place));
    }
    let kind = instruction::read(line, &place, lines.escape)?;
    Ok(Instruction { text: format!("{} {}", line.keyword, line.rest), kind, place })
}

/// The line of an earlier instruction that this one makes void.
fn replaced(stage: &Stage, kind: &Kind) -> Option<usize> {
    if !matches!(kind, Kind::Cmd(_) | Kind::Entrypoint(_) | Kind::Healthcheck(_)) {
        return None;
    }
    let same = |earlier: &&Instruction| std::mem::discriminant(&earlier.kind) == std::mem::discriminant(kind);
    stage.instructions.iter().rev().find(same).map(|earlier| earlier.place.location.line)
}

fn from(dockerfile: &Dockerfile, line: &LogicalLine, place: Place) -> Result<Stage, Diagnostic> {
    let mut words: Vec<&str> = line.rest.split_whitespace().collect();
    let mut platform = None;
    while let Some(flag) = words.first().and_then(|word| word.strip_prefix("--")) {
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        if name != "platform" || value.is_empty() {
            return Err(instruction::unsupported_flag(&place, name));
        }
        platform = Some(value.to_owned());
        words.remove(0);
    }
    let (base, name) = match words[..] {
        [base] => (base, None),
        [base, r#as, name] if r#as.eq_ignore_ascii_case("as") => (base, Some(name.to_ascii_lowercase())),
        _ => return Err(place.error("it takes an image, or an image, AS and a name")),
    };
    if let Some(name) = &name {
        let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
        let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        if !starts_well || !name.chars().all(valid) {
            return Err(place.error(format!(
                "the stage name {name:?} must start with a letter and contain letters, digits, - _ . only"
            )));
        }
        if dockerfile.stages.iter().any(|stage| stage.name.as_deref() == Some(name)) {
            return Err(place.error(format!("there is an earlier stage with the name {name:?}")));
        }
    }
    Ok(Stage { base: base.into(), name, platform, place, instructions: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::super::{Command, Healthcheck, MountKind, Run, Transfer};
    use super::*;
    use proptest::prelude::*;

    fn kinds(text: &str) -> Vec<Kind> {
        let file = parse(&format!("FROM scratch\n{text}"), Path::new("Dockerfile")).unwrap();
        file.stages[0].instructions.iter().map(|instruction| instruction.kind.clone()).collect()
    }

    fn first_error(text: &str) -> String {
        let findings = parse(text, Path::new("Dockerfile")).unwrap_err();
        findings.iter().find(|finding| finding.severity == Severity::Error).unwrap().to_string()
    }

    #[test]
    fn instructions_in_both_forms() {
        let exec = |words: &[&str]| Command::Exec(words.iter().map(ToString::to_string).collect());
        assert_eq!(
            kinds("CMD [\"a\", \"b c\"]\nENTRYPOINT a b\nRUN [ \"x\" ]"),
            [
                Kind::Cmd(exec(&["a", "b c"])),
                Kind::Entrypoint(Command::Shell("a b".into())),
                Kind::Run(Run { command: exec(&["x"]), mounts: vec![], offline: false })
            ]
        );
        assert_eq!(
            kinds("COPY --from=x --chown=1:2 --chmod=755 a \"b c\" /d/"),
            [Kind::Copy(Transfer {
                sources: vec!["a".into(), "\"b c\"".into()],
                destination: "/d/".into(),
                from: Some("x".into()),
                owner: Some("1:2".into()),
                mode: Some("755".into()),
                quoted: true,
                ..Transfer::default()
            })]
        );
        assert_eq!(
            kinds("ENV A=1 B=\"2 3\""),
            [Kind::Env(vec![("A".into(), "1".into()), ("B".into(), "\"2 3\"".into())])]
        );
        assert_eq!(kinds("ENV A b c"), [Kind::Env(vec![("A".into(), "b c".into())])]);
        assert_eq!(
            kinds("HEALTHCHECK --interval=1s --retries=2 CMD true"),
            [Kind::Healthcheck(Healthcheck {
                test: Some(Command::Shell("true".into())),
                interval: 1_000_000_000,
                timeout: 0,
                start_period: 0,
                start_interval: 0,
                retries: 2
            })]
        );
    }

    #[test]
    fn run_takes_mounts_and_texts() {
        let run = |text: &str| match kinds(text).remove(0) {
            Kind::Run(run) => run,
            other => panic!("{other:?}"),
        };
        let cached = run(
            "RUN --mount=type=cache,target=/c,id=x,sharing=locked,uid=7 --mount=dst=/b,rw --network=none a",
        );
        let [cache, bind] = &cached.mounts[..] else { panic!("two mounts") };
        assert_eq!((cache.kind, cache.id.as_deref(), cache.uid), (MountKind::Cache, Some("x"), Some(7)));
        assert_eq!(
            (bind.kind, bind.target.as_deref(), bind.read_only),
            (MountKind::Bind, Some("/b"), Some(false))
        );
        assert!(cached.offline);
        assert_eq!(run("RUN <<EOF\na\nb\nEOF").command, Command::Shell("a\nb\n".into()));
        assert_eq!(run("RUN <<-EOF\n\ta\n\tEOF").command, Command::Shell("a\n".into()));
        let script = Command::Script { name: "EOF".into(), text: "#!/bin/x\na\n".into() };
        assert_eq!(run("RUN <<EOF\n#!/bin/x\na\nEOF").command, script);
        assert_eq!(
            run("RUN x <<A > y <<B\n1\nA\n2\nB").command,
            Command::Shell("x <<A > y <<B\n1\nA\n2\nB".into())
        );
    }

    #[test]
    fn errors_name_instruction_and_line() {
        for (text, expected) in [
            (
                "FROM scratch\nCOPPY a b",
                "Dockerfile:2:1: error: unknown instruction \"COPPY\" (hint: did you mean COPY?)",
            ),
            ("FROM scratch\n  XYZZY", "Dockerfile:2:3: error: unknown instruction \"XYZZY\""),
            (
                "FROM scratch\nRUN --mount=type=cache x",
                "Dockerfile:2:1: error: RUN: --mount: it needs a target",
            ),
            ("FROM scratch\nRUN --mount=type=ssh x", "Dockerfile:2:1: error: RUN: --mount=type=ssh is not"),
            (
                "FROM scratch\nRUN --mount=type=cash,target=/a x",
                "Dockerfile:2:1: error: RUN: --mount: there is no",
            ),
            ("FROM scratch\nRUN --mount=tarket=/a x", "Dockerfile:2:1: error: RUN: --mount: the key"),
            ("FROM scratch\nRUN --mount=target=/a,mode=9 x", "Dockerfile:2:1: error: RUN: --mount: mode"),
            ("FROM scratch\nRUN --network=fast x", "Dockerfile:2:1: error: RUN: --network"),
            ("FROM scratch\nRUN --security=insecure x", "Dockerfile:2:1: error: RUN: --security=insecure"),
            ("FROM scratch\nONBUILD FROM x", "Dockerfile:2:1: error: ONBUILD: FROM cannot be a trigger"),
            ("FROM scratch\nONBUILD RNU x", "Dockerfile:2:1: error: unknown instruction \"RNU\""),
            ("FROM scratch\nRUN <<EOF\nUSR\n", "Dockerfile:2:1: error: nothing ends the text"),
            ("FROM scratch\nCOPY --parents=maybe a b", "Dockerfile:2:1: error: COPY: --parents"),
            ("FROM scratch\nCOPY a", "Dockerfile:2:1: error: COPY: it needs at least one source"),
            ("FROM scratch\nADD --checksum=x a b", "Dockerfile:2:1: error: ADD: the flag --checksum"),
            ("USER x", "Dockerfile:1:1: error: USER: only ARG may stand before"),
            ("", "error: Dockerfile has no FROM"),
            ("FROM", "Dockerfile:1:1: error: FROM: it takes an image"),
            ("FROM --platfrom=x a", "Dockerfile:1:1: error: FROM: the flag --platfrom"),
            ("FROM a AS b\nFROM c AS B", "Dockerfile:2:1: error: FROM: there is an earlier stage"),
            ("FROM a AS 1", "Dockerfile:1:1: error: FROM: the stage name"),
            ("FROM a\nHEALTHCHECK --interval=x CMD y", "Dockerfile:2:1: error: HEALTHCHECK: --interval"),
            ("FROM a\nHEALTHCHECK NONE x", "Dockerfile:2:1: error: HEALTHCHECK: NONE takes"),
            ("FROM a\nENV x", "Dockerfile:2:1: error: ENV: x has no value"),
            ("FROM a\nENV a=b c", "Dockerfile:2:1: error: ENV: \"c\" is not of the form"),
            ("FROM a\nARG 1x", "Dockerfile:2:1: error: ARG: \"1x\" is not the name"),
            ("FROM a\nSHELL x", "Dockerfile:2:1: error: SHELL: it takes a JSON list"),
            ("FROM a\nUSER a b", "Dockerfile:2:1: error: USER: it takes exactly one"),
            ("FROM a\nEXPOSE", "Dockerfile:2:1: error: EXPOSE: it needs at least one argument"),
        ] {
            let error = first_error(text);
            assert!(error.starts_with(expected), "{text:?} gave {error}");
        }
    }

    #[test]
    fn all_errors_are_found_at_once_and_a_second_cmd_is_a_warning() {
        let findings = parse("FROM a\nCMD x\nRUNN y\nCMD z\nUSR q", Path::new("D")).unwrap_err();
        let lines: Vec<usize> =
            findings.iter().map(|finding| finding.location.as_ref().unwrap().line).collect();
        assert_eq!(lines, [3, 4, 5]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            let _ = parse(&text, Path::new("D"));
        }

        #[test]
        fn no_mixture_of_real_words_makes_it_panic(words in proptest::collection::vec(
            proptest::sample::select(vec![
                "FROM", "RUN", "COPY", "ENV", "HEALTHCHECK", "ARG", "LABEL", "--from=", "--", "--x=y", "[\"a\"", "]",
                "\\\n", "\n", " ", "<<EOF", "EOF", "# escape=`\n", "AS", "scratch", "=", "\"", "'", "${", "}", "\u{e9}",
            ]), 0..40)
        ) {
            let _ = parse(&words.concat(), Path::new("D"));
            let _ = parse(&words.join(" "), Path::new("D"));
        }
    }
}
