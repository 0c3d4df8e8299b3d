//! Images that are built: for a service, for a folder, or because an app is to start.

use super::images::{open_store, pull_one, short};
use crate::cli::{BuildArguments, ProgressArgument, PullArgument};
use crate::failure::{Failure, Kind, Result};
use crate::project::Context;
use crate::terminal::Progress;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::SystemTime;
use throng_image::{
    BuildEvent, BuildOptions, BuildProgress, ContextSource, ImageError, RunStep, Secret, SecretContent,
    StepRunner, Store,
};
use throng_model::app::{App, FileSource, Service};
use throng_model::build::{BuildContext, BuildSecret, PullPolicy};
use throng_model::sandbox::{HostAddress, Sandbox};
use throng_model::units::format_bytes;
use throng_walls::{Evidence, explain};
use tokio::io::AsyncReadExt;

/// When `up` and `run` build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildPolicy {
    Always,
    Missing,
    Never,
}

/// What a command line says about building, over what files say.
#[derive(Debug, Clone, Default)]
struct Wishes {
    args: BTreeMap<String, String>,
    no_cache: bool,
    pull: bool,
    progress: ProgressArgument,
}

/// Makes sure of every image that the app needs: builds what has a build section, fetches the rest, each as its
/// `pull_policy` says unless `pull` says otherwise.
pub async fn provide(
    context: &Context,
    app: &App,
    policy: BuildPolicy,
    pull: Option<PullArgument>,
) -> Result<()> {
    let store = open_store(context)?;
    let wanted = app.services.values().filter(|service| service.replicas > 0);
    // Building first: what one service builds may be what another one runs.
    for service in in_build_order(app, wanted.clone().filter(|service| service.build.is_some()))? {
        let here = store.find(&service.image)?.is_some();
        let asked_for = pull_policy(service, pull);
        // As with Docker: a service that has both is built only if its image cannot be fetched.
        let fetched = is_due(&store, service, asked_for, here)?
            && asked_for != PullPolicy::Missing
            && pull_one(&store, &service.image, false).await.is_ok();
        let build = match policy {
            BuildPolicy::Always => true,
            BuildPolicy::Never => false,
            BuildPolicy::Missing => asked_for == PullPolicy::Build || !(here || fetched),
        };
        if build {
            build_service(&store, app, service, &Wishes::default()).await?;
        }
    }
    for service in wanted.filter(|service| service.build.is_none()) {
        let here = store.find(&service.image)?.is_some();
        let asked_for = pull_policy(service, pull);
        if asked_for == PullPolicy::Never && !here {
            let message = format!(
                "image {} (service {}) is not here, and is never pulled",
                service.image, service.name
            );
            let hint = "run `throng pull`, or change its pull_policy";
            return Err(Failure::new(Kind::NotFound, message).hint(hint));
        }
        if is_due(&store, service, asked_for, here)? {
            let pulled = pull_one(&store, &service.image, false).await;
            pulled.map_err(|error| {
                missing(&service.image, &format!("service {}", service.name), here, error)
            })?;
        }
    }
    Ok(())
}

fn pull_policy(service: &Service, given: Option<PullArgument>) -> PullPolicy {
    match given {
        None => service.pull,
        Some(PullArgument::Always) => PullPolicy::Always,
        Some(PullArgument::Missing) => PullPolicy::Missing,
        Some(PullArgument::Never) => PullPolicy::Never,
    }
}

/// Whether the registry is to be asked for the service's image.
fn is_due(store: &Store, service: &Service, policy: PullPolicy, here: bool) -> Result<bool> {
    Ok(match policy {
        PullPolicy::Always => true,
        PullPolicy::Never => false,
        PullPolicy::Missing | PullPolicy::Build => !here,
        PullPolicy::Every(time) => {
            let last = store.last_pulled(&service.image)?;
            let age = last.and_then(|last| SystemTime::now().duration_since(last).ok());
            !here || age.is_none_or(|age| age >= time)
        }
    })
}

