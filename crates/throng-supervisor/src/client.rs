//! How a command finds, starts and talks to the supervisor of a project.

mod cluster;
mod exchange;

use crate::backend::{Asked, On};
use crate::paths::Paths;
use crate::protocol::{Exec, Manner, Refusal, RefusalKind, Reply, Request, Target};
use crate::server::LISTENING;
use crate::steps;
use exchange::Exchange;
pub use exchange::{Lease, Watch};
use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use throng_model::app::App;
use throng_model::autoscale::Description;
use throng_model::fault::{ReplicaFault, Victims};
use throng_model::node::{NodeChange, NodeChoice, NodeStatus};
use throng_model::replica::Exit;
use throng_model::status::{Event, Status};
use throng_runtime::cluster::Progress;
use tokio::net::UnixStream;

/// How much of a log is searched for the reason of an end.
const LAST_WORDS_MOST: u64 = 16 << 10;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no app {0} is up")]
    NotUp(String),
    #[error("{0}")]
    Refused(Refusal),
    #[error("{project} runs on {on}")]
    Elsewhere { project: String, on: On },
    #[error("cannot start the supervisor of {project}: {reason}")]
    NotStarted { project: String, reason: String, hint: Option<String> },
    #[error("lost the supervisor of {project}: {source}")]
    Lost { project: String, source: std::io::Error },
}

impl ClientError {
    pub fn hint(&self) -> Option<String> {
        match self {
            ClientError::NotUp(_) => Some("start it with `throng up -d`, or name another one with -p".into()),
            ClientError::Refused(refusal) => refusal.hint.clone(),
            ClientError::Elsewhere { project, .. } => {
                Some(format!("leave --on away, or take it down first: throng -p {project} down"))
            }
            ClientError::NotStarted { hint, .. } => hint.clone(),
            ClientError::Lost { .. } => {
                Some("its replicas go on; any command starts a supervisor that takes them up again".into())
            }
        }
    }
}

pub type Result<T> = std::result::Result<T, ClientError>;

/// Asks a request and takes what is wanted out of the one reply that it must have.
macro_rules! ask {
    ($client:expr, $request:expr, $reply:pat => $wanted:expr) => {
        match $client.ask(&$request).await? {
            $reply => Ok($wanted),
            other => Err(unexpected(&other)),
        }
    };
}

/// How a supervisor is to run replicas, where that is not settled yet.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choice<'a> {
    /// `auto`, `container` or `process`.
    pub isolation: Option<&'a str>,
    pub on: Option<&'a Asked>,
}

/// A way to one project's supervisor. Each call opens a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    paths: Paths,
    project: String,
    notes: Vec<String>,
}

impl Client {
    /// The supervisor of an app that is up; starts one if the last one was killed.
    pub async fn find(paths: &Paths, project: &str, choice: &Choice<'_>) -> Result<Client> {
        let mut client = Client { paths: paths.clone(), project: project.into(), notes: Vec::new() };
        let on = client.settle(choice)?;
        if client.answers().await {
            return Ok(client);
        }
        // Replicas whose state file is lost can still be taken down.
        if !paths.state_file(project).exists() && paths.runs_on(project).is_none() {
            return Err(ClientError::NotUp(project.into()));
        }
        client.spawn(choice.isolation, &on).await?;
        Ok(client)
    }

    /// A supervisor that takes down what is left of an app that is not up: networks that had just been made when its own
    /// was killed. None if there are none.
    pub async fn of_remains(paths: &Paths, project: &str, choice: &Choice<'_>) -> Result<Option<Client>> {
        match paths.made_for(project).is_empty() {
            true => Ok(None),
            false => Client::start(paths, project, choice).await.map(Some),
        }
    }

    /// The supervisor of a project, started if there is none.
    pub async fn start(paths: &Paths, project: &str, choice: &Choice<'_>) -> Result<Client> {
        let mut client = Client { paths: paths.clone(), project: project.into(), notes: Vec::new() };
        let on = client.settle(choice)?;
        if !client.answers().await {
            client.spawn(choice.isolation, &on).await?;
        }
        Ok(client)
    }

