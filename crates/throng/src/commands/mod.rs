//! One module per group of commands. Each turns what was typed into calls of the other crates.

mod app;
mod autoscale;
mod build;
mod ceiling;
mod convert;
mod describe;
mod doctor;
mod faults;
mod images;
mod listings;
mod load;
mod logs;
mod manual;
mod metrics;
mod node;
mod prune;
mod room;
mod run;
mod runs;
mod supervise;
mod top;
mod wait;
mod without_terminal;

use crate::cli::{Arguments, Command};
use crate::failure::{Failure, Kind, Result, io};
use crate::project::Context;
use std::process::ExitCode;
use std::time::Duration;
use throng_model::fault::ReplicaFault;
use throng_supervisor::paths::Paths;
use tokio_util::sync::CancellationToken;

/// Carries a command out.
pub fn run(arguments: Arguments) -> Result<ExitCode> {
    // User namespaces must be entered while this process has a single thread, so these two come first.
    match &arguments.command {
        Command::Supervise => return supervise::run(arguments),
        Command::BuildStep => return supervise::build_step(),
        _ => {}
    }
    start_tracing(arguments.verbose);
    let context = Context {
        paths: Paths::discover(),
        project: arguments.project,
        isolation: arguments.isolation.map(|isolation| isolation.name()),
        on: arguments.on.map(|on| on.asked()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| io("start", &error))?;
    let result = runtime.block_on(dispatch(&context, arguments.command));
    // What may still block (a read of standard input) must not keep the command from ending.
    runtime.shutdown_background();
    result
}

async fn dispatch(context: &Context, command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(arguments) => return run::run(context, arguments).await,
        Command::Up(arguments) => return app::up(context, arguments).await,
        Command::Exec(arguments) => return app::exec(context, arguments).await,
        Command::Wait(arguments) => return wait::run(context, arguments).await,
        Command::Doctor(arguments) => return doctor::run(context, &arguments),
        Command::Ceiling(arguments) => return ceiling::run(context, &arguments).await,
        Command::Load(arguments) => match &arguments.input {
            Some(archive) => images::load(context, archive).await?,
            None => return load::run(context, *arguments).await,
        },
        Command::Down(arguments) => app::down(context, arguments).await?,
        Command::Scale(arguments) => app::scale(context, arguments).await?,
        Command::Ps(arguments) => listings::ps(context, arguments).await?,
        Command::Describe(arguments) => describe::run(context, arguments).await?,
        Command::Ls(arguments) => listings::ls(context, arguments).await?,
        Command::Kill(arguments) => {
            let fault = ReplicaFault::Kill { signal: arguments.signal };
            faults::befall(context, &arguments.victims, fault, None).await?;
        }
        Command::Stop(arguments) => {
            let fault = ReplicaFault::Stop { grace: arguments.timeout.map(Duration::from_secs) };
            faults::befall(context, &arguments.victims, fault, arguments.lasts).await?;
        }
        Command::Start(arguments) => {
            faults::befall(context, &arguments.victims, ReplicaFault::Start, None).await?;
        }
        Command::Pause(arguments) => {
            faults::befall(context, &arguments.victims, ReplicaFault::Pause, arguments.lasts).await?;
        }
        Command::Unpause(arguments) => {
            faults::befall(context, &arguments.victims, ReplicaFault::Unpause, None).await?;
        }
        Command::Fill(arguments) => {
            let fault = ReplicaFault::Fill { bytes: arguments.size };
            faults::befall(context, &arguments.victims, fault, arguments.lasts).await?;
        }
        Command::Empty(arguments) => {
            faults::befall(context, &arguments.victims, ReplicaFault::Empty, None).await?;
        }
        Command::Node { command } => node::run(context, command).await?,
        Command::Top(arguments) => top::run(context, arguments).await?,
        Command::Metrics(arguments) => metrics::run(context, arguments).await?,
        Command::Events(arguments) => listings::events(context, arguments).await?,
        Command::Config(arguments) => listings::config(context, arguments)?,
        Command::Convert(arguments) => convert::run(context, arguments)?,
        Command::Logs(arguments) => logs::run(context, arguments).await?,
        Command::Runs(arguments) => runs::list(context, arguments)?,
        Command::Report(arguments) => runs::report(context, arguments)?,
        Command::Compare(arguments) => runs::compare(context, arguments)?,
        Command::Build(arguments) => stoppable(build::run(context, arguments)).await?,
        Command::Pull(arguments) => stoppable(images::pull(context, arguments)).await?,
        Command::Push(arguments) => stoppable(images::push(context, arguments)).await?,
        Command::Images(arguments) => images::list(context, arguments)?,
        Command::Rmi(arguments) => images::remove(context, arguments)?,
        Command::Prune(arguments) => prune::run(context, arguments).await?,
        Command::Tag(arguments) => images::tag(context, arguments)?,
        Command::Save(arguments) => images::save(context, arguments)?,
        Command::Autoscale { command } => autoscale::run(&command)?,
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { folder } => manual::pages(&folder)?,
        Command::ExitCodes => manual::exit_codes(),
        Command::Supervise | Command::BuildStep => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Work that a Ctrl-C drops; what it holds cleans up after itself then.
async fn stoppable(work: impl Future<Output = Result<()>>) -> Result<()> {
    let interrupted = interrupted()?;
    tokio::select! {
        result = work => result,
        () = interrupted.cancelled() => Err(Failure::new(Kind::Interrupted, "stopped")),
    }
}

fn start_tracing(verbose: u8) {
    let default = match verbose {
        0 => "error",
        1 => "throng=info,throng_supervisor=info,throng_engine=info,throng_image=info",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("THRONG_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// A token that is cancelled by the first Ctrl-C or SIGTERM. A second one ends the process at once; what it
/// leaves is then taken down by the supervisor, which notices that its lease is gone.
pub fn interrupted() -> Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let token = CancellationToken::new();
    let listen = |kind| signal(kind).map_err(|error| io("listen for signals", &error));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut hang_up = listen(SignalKind::hangup())?;
    let cancelled = token.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
            if cancelled.is_cancelled() {
                std::process::exit(130);
            }
            cancelled.cancel();
        }
    });
    Ok(token)
}