/// The services, each after those whose images it is built from, which come along.
fn in_build_order<'a>(app: &'a App, services: impl Iterator<Item = &'a Service>) -> Result<Vec<&'a Service>> {
    let mut order: Vec<&Service> = Vec::new();
    let mut open: Vec<(&Service, bool)> = services.map(|service| (service, false)).collect();
    open.reverse();
    let mut seen = BTreeSet::new();
    while let Some((service, is_ready)) = open.pop() {
        if is_ready {
            order.push(service);
            continue;
        }
        if !seen.insert(&service.name) {
            continue;
        }
        open.push((service, true));
        for context in service.build.iter().flat_map(|build| build.contexts.values()) {
            if let BuildContext::Service(name) = context {
                let other = context_service(app, service, name)?;
                open.extend((other.build.is_some()).then_some((other, false)));
            }
        }
    }
    Ok(order)
}

fn context_service<'a>(app: &'a App, service: &Service, name: &str) -> Result<&'a Service> {
    app.services.get(name).ok_or_else(|| {
        let message =
            format!("{} is built from the image of {name}, which its profiles leave out", service.name);
        Failure::new(Kind::Input, message).hint("enable it with --profile")
    })
}

/// An image that is needed is nowhere: what people most often want then is not the registry at all. `who` needs it.
fn missing(image: &str, who: &str, here: bool, error: ImageError) -> Failure {
    let message = |registry: &str, reason: &str| match here {
        true => format!(
            "image {image} ({who}) is here, but to be fetched anew, and {registry} does not give it: {reason}"
        ),
        false => format!("image {image} ({who}) is neither here nor to be fetched from {registry}: {reason}"),
    };
    let local = format!(
        "`throng images` lists what is here; build it (`build:` in the Compose file, or `throng build -t {image} .`), \
         load it (`throng load -i`)"
    );
    let (message, hint) = match &error {
        ImageError::Registry { registry, reason } => {
            // A registry that has had enough is neither the network's fault nor a build's.
            let wall = explain(&Evidence::of_messages([reason.as_str()])).map(|wall| wall.told());
            (message(registry, reason), wall.unwrap_or_else(|| format!("{local}, or see to the network")))
        }
        ImageError::NotInRegistry { registry, .. } => {
            (message(registry, "there is no such image"), format!("{local}, or check the name and the tag"))
        }
        ImageError::Unauthorized { registry, .. } => (
            message(registry, "access is refused"),
            format!("{local}, or check the name; `docker login {registry}` logs in"),
        ),
        _ => return error.into(),
    };
    Failure { hint: Some(hint), message, ..error.into() }
}

async fn build_service(store: &Store, app: &App, service: &Service, wishes: &Wishes) -> Result<()> {
    let Some(build) = &service.build else { return Ok(()) };
    let mut args = build.args.clone();
    args.extend(wishes.args.clone());
    let (mut contexts, mut own) = (BTreeMap::new(), BTreeSet::new());
    for (name, context) in &build.contexts {
        let source = match context {
            BuildContext::Folder(path) => ContextSource::Folder(path.clone()),
            BuildContext::Image(image) => ContextSource::Image(image.clone()),
            BuildContext::Service(other) => {
                let image = context_service(app, service, other)?.image.clone();
                own.insert(image.clone());
                ContextSource::Image(image)
            }
        };
        contexts.insert(name.clone(), source);
    }
    let mut secrets = BTreeMap::new();
    for secret in &build.secrets {
        secrets.insert(secret.id.clone(), declared_secret(app, service, secret)?);
    }
    let options = BuildOptions {
        context: build.context.clone(),
        dockerfile: build.dockerfile.clone(),
        text: build.inline.clone(),
        tags: [vec![service.image.clone()], build.tags.clone()].concat(),
        target: build.target.clone(),
        args,
        no_cache: build.no_cache || wishes.no_cache,
        labels: build.labels.clone(),
        contexts,
        secrets,
        sandbox: build.sandbox.clone(),
        offline: build.offline,
        source_date_epoch: source_date_epoch(),
    };
    let wishes = Wishes { pull: wishes.pull || build.pull, ..wishes.clone() };
    build_one(store, &options, &service.image, &wishes, &own).await
}