    /// What the app runs on, or is to run on; refused if it was asked to run on something else.
    fn settle(&self, choice: &Choice<'_>) -> Result<On> {
        let recorded = self.paths.runs_on(&self.project);
        On::settle(choice.on, recorded)
            .map_err(|on| ClientError::Elsewhere { project: self.project.clone(), on })
    }

    pub fn project(&self) -> &str {
        &self.project
    }

    async fn answers(&self) -> bool {
        UnixStream::connect(self.paths.socket(&self.project)).await.is_ok()
    }

    /// Starts the supervisor as a process of its own and waits until it listens.
    async fn spawn(&mut self, isolation: Option<&str>, on: &On) -> Result<()> {
        let name = self.project.clone();
        let project = || name.clone();
        let failed = |reason: String| ClientError::NotStarted { project: project(), reason, hint: None };
        let executable = steps::own_executable().map_err(|error| failed(error.to_string()))?;
        self.paths.prepare().map_err(|error| failed(error.to_string()))?;
        let log = self.paths.supervisor_log(&self.project);
        if let Some(folder) = log.parent() {
            std::fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
        }
        let open = std::fs::OpenOptions::new().create(true).append(true).open(&log);
        let log_file = open.map_err(|error| failed(format!("{}: {error}", log.display())))?;
        let mut command = steps::supervisor_command(executable, &self.project);
        if let Some(isolation) = isolation {
            command.args(["--isolation", isolation]);
        }
        if let On::Docker { host, nodes } = on {
            let on = if *nodes == 0 { "docker".to_owned() } else { format!("docker:{nodes}") };
            command.args(["--on", &on]).env("DOCKER_HOST", host);
        }
        command.stderr(log_file);
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let Some(out) = child.stdout.take() else { return Err(failed("no standard output".into())) };
        let said = tokio::task::spawn_blocking(move || {
            let mut lines =
                std::io::BufRead::lines(std::io::BufReader::new(out)).map_while(std::io::Result::ok);
            let mut notes = Vec::new();
            let listens = loop {
                match lines.next() {
                    Some(line) if line == LISTENING => break true,
                    Some(line) => notes.push(line),
                    None => break false,
                }
            };
            (listens, notes, child)
        });
        let (said, notes, mut child) = said.await.map_err(|error| failed(error.to_string()))?;
        if said {
            self.notes = notes;
            // Its exit status is nobody's here; a thread that waits keeps it from staying as a zombie.
            std::thread::spawn(move || child.wait());
            return Ok(());
        }
        let _ = child.wait();
        // Another command may have started one at the same moment.
        if self.answers().await {
            return Ok(());
        }
        let (reason, hint) = last_words(&log);
        if !self.paths.state_file(&self.project).exists() {
            // There was no app before; the folder holds nothing but the log that has just been quoted.
            let _ = std::fs::remove_dir_all(self.paths.project(&self.project));
        }
        Err(ClientError::NotStarted { project: project(), reason, hint })
    }

