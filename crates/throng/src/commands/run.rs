//! `throng run`: an experiment from its file to its report, with everything cleaned up whatever happens.

use super::{app, app::counts, build, images, load, room::Room, runs};
use crate::cli::RunArguments;
use crate::failure::{Failure, Kind, Result};
use crate::project::{Context, warn};
use crate::terminal::{Progress, Style, width, wrap};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use throng_experiment::file::{Experiment, StageSpec};
use throng_experiment::run::{Observer, Plan, detail};
use throng_model::app::App;
use throng_model::run::{Outcome, Run, Stage};
use throng_model::status::{Readiness, Status};

use throng_model::units::format_micros;
use throng_runtime::cluster::ClusterErrorKind;
use throng_supervisor::client::{Client, projects};

const WHAT_TO_NAME: &str = "name a folder with compose.yaml and experiment.yaml, or an experiment file; docs/experiment.md \
                            says what one says, and examples/ has some";

pub async fn run(context: &Context, arguments: RunArguments) -> Result<ExitCode> {
    let interrupted = super::interrupted()?;
    let (app, experiment) = read(context, &arguments)?;
    if arguments.dry_run {
        out!("{}", outline(&experiment));
        return Ok(ExitCode::SUCCESS);
    }
    if projects(&context.paths).contains(&app.name) {
        return Err(Failure::new(Kind::Host, format!("the app {} is already up", app.name))
            .hint(format!("take it down first: throng -p {} down", app.name)));
    }
    let room = Room::make(arguments.out.as_deref().unwrap_or(Path::new(runs::FOLDER)))?;
    let policy = if arguments.no_build { build::BuildPolicy::Never } else { build::BuildPolicy::Always };
    tokio::select! {
        result = build::provide(context, &app, policy, None) => result?,
        () = interrupted.cancelled() => return Err(Failure::new(Kind::Interrupted, "stopped before the start")),
    }
    let client = Client::start(&context.paths, &app.name, &context.choice()).await?;
    let volumes = !keeps_volumes(context, &app);
    // From here on the supervisor takes everything down if this process goes away, however it goes.
    let lease = client.lease(volumes).await?;
    let status = client.status().await?;
    if let Some(lost) = &status.lost {
        eprintln!("{} {}: {lost}", Style::for_stderr().yellow("note:"), status.isolation);
    }
    let id = runs::new_id(context, &app.name).await;
    let out = arguments.out.clone().unwrap_or_else(|| runs::default_folder(&id));
    let plan = Plan {
        id,
        experiment: &experiment,
        app: &app,
        environment: throng_experiment::environment::read(
            &isolation(&status),
            status.unlimited,
            details(context, &app),
        ),
    };
    let mut shown = Shown::default();
    let mut run = throng_experiment::run::run(plan, &client, &mut shown, interrupted.clone()).await;
    if arguments.keep && run.outcome != Outcome::Interrupted {
        lease.release().await?;
        eprintln!("{} stays up; take it down with `throng -p {} down`", app.name, app.name);
    } else {
        let mut progress = Progress::new("clean up");
        client.down(volumes, None, &mut |services| progress.say(&counts(services))).await?;
        progress.done("nothing is left behind");
    }
    run.summary = throng_report::learn(&run);
    let finished = finish(context, &out, &run, shown.refused);
    drop(room);
    finished
}

/// How replicas are kept apart and, unless it is the embedded engine, by what.
fn isolation(status: &Status) -> String {
    match status.on.as_str() {
        "" | "local" => status.isolation.clone(),
        on => format!("{}, {on}", status.isolation),
    }
}

/// Whether some named volume was there before the run: it holds somebody's data and is not the run's to remove.
fn keeps_volumes(context: &Context, app: &App) -> bool {
    let folder = context.paths.volumes();
    let mut earlier = app.volumes.values().filter(|volume| folder.join(&volume.name).exists());
    let Some(volume) = earlier.next() else { return false };
    let note = Style::for_stderr().yellow("note:");
    eprintln!("{note} volume {} was there before the run, so the app's volumes stay after it", volume.name);
    true
}

/// The app and the experiment over it; everything is checked before anything starts.
fn read(context: &Context, arguments: &RunArguments) -> Result<(App, Experiment)> {
    let path = &arguments.experiment;
    let file = if path.is_dir() { experiment_in(path)? } else { path.clone() };
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let text = std::fs::read_to_string(&file).map_err(|error| {
        Failure::new(Kind::Input, format!("cannot read {}: {error}", file.display())).hint(WHAT_TO_NAME)
    })?;
    let app = context.load(Some(folder))?.app;
    let set = parse_set(&arguments.set)?;
    let (experiment, warnings) = throng_experiment::file::parse(&file, &text, &app, &set)?;
    warn(&warnings);
    Ok((app, experiment))
}

fn experiment_in(folder: &Path) -> Result<PathBuf> {
    let names = ["experiment.yaml", "experiment.yml"];
    names.iter().map(|name| folder.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        Failure::new(Kind::Input, format!("no {} in {}", names[0], folder.display())).hint(WHAT_TO_NAME)
    })
}

fn parse_set(texts: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Failure::new(Kind::Input, format!("--set {text}: no value")).hint("write --set NAME=VALUE")),
    };
    texts.iter().map(pair).collect()
}