fn declared_secret(app: &App, service: &Service, secret: &BuildSecret) -> Result<Secret> {
    let content = match app.secrets.get(&secret.source) {
        Some(FileSource::File(path)) => SecretContent::File(path.clone()),
        Some(FileSource::Environment { value: text, .. } | FileSource::Content(text)) => {
            SecretContent::Text(text.clone())
        }
        None => {
            let message = format!("{}: the secret {} is not declared", service.name, secret.source);
            return Err(Failure::new(Kind::Input, message));
        }
    };
    Ok(Secret { content, uid: secret.uid, gid: secret.gid, mode: secret.mode })
}

/// reproducible-builds.org's variable; without it, times in images are 0.
fn source_date_epoch() -> u64 {
    std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Fetches what the build begins with, where it is not here or is to be fetched anew, and builds. `own` are images that
/// the app builds itself.
async fn build_one(
    store: &Store,
    options: &BuildOptions,
    name: &str,
    wishes: &Wishes,
    own: &BTreeSet<String>,
) -> Result<()> {
    for (image, place) in throng_image::needed_images(options)? {
        let here = store.find(&image)?.is_some();
        if !here || (wishes.pull && !own.contains(&image)) {
            let pulled = pull_one(store, &image, false).await;
            pulled.map_err(|error| missing(&image, &place.to_string(), here, error))?;
        }
    }
    let progress = Mutex::new(Some(Progress::new(&format!("build {name}"))));
    let shown = BuildShown { progress, manner: wishes.progress, steps: Mutex::default() };
    let result = throng_image::build(store, options, &Runner, &shown).await;
    let progress = shown.take();
    match (result, progress) {
        (Ok(image), _) if wishes.progress == ProgressArgument::Quiet => {
            outln!("{}", image.id);
            Ok(())
        }
        (Ok(image), Some(progress)) => {
            progress.done(&format!("{} {}", short(&image.id), format_bytes(image.size)));
            Ok(())
        }
        (Ok(_), None) => Ok(()),
        (Err(error), progress) => {
            if let Some(progress) = progress {
                progress.failed("");
            }
            Err(error.into())
        }
    }
}

/// Shows a build's steps in one moving line or in lines of their own, and what commands write as it comes.
struct BuildShown {
    progress: Mutex<Option<Progress>>,
    manner: ProgressArgument,
    /// The step that is under way, of how many.
    steps: Mutex<(usize, usize)>,
}

impl BuildShown {
    fn take(&self) -> Option<Progress> {
        self.progress.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
    }

    fn plain(&self, event: BuildEvent<'_>) {
        let mut steps = self.steps.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match event {
            BuildEvent::StepStarted { step, steps: all, stage, text } => {
                *steps = (step, all);
                eprintln!("[{stage} {step}/{all}] {text}");
            }
            BuildEvent::StepFinished { cached: true } => eprintln!("[{}/{}] CACHED", steps.0, steps.1),
            BuildEvent::StepFinished { cached: false } => eprintln!("[{}/{}] DONE", steps.0, steps.1),
            BuildEvent::Warning(diagnostic) => crate::project::warn(std::slice::from_ref(diagnostic)),
            // A closed standard error loses nothing that counts.
            BuildEvent::Output(bytes) => drop(std::io::stderr().write_all(bytes)),
        }
    }
}

impl BuildProgress for BuildShown {
    fn event(&self, event: BuildEvent<'_>) {
        match self.manner {
            ProgressArgument::Plain => return self.plain(event),
            ProgressArgument::Quiet => return,
            ProgressArgument::Auto | ProgressArgument::Tty => {}
        }
        let mut progress = self.progress.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Some(progress) = progress.as_mut() else { return };
        match event {
            BuildEvent::StepStarted { step, steps, text, .. } => {
                progress.part(step as u64, steps as u64, text)
            }
            BuildEvent::Warning(diagnostic) => {
                progress.above(|| crate::project::warn(std::slice::from_ref(diagnostic)))
            }
            BuildEvent::Output(bytes) => progress.above(|| {
                // What a command writes is shown as it is; a closed standard error loses nothing that counts.
                let _ = std::io::stderr().write_all(bytes);
            }),
            BuildEvent::StepFinished { .. } => {}
        }
    }
}

/// Carries RUN out in a process of its own: it may have to enter a user namespace, which only a process with a
/// single thread can.
struct Runner;

#[async_trait]
impl StepRunner for Runner {
    async fn run(&self, step: RunStep) -> std::result::Result<i32, String> {
        let request = super::supervise::Step {
            layers: step.layers,
            upper: step.upper,
            process: step.process,
            mounts: step.mounts,
            sandbox: step.sandbox,
            offline: step.offline,
        };
        let request = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
        let executable = throng_supervisor::own_executable().map_err(|error| error.to_string())?;
        let (reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
        let mut child = tokio::process::Command::new(executable)
            .arg0("throng")
            .arg("build-step")
            // Closed only once nobody waits for the step any more, which tells it so. Killing the process instead would
            // leave what it has started.
            .stdin(std::process::Stdio::piped())
            .stdout(writer.try_clone().map_err(|error| error.to_string())?)
            .stderr(writer)
            .spawn()
            .map_err(|error| format!("cannot start the engine: {error}"))?;
        let mut until_dropped = child.stdin.take();
        if let Some(input) = &mut until_dropped {
            super::supervise::send_step(input, &request).await.map_err(|error| error.to_string())?;
        }
        let mut reader = tokio::fs::File::from_std(std::fs::File::from(std::os::fd::OwnedFd::from(reader)));
        let mut buffer = vec![0; 16 << 10];
        loop {
            let read = reader.read(&mut buffer).await.map_err(|error| error.to_string())?;
            if read == 0 || step.output.send(buffer[..read].to_vec()).await.is_err() {
                break;
            }
        }
        let status = child.wait().await.map_err(|error| error.to_string())?;
        match status.code() {
            Some(super::supervise::STEP_NOT_RUN) => Err("the engine could not run it; see above".into()),
            Some(code) => Ok(code),
            None => Err(format!("the engine ended: {status}")),
        }
    }
}

pub async fn run(context: &Context, arguments: BuildArguments) -> Result<()> {
    let store = open_store(context)?;
    let wishes = Wishes {
        args: parse_args(&arguments.build_arg)?,
        no_cache: arguments.no_cache,
        pull: arguments.pull,
        progress: if arguments.quiet { ProgressArgument::Quiet } else { arguments.progress },
    };
    if !arguments.tag.is_empty() {
        let name = arguments.tag.join(", ");
        let options = folder_options(arguments, &wishes)?;
        return build_one(&store, &options, &name, &wishes, &BTreeSet::new()).await;
    }
    let app = context.load(None)?.app;
    for name in &arguments.targets {
        if !app.services.contains_key(name) {
            return Err(Failure::new(Kind::NotFound, format!("no service {name} in {}", app.name))
                .hint("to build a folder, give the image a name: throng build -t NAME FOLDER"));
        }
    }
    let chosen = app.services.values().filter(|service| {
        service.build.is_some() && (arguments.targets.is_empty() || arguments.targets.contains(&service.name))
    });
    let order = in_build_order(&app, chosen)?;
    for service in &order {
        build_service(&store, &app, service, &wishes).await?;
    }
    if order.is_empty() {
        eprintln!("nothing to build: no chosen service has a build section");
    }
    Ok(())
}

/// The build of a folder, as the command line describes it.
fn folder_options(arguments: BuildArguments, wishes: &Wishes) -> Result<BuildOptions> {
    let folder = match arguments.targets.as_slice() {
        [] => PathBuf::from("."),
        [folder] => PathBuf::from(folder),
        more => {
            let message = format!("one build context is built at a time, not {}", more.len());
            return Err(Failure::new(Kind::Input, message));
        }
    };
    let (mut dockerfile, mut text) =
        (arguments.dockerfile.unwrap_or_else(|| folder.join("Dockerfile")), None);
    if dockerfile.as_os_str() == "-" {
        dockerfile = "standard input".into();
        text = Some(crate::project::read_input("Dockerfile")?);
    }
    Ok(BuildOptions {
        dockerfile,
        text,
        context: folder,
        tags: arguments.tag,
        target: arguments.target,
        args: wishes.args.clone(),
        no_cache: wishes.no_cache,
        labels: pairs("--label", &arguments.label)?,
        contexts: pairs("--build-context", &arguments.build_context)?
            .into_iter()
            .map(|(name, source)| {
                let image =
                    source.strip_prefix("docker-image://").map(|image| ContextSource::Image(image.into()));
                (name, image.unwrap_or_else(|| ContextSource::Folder(source.into())))
            })
            .collect(),
        secrets: arguments.secret.iter().map(|text| given_secret(text)).collect::<Result<_>>()?,
        sandbox: Sandbox { hosts: given_hosts(&arguments.add_host)?, ..Sandbox::default() },
        offline: arguments.network == crate::cli::NetworkArgument::None,
        source_date_epoch: source_date_epoch(),
    })
}

fn pairs(flag: &str, texts: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Failure::new(Kind::Input, format!("{flag} {text}: no name with a value"))
            .hint("write NAME=VALUE")),
    };
    texts.iter().map(pair).collect()
}

