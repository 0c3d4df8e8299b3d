//! Instructions that only change the image's configuration.

use crate::config::{HealthConfig, ImageConfig};
use crate::dockerfile::{Command, Expander, Healthcheck, Kind, split_words};
use std::path::{Component, Path, PathBuf};

/// Ports that one EXPOSE may name through ranges.
const MAX_PORTS: usize = 65_536;

/// Where a script that is written in the Dockerfile itself is seen while it runs.
pub(super) const SCRIPTS: &str = "/dev/pipes";

/// A shell for the plain form of RUN, CMD and ENTRYPOINT.
fn shell(config: &ImageConfig) -> Vec<String> {
    config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()])
}

/// What is run: the JSON form as it is, the plain form by the image's shell.
pub(super) fn arguments(command: &Command, config: &ImageConfig) -> Vec<String> {
    match command {
        Command::Exec(words) => words.clone(),
        Command::Shell(text) => {
            let mut words = shell(config);
            words.push(text.clone());
            words
        }
        Command::Script { name, .. } => vec![format!("{SCRIPTS}/{name}")],
    }
}

/// Carries out an instruction that needs no files. `cmd_is_own`: this stage has set CMD itself.
pub(super) fn apply(
    kind: &Kind,
    config: &mut ImageConfig,
    expander: &Expander<'_>,
    cmd_is_own: &mut bool,
) -> Result<(), String> {
    let word = |text: &str| expander.word(text).map_err(|error| error.to_string());
    match kind {
        Kind::Cmd(command) => {
            config.cmd = Some(arguments(command, config));
            *cmd_is_own = true;
        }
        Kind::Entrypoint(command) => {
            config.entrypoint = Some(arguments(command, config));
            // The base's CMD was meant for the base's ENTRYPOINT.
            if !*cmd_is_own {
                config.cmd = None;
            }
        }
        Kind::Env(pairs) => {
            // All values see the variables as they were before this instruction.
            let expanded: Vec<(String, String)> = pairs
                .iter()
                .map(|(key, value)| Ok((word(key)?, word(value)?)))
                .collect::<Result<_, String>>()?;
            for (key, value) in expanded {
                config.set_env(&key, &value);
            }
        }
        Kind::Expose(ports) => {
            for port in ports {
                for port in word(port)?.split_whitespace() {
                    expose(port, config)?;
                }
            }
        }
        Kind::Healthcheck(check) => config.healthcheck = Some(health(check)),
        Kind::Label(pairs) => {
            for (key, value) in pairs {
                config.labels.insert(word(key)?, word(value)?);
            }
        }
        Kind::OnBuild(trigger) => config.on_build.push(trigger.clone()),
        Kind::Shell(words) => config.shell = Some(words.clone()),
        Kind::StopSignal(signal) => config.stop_signal = Some(check_signal(&word(signal)?)?),
        Kind::User(user) => config.user = word(user)?,
        Kind::Volume(paths) => {
            for path in paths {
                let path = word(path)?;
                if path.is_empty() {
                    return Err("a volume has no path".into());
                }
                config.volumes.insert(path);
            }
        }
        Kind::Workdir(path) => {
            let path = word(path.trim())?;
            config.working_dir = absolute(&path, &config.working_dir);
        }
        // These concern the stage or its files, not the configuration.
        Kind::Add(_) | Kind::Arg(_) | Kind::Copy(_) | Kind::Maintainer(_) | Kind::Run(_) => {}
    }
    Ok(())
}

/// `path` from `working_dir`, without `.` and `..`; a slash at its end stays, for it says "a folder".
pub(super) fn absolute(path: &str, working_dir: &str) -> String {
    let from = if working_dir.is_empty() { "/" } else { working_dir };
    let mut clean = PathBuf::from("/");
    for component in Path::new(from).join(path).components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean.to_string_lossy().into_owned()
}

fn expose(text: &str, config: &mut ImageConfig) -> Result<(), String> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(format!("the protocol of {text:?} is not tcp, udp or sctp"));
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => {
            for port in first..=last {
                config.exposed_ports.insert(format!("{port}/{protocol}"));
            }
        }
        _ => {
            return Err(format!(
                "{text:?} is not a port; write a number from 1 to 65535, or two with a - between"
            ));
        }
    }
    if config.exposed_ports.len() > MAX_PORTS { Err(format!("more than {MAX_PORTS} ports")) } else { Ok(()) }
}