fn outline(experiment: &Experiment) -> String {
    let style = Style::for_stdout();
    let mut text = format!("{}\n", style.bold(&experiment.title));
    for (index, stage) in experiment.stages.iter().enumerate() {
        text += &format!("{:>3}  {}: {}\n", index + 1, stage.name, detail(&stage.action));
        for (threshold, _) in &stage.require {
            text += &format!("       requires {threshold}\n");
        }
    }
    text
}

/// Image ids belong to a run's environment: a name alone does not say what ran.
fn details(context: &Context, app: &App) -> BTreeMap<String, String> {
    let Ok(store) = images::open_store(context) else { return BTreeMap::new() };
    let each = app.services.values().filter_map(|service| {
        let image = store.find(&service.image).ok()??;
        Some((format!("image of {}", service.name), format!("{} {}", service.image, image.id)))
    });
    each.collect()
}

fn finish(context: &Context, out: &Path, run: &Run, refused: Option<ClusterErrorKind>) -> Result<ExitCode> {
    // First what was learnt: no disk can be in its way.
    out!("\n{}", throng_report::summary_text(run, width()));
    runs::keep(context, run)?;
    let written = throng_report::write(run, out).map_err(|error| {
        let failure = Failure::from(error);
        let recorded = format!("the run is recorded: `throng report {} --out DIR` writes its report", run.id);
        let hint = failure.hint.iter().cloned().chain([recorded]).collect::<Vec<_>>().join("; ");
        failure.hint(hint)
    })?;
    outln!("\nreport: {}", written.report.display());
    match run.outcome {
        Outcome::Passed => Ok(ExitCode::SUCCESS),
        Outcome::Interrupted => Ok(ExitCode::from(Kind::Interrupted.code())),
        Outcome::Failed => {
            let error = run.stages.iter().find_map(|stage| Some((stage, stage.error.as_ref()?)));
            Err(match error {
                Some((stage, error)) => Failure {
                    log: stage.log.clone(),
                    ..Failure::new(
                        refused.map_or(Kind::NotHeld, Kind::from),
                        format!("stage {:?}: {error}", stage.name),
                    )
                },
                None => {
                    let all = run.stages.iter().flat_map(|stage| &stage.thresholds);
                    let broken = all.filter(|threshold| !threshold.held).count();
                    let plural = if broken == 1 { "" } else { "s" };
                    Failure::new(Kind::NotHeld, format!("{broken} threshold{plural} did not hold"))
                }
            })
        }
    }
}

/// The run as a person sees it: one line a stage, and a moving one for the stage under way.
#[derive(Default)]
struct Shown {
    progress: Option<Progress>,
    /// Why the cluster refused a stage.
    refused: Option<ClusterErrorKind>,
}

impl Observer for Shown {
    fn stage_begins(&mut self, index: usize, of: usize, stage: &StageSpec) {
        let style = Style::for_stderr();
        if let Some(explain) = &stage.explain {
            eprintln!("{}", style.dim(&wrap(explain, width())));
        }
        let progress = Progress::new(&format!("[{}/{of}] {}", index + 1, stage.name));
        progress.announce();
        self.progress = Some(progress);
    }

    fn readiness(&mut self, services: &BTreeMap<String, Readiness>) {
        if let Some(progress) = &mut self.progress {
            app::show(progress, services);
        }
    }

    fn load(&mut self, now: &throng_load::Progress, repetition: u32, of: u32) {
        let Some(progress) = &mut self.progress else { return };
        if of > 1 {
            progress.prefix(match repetition {
                0 => "warm-up".into(),
                n => format!("{n}/{of}"),
            });
        }
        load::show(progress, now);
    }

    fn waiting(&mut self, passed: Duration, of: Duration) {
        if let Some(progress) = &mut self.progress {
            let left = of.saturating_sub(passed).as_secs();
            progress.part(passed.as_millis() as u64, of.as_millis() as u64, &format!("{left} s left"));
        }
    }

    fn refused(&mut self, kind: ClusterErrorKind) {
        self.refused = Some(kind);
    }

    fn stage_ends(&mut self, stage: &Stage) {
        let Some(progress) = self.progress.take() else { return };
        let broken = stage.thresholds.iter().filter(|threshold| !threshold.held);
        let broken: Vec<String> =
            broken.map(|t| format!("{} but measured {}", t.expression, t.measured)).collect();
        match (&stage.error, broken.is_empty()) {
            (Some(error), _) => progress.failed(error),
            (None, false) => progress.failed(&format!("required {}", broken.join(", "))),
            (None, true) => progress.done(&result(stage)),
        }
    }
}

/// A stage's result in half a line.
fn result(stage: &Stage) -> String {
    let Some(last) = stage.loads.last() else { return stage.detail.clone() };
    let errors: u64 = last.errors.values().sum();
    let percentile = |name: &str| format_micros(last.latency.percentiles.get(name).copied().unwrap_or(0));
    let errors = if errors > 0 { format!(", {errors} errors") } else { String::new() };
    format!("{:.0}/s, p50 {}, p99 {}{errors}", last.rate, percentile("50"), percentile("99"))
}
