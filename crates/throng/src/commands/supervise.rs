//! The two commands that other commands start: the supervisor of an app, and one RUN instruction of a build.
//!
//! Both may have to enter a user namespace, which only a process with a single thread can; so they run before any
//! runtime exists.

use crate::cli::{Arguments, IsolationArgument, OnArgument};
use crate::failure::{Failure, Kind, Result, io};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use throng_control::Limits;
use throng_engine::{BuildStep, Engine, EngineOptions, IsolationChoice};
use throng_model::replica::{Process, ResolvedMount};
use throng_model::sandbox::Sandbox;
use throng_runtime::{ErrorKind, ExecIo, RuntimeError};
use throng_supervisor::paths::Paths;
use throng_supervisor::{NAME_PORTS, NAME_PORTS_DEFAULT, On, ServeOptions, serve};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Exit code of the build step when the command could not be run at all.
pub const STEP_NOT_RUN: i32 = 125;

/// Longest build step, in bytes: a Dockerfile at most, with some for the layers' paths.
const MAX_STEP: u64 = 64 << 20;

/// Steps handed out at once: enough to keep the engine, which has its own bound on what starts at the same time, busy
/// until the next plan; retiring mostly waits.
const LAUNCHES_PER_CORE: usize = 32;
const RETIREMENTS: usize = 256;
const PROBES_PER_CORE: usize = 8;
/// Share of the cores that repeated health checks may take, in percent.
const CHECKS_SHARE: (&str, f64) = ("THRONG_CHECKS_PERCENT", 25.0);
/// How long tasks may take to end with the supervisor.
const LEAVING: Duration = Duration::from_secs(2);

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    // Started by way of /proc, whose file would give it the name `exe` in listings of processes.
    let _ = rustix::thread::set_name(c"throng");
    let paths = Paths::discover();
    let project = arguments
        .project
        .project_name
        .filter(|name| Paths::is_project_name(name))
        .ok_or_else(|| Failure::new(Kind::Input, "the supervisor needs a valid --project-name"))?;
    let isolation = choice(arguments.isolation);
    // A session of its own: a Ctrl-C typed for the command that started it must not reach it.
    rustix::process::setsid().map_err(|error| io("start a session", &error.into()))?;
    let on = match arguments.on {
        None | Some(OnArgument::Local) => On::Local,
        Some(OnArgument::Docker { nodes }) => {
            On::Docker { host: throng_docker::default_host(), nodes: nodes.unwrap_or(0) }
        }
    };
    if on == On::Local {
        throng_engine::delegate(&project);
    }
    match isolation {
        // The daemon is to see this user, not one of a namespace.
        _ if on != On::Local => {}
        IsolationChoice::Process => {}
        IsolationChoice::Container => throng_engine::rootless::enter()?,
        // The engine falls back to plain processes and says why.
        IsolationChoice::Auto => drop(throng_engine::rootless::enter()),
    }
    super::start_tracing(1);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let probes = PROBES_PER_CORE * cores;
    let limits =
        Limits { launches: LAUNCHES_PER_CORE * cores, retirements: RETIREMENTS, probes, rechecks: probes };
    let percent = std::env::var(CHECKS_SHARE.0).ok().and_then(|text| text.parse().ok());
    let checks_share = percent.unwrap_or(CHECKS_SHARE.1) / 100.0;
    let name_ports = std::env::var(NAME_PORTS).ok().and_then(|text| text.parse().ok());
    let name_ports = name_ports.unwrap_or(NAME_PORTS_DEFAULT);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| io("start", &error))?;
    let options = ServeOptions { paths, project, isolation, on, limits, cores, checks_share, name_ports };
    let result = runtime.block_on(serve(options));
    // What the engine keeps beside itself goes with its last task.
    runtime.shutdown_timeout(LEAVING);
    result.map_err(|error| Failure { hint: error.hint(), ..Failure::new(Kind::Host, error.to_string()) })?;
    Ok(ExitCode::SUCCESS)
}