    /// What a supervisor that had to be started for this found odd, in lines for people.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    async fn open(&self, request: &Request) -> Result<Exchange> {
        let stream = UnixStream::connect(self.paths.socket(&self.project)).await;
        let stream = stream.map_err(|_| ClientError::NotUp(self.project.clone()))?;
        let mut exchange = Exchange::new(stream, self.project.clone());
        exchange.send(request).await?;
        Ok(exchange)
    }

    /// A request with a single reply.
    async fn ask(&self, request: &Request) -> Result<Reply> {
        self.open(request).await?.next().await
    }

    /// Makes the app wanted; it is reached later (see [`Client::wait`]).
    pub async fn apply(&self, app: &App, only: &[String]) -> Result<()> {
        self.apply_so(app, only, Manner::default()).await
    }

    /// As [`Client::apply`], in a manner of one's own.
    pub async fn apply_so(&self, app: &App, only: &[String], manner: Manner) -> Result<()> {
        let request = Request::Apply { app: Box::new(app.clone()), only: only.to_vec(), manner };
        self.ask(&request).await.map(|_| ())
    }

    pub async fn scale(&self, replicas: BTreeMap<String, u32>) -> Result<()> {
        self.ask(&Request::Scale { replicas }).await.map(|_| ())
    }

    /// Waits until the services are as wanted; `progress` is told of every change.
    pub async fn wait(&self, services: &[String], timeout: Duration, progress: Progress<'_>) -> Result<()> {
        self.wait_for(services, timeout, false, progress).await
    }

    /// As [`Client::wait`], for what has just been applied: an update that has been rolled back already is an error.
    pub async fn wait_for_update(
        &self,
        services: &[String],
        timeout: Duration,
        progress: Progress<'_>,
    ) -> Result<()> {
        self.wait_for(services, timeout, true, progress).await
    }

    async fn wait_for(
        &self,
        services: &[String],
        timeout: Duration,
        update: bool,
        progress: Progress<'_>,
    ) -> Result<()> {
        let request = Request::Wait { services: services.to_vec(), timeout, update };
        let mut exchange = self.open(&request).await?;
        loop {
            match exchange.next().await? {
                Reply::Readiness { services } => progress(&services),
                _ => return Ok(()),
            }
        }
    }

    pub async fn status(&self) -> Result<Status> {
        ask!(self, Request::Status, Reply::Status { status } => *status)
    }

    /// All figures in Prometheus' text format, of so many single replicas at most.
    pub async fn metrics(&self, replicas_most: usize) -> Result<String> {
        ask!(self, Request::Metrics { replicas_most }, Reply::Metrics { text } => text)
    }

    /// Where running replicas of a service, or of all, can be reached.
    pub async fn targets(&self, service: Option<&str>) -> Result<Vec<Target>> {
        let service = service.map(str::to_owned);
        ask!(self, Request::Targets { service }, Reply::Targets { targets } => targets)
    }

    /// One service in detail.
    pub async fn describe(&self, service: &str) -> Result<Description> {
        let service = service.to_owned();
        ask!(self, Request::Describe { service }, Reply::Description { description } => *description)
    }

    /// An address of this host that leads to the ready replicas of a service.
    pub async fn endpoint(&self, service: &str, port: Option<u16>) -> Result<SocketAddr> {
        let service = service.to_owned();
        ask!(self, Request::Endpoint { service, port }, Reply::Endpoint { address } => address)
    }

    /// Log files of each replica, oldest file first.
    pub async fn log_files(&self, services: &[String]) -> Result<Vec<(String, Vec<PathBuf>)>> {
        let services = services.to_vec();
        ask!(self, Request::LogFiles { services }, Reply::LogFiles { files } => files)
    }

    /// Runs a command in a replica with this process' own standard input and outputs.
    pub async fn exec(&self, exec: Exec) -> Result<Exit> {
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        self.exec_with(exec, [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]).await
    }

    /// Runs a command in a replica with these as its standard input, output and error output.
    pub async fn exec_with(&self, exec: Exec, io: [BorrowedFd<'_>; 3]) -> Result<Exit> {
        let mut exchange = self.open(&Request::Exec { exec }).await?;
        match exchange.next().await? {
            Reply::SendDescriptors => {}
            other => return Err(unexpected(&other)),
        }
        exchange.send_descriptors(io).await?;
        match exchange.next().await? {
            Reply::Exited { exit } => Ok(exit),
            other => Err(unexpected(&other)),
        }
    }

    /// Past events and, with `follow`, new ones until the app is down.
    pub async fn events(&self, follow: bool, each: impl FnMut(Event)) -> Result<()> {
        self.told(&Request::Events { follow }, follow, each).await
    }

    /// Events since then that name a wall of this host which prints nothing where it is met; with `follow`, new ones
    /// until the app is down. The host is looked at anew first.
    pub async fn walls(&self, since: SystemTime, follow: bool, each: impl FnMut(Event)) -> Result<()> {
        self.told(&Request::Walls { since, follow }, follow, each).await
    }

    async fn told(&self, request: &Request, follow: bool, mut each: impl FnMut(Event)) -> Result<()> {
        let mut exchange = self.open(request).await?;
        loop {
            match exchange.next().await {
                Ok(Reply::Event { event }) => each(event),
                Ok(_) => return Ok(()),
                // While following, the end of the app is the end of its events.
                Err(ClientError::Lost { .. }) if follow => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Events, counts and samples from now on.
    pub async fn watch(&self) -> Result<Watch> {
        Ok(Watch::new(self.open(&Request::Watch).await?))
    }

    /// Takes everything down; `progress` is told of every change.
    pub async fn down(&self, volumes: bool, grace: Option<Duration>, progress: Progress<'_>) -> Result<()> {
        let mut exchange = self.open(&Request::Down { volumes, grace }).await?;
        loop {
            match exchange.next().await? {
                Reply::Readiness { services } => progress(&services),
                _ => return Ok(()),
            }
        }
    }

    /// Virtual nodes, if the app has any.
    pub async fn nodes(&self) -> Result<Vec<NodeStatus>> {
        ask!(self, Request::Nodes, Reply::Nodes { nodes } => nodes)
    }

    /// What is done to links is healed after `lasts`.
    pub async fn change_nodes(
        &self,
        choice: NodeChoice,
        change: NodeChange,
        lasts: Option<Duration>,
    ) -> Result<()> {
        self.ask(&Request::ChangeNodes { choice, change, lasts }).await.map(|_| ())
    }

    /// Has something befall replicas and returns their names when it has. What lasts ends by itself after `lasts`.
    pub async fn befall(
        &self,
        victims: Victims,
        fault: ReplicaFault,
        lasts: Option<Duration>,
    ) -> Result<Vec<String>> {
        ask!(self, Request::Befall { victims, fault, lasts }, Reply::Befallen { replicas } => replicas)
    }

    /// Ties the app's life to the returned value: when it goes away unreleased, even because this process was
    /// killed, the supervisor takes the app down; `volumes` says whether its named volumes go too.
    pub async fn lease(&self, volumes: bool) -> Result<Lease> {
        let mut exchange = self.open(&Request::Lease { volumes }).await?;
        exchange.next().await?;
        Ok(Lease::new(exchange))
    }
}

fn unexpected(reply: &Reply) -> ClientError {
    let message = format!("the supervisor gave an unexpected answer: {reply:?}");
    ClientError::Refused(
        Refusal::new(RefusalKind::Invalid, message)
            .hint("the supervisor may be of another version: `throng down`, then `throng up` again"),
    )
}

/// Names of this user's projects that have been brought up and not taken down.
pub fn projects(paths: &Paths) -> Vec<String> {
    let folders = std::fs::read_dir(paths.projects()).into_iter().flatten().flatten();
    let mut names: Vec<String> = folders
        .filter(|folder| folder.path().join("state.json").exists())
        .filter_map(|folder| folder.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

pub(crate) fn tail(path: &std::path::Path, most: u64) -> std::io::Result<Vec<u8>> {
    use std::io::{Seek, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut text = Vec::new();
    file.take(most).read_to_end(&mut text)?;
    Ok(text)
}

/// The error that a supervisor ended with, as its log tells it, and the hint below it.
fn last_words(log: &std::path::Path) -> (String, Option<String>) {
    let text = tail(log, LAST_WORDS_MOST).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    match lines.as_slice() {
        [.., error, hint] if hint.starts_with("hint: ") => {
            (without(error, "error: "), Some(without(hint, "hint: ")))
        }
        [.., error] => (without(error, "error: "), None),
        [] => ("it ended without a word".into(), None),
    }
}

fn without(line: &str, prefix: &str) -> String {
    line.strip_prefix(prefix).unwrap_or(line).to_owned()
}