/// `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`, as docker takes them; without a source it is the variable of that name.
fn given_secret(text: &str) -> Result<(String, Secret)> {
    let wrong = |message: String| {
        Failure::new(Kind::Input, format!("--secret {text}: {message}"))
            .hint("write id=NAME,src=FILE or id=NAME,env=VARIABLE")
    };
    let (mut id, mut file, mut variable) = (None, None, None);
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("id", value)) => id = Some(value.to_owned()),
            Some(("src" | "source", value)) => file = Some(PathBuf::from(value)),
            Some(("env", value)) => variable = Some(value.to_owned()),
            Some(("type", "file" | "env")) => {}
            _ => return Err(wrong(format!("{part:?} is not known"))),
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| wrong("it has no id".into()))?;
    let content = match (file, variable) {
        (Some(file), None) if file.is_file() => SecretContent::File(file),
        (Some(file), None) => return Err(wrong(format!("there is no file {}", file.display()))),
        (None, variable) => {
            let variable = variable.unwrap_or_else(|| id.clone());
            let value =
                std::env::var(&variable).map_err(|_| wrong(format!("the variable {variable} is not set")))?;
            SecretContent::Text(value)
        }
        (Some(_), Some(_)) => return Err(wrong("it has two sources".into())),
    };
    Ok((id, Secret { content, uid: None, gid: None, mode: None }))
}

fn given_hosts(texts: &[String]) -> Result<Vec<(String, HostAddress)>> {
    let host = |text: &String| {
        let parts = text.split_once(['=', ':']);
        let address = parts.and_then(|(_, address)| match address {
            "host-gateway" => Some(HostAddress::Gateway),
            address => address.trim_matches(['[', ']']).parse().ok().map(HostAddress::Address),
        });
        match (parts, address) {
            (Some((name, _)), Some(address)) if !name.is_empty() => Ok((name.to_owned(), address)),
            _ => Err(Failure::new(Kind::Input, format!("--add-host {text}: no name with an address"))
                .hint("write NAME=ADDRESS")),
        }
    };
    texts.iter().map(host).collect()
}

fn parse_args(texts: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        // As docker: a bare name takes the caller's value.
        None => std::env::var(text).map(|value| (text.clone(), value)).map_err(|_| {
            Failure::new(Kind::Input, format!("--build-arg {text}: no value, and the environment has none"))
                .hint("write NAME=VALUE")
        }),
    };
    texts.iter().map(pair).collect()
}