fn choice(isolation: Option<IsolationArgument>) -> IsolationChoice {
    match isolation {
        None | Some(IsolationArgument::Auto) => IsolationChoice::Auto,
        Some(IsolationArgument::Container) => IsolationChoice::Container,
        Some(IsolationArgument::Process) => IsolationChoice::Process,
    }
}

/// One RUN instruction, ready to be carried out: the first line of the input of the process that runs it. It may hold
/// secrets, which others could read in variables or arguments.
#[derive(Serialize, Deserialize)]
pub struct Step {
    pub layers: Vec<PathBuf>,
    pub upper: PathBuf,
    pub process: Process,
    pub mounts: Vec<ResolvedMount>,
    pub sandbox: Sandbox,
    pub offline: bool,
}

/// Hands a step to the process that runs it.
pub async fn send_step(input: &mut (impl AsyncWrite + Unpin), request: &[u8]) -> std::io::Result<()> {
    input.write_all(request).await?;
    input.write_all(b"\n").await?;
    input.flush().await
}

pub fn build_step() -> Result<ExitCode> {
    let not_run = |message: String| {
        eprintln!("error: {message}");
        Ok(ExitCode::from(STEP_NOT_RUN as u8))
    };
    let mut request = Vec::new();
    if let Err(error) = std::io::stdin().lock().take(MAX_STEP).read_until(b'\n', &mut request) {
        return not_run(format!("cannot read the build step: {error}"));
    }
    let step: Step = match serde_json::from_slice(&request) {
        Ok(step) => step,
        Err(error) => return not_run(format!("no build step on standard input: {error}")),
    };
    let _ = rustix::thread::set_name(c"throng");
    let paths = Paths::discover();
    // A session of its own: a Ctrl-C typed for the build ends it by way of standard input, which cleans up.
    if let Err(error) = rustix::process::setsid() {
        return not_run(format!("cannot start a session: {error}"));
    }
    if let Err(error) = throng_engine::rootless::enter() {
        return not_run(error.to_string());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| io("start", &error))?;
    let result = runtime.block_on(async {
        let engine = Engine::open(EngineOptions {
            state_dir: paths.engine(),
            run_dir: paths.run.clone(),
            isolation: IsolationChoice::Container,
        })?;
        let host = |message: String| RuntimeError::new(ErrorKind::Host, message);
        let copy = |descriptor: std::os::fd::BorrowedFd<'_>| {
            descriptor.try_clone_to_owned().map_err(|error| host(error.to_string()))
        };
        let nothing = || {
            let file =
                std::fs::File::open("/dev/null").map_err(|error| host(format!("/dev/null: {error}")))?;
            Ok::<_, RuntimeError>(std::os::fd::OwnedFd::from(file))
        };
        let output = ExecIo {
            stdin: nothing()?,
            stdout: copy(std::io::stdout().as_fd())?,
            stderr: copy(std::io::stderr().as_fd())?,
        };
        let Step { layers, upper, process, mounts, sandbox, offline } = step;
        let wanted = BuildStep { layers, upper, process, mounts, sandbox, offline };
        tokio::select! {
            result = engine.run_step(wanted, output, None) => result,
            () = end_of_input() => Err(host("nobody waits for this step any more".into())),
        }
    });
    match result {
        Ok(exit) => Ok(ExitCode::from(u8::try_from(exit.code()).unwrap_or(255))),
        Err(error) => not_run(error.to_string()),
    }
}

/// Returns when the process that started this one has closed its end, be it by ending.
async fn end_of_input() {
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    // A thread of its own, which a process that ends does not wait for.
    std::thread::spawn(move || {
        let mut byte = [0u8; 1];
        while std::io::stdin().read(&mut byte).is_ok_and(|read| read > 0) {}
        drop(ended);
    });
    let _ = end.await;
}