fn health(check: &Healthcheck) -> HealthConfig {
    let test = match &check.test {
        None => vec!["NONE".into()],
        Some(Command::Exec(words)) => [vec!["CMD".to_string()], words.clone()].concat(),
        Some(Command::Shell(text) | Command::Script { text, .. }) => vec!["CMD-SHELL".into(), text.clone()],
    };
    HealthConfig {
        test,
        interval: check.interval,
        timeout: check.timeout,
        start_period: check.start_period,
        start_interval: check.start_interval,
        retries: check.retries,
    }
}

/// Linux's signals (signal(7)), without the SIG.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// The highest real-time signal.
const MAX_SIGNAL: u8 = 64;

fn check_signal(text: &str) -> Result<String, String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = name
        .strip_prefix("RTMIN+")
        .or_else(|| name.strip_prefix("RTMAX-"))
        .is_some_and(|offset| offset.parse::<u8>().is_ok_and(|offset| offset <= 15));
    let known = SIGNALS.contains(&name)
        || matches!(name, "RTMIN" | "RTMAX" | "POLL" | "CLD" | "IOT")
        || real_time
        || text.parse::<u8>().is_ok_and(|number| (1..=MAX_SIGNAL).contains(&number));
    if known { Ok(text.into()) } else { Err(format!("{text:?} is not a signal; write SIGTERM, TERM or 15")) }
}

/// The words of a transfer: quotes and variables, or variables alone in the JSON form.
pub(super) fn transfer_word(text: &str, quoted: bool, expander: &Expander<'_>) -> Result<String, String> {
    let outcome = if quoted { expander.word(text) } else { expander.literal(text) };
    outcome.map_err(|error| error.to_string())
}

/// The base image of a stage with its variables replaced: exactly one word.
pub(super) fn base_name(text: &str, expander: &Expander<'_>) -> Result<String, String> {
    let name = expander.word(text).map_err(|error| error.to_string())?;
    if split_words(&name, expander.escape).len() == 1 {
        Ok(name)
    } else {
        Err(format!("{text:?} gives {name:?}, which is not the name of an image"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::{Instruction, parse};

    fn config(text: &str) -> Result<ImageConfig, String> {
        let file =
            parse(&format!("FROM scratch\n{text}"), Path::new("D")).map_err(|all| all[0].to_string())?;
        let mut config = ImageConfig { cmd: Some(vec!["base".into()]), ..Default::default() };
        let mut own = false;
        for Instruction { kind, .. } in &file.stages[0].instructions {
            let env = config.clone();
            let lookup = |name: &str| env.env_value(name).map(str::to_string);
            apply(kind, &mut config, &Expander { escape: '\\', lookup: &lookup }, &mut own)?;
        }
        Ok(config)
    }

    #[test]
    fn metadata_as_docker_keeps_it() {
        let config = config(
            "ENV A=1 B=$A\nENV C=\"x $A\"\nWORKDIR /a\nWORKDIR b/../c\nEXPOSE 80 5-6/udp\nLABEL k=\"v $A\"\n\
             VOLUME [\"/v\"]\nUSER u:$A\nSTOPSIGNAL SIGINT\nENTRYPOINT [\"e\"]\nHEALTHCHECK --retries=3 CMD [\"t\"]\n\
             SHELL [\"/bin/x\", \"-e\"]",
        )
        .unwrap();
        assert_eq!(config.env, ["A=1", "B=", "C=x 1"]);
        assert_eq!(config.working_dir, "/a/c");
        assert!(config.exposed_ports.iter().eq(["5/udp", "6/udp", "80/tcp"]));
        assert_eq!(config.labels["k"], "v 1");
        assert_eq!((config.user.as_str(), config.stop_signal.as_deref()), ("u:1", Some("SIGINT")));
        assert_eq!((config.entrypoint, config.cmd), (Some(vec!["e".into()]), None));
        assert_eq!(config.healthcheck.unwrap().test, ["CMD", "t"]);
    }

    #[test]
    fn the_shell_wraps_the_plain_form_and_cmd_survives_its_own_entrypoint() {
        let config = config("SHELL [\"/s\"]\nCMD a b\nENTRYPOINT x").unwrap();
        assert_eq!(config.cmd, Some(vec!["/s".into(), "a b".into()]));
        assert_eq!(config.entrypoint, Some(vec!["/s".into(), "x".into()]));
    }

    #[test]
    fn wrong_values_are_refused() {
        for text in [
            "EXPOSE x",
            "EXPOSE 0",
            "EXPOSE 5-4",
            "EXPOSE 1/x",
            "STOPSIGNAL SIGX",
            "STOPSIGNAL 65",
            "VOLUME [\"\"]",
        ] {
            assert!(config(text).is_err(), "{text}");
        }
    }
}
