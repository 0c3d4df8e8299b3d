//! The supervisor's process: takes the project's lock, adopts what is there, listens, runs the actor.

mod connection;
mod faults;

use crate::actor::{Actor, Fixed, Handles, Order};
use crate::apply::resume;
use crate::backend::{Backend, On};
use crate::names::Directory;
use crate::paths::Paths;
use crate::state::Durable;
use crate::{room, silent, state, walls};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use throng_control::Limits;
use throng_engine::IsolationChoice;
use throng_image::Store;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, mpsc, watch};

/// Orders that may wait for the actor before connections are held back.
const ORDERS_WAITING: usize = 1_024;
/// Replies that a slow subscriber may be behind before it misses some.
const FEED_BEHIND: usize = 16_384;
/// Connections served at once.
const CONNECTIONS_MOST: usize = 512;
/// How long connections get to say that the app is gone.
const ENDING_WITHIN: Duration = Duration::from_secs(2);
/// How long a supervisor that has stopped listening may take to end before its project counts as taken.
const LEAVING_WITHIN: Duration = Duration::from_secs(5);
const LEAVING_LOOK: Duration = Duration::from_millis(10);
/// How long a supervisor that was never given an app waits for somebody to talk to it.
const FORSAKEN_AFTER: Duration = Duration::from_secs(2);

/// What a supervisor says last on its standard output; lines before are for people.
pub const LISTENING: &str = "listening";
/// Replicas with damaged records that are told to the command that started the supervisor.
const NOTES_TOLD: usize = 10;
const DAMAGED: &str =
    "a full disk or a power failure cuts files; what could be saved goes on, the rest is made anew";

pub struct ServeOptions {
    pub paths: Paths,
    pub project: String,
    pub isolation: IsolationChoice,
    /// What the app is to run on, unless it runs already: then it stays there.
    pub on: On,
    /// Steps under way at once; see [`Limits`].
    pub limits: Limits,
    /// Cores of this host that the app may use.
    pub cores: usize,
    /// Share of these cores, 0 to 1, that health checks of replicas whose health is known may take. The first
    /// successful check of a replica is not counted.
    pub checks_share: f64,
    /// Ports of one service at which connections by name are held; the others are answered when replicas are ready.
    pub name_ports: usize,
}

/// The most bytes of a socket's path (unix(7): 108 with the end mark).
const SOCKET_PATH_MOST: usize = 107;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the path of the socket is longer than the kernel's {SOCKET_PATH_MOST} bytes: {0}")]
    SocketPath(String),
    #[error("another supervisor looks after {0}")]
    Running(String),
    #[error("cannot {what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("{0}")]
    Runtime(#[from] throng_runtime::RuntimeError),
    #[error("cannot open the image store: {0}")]
    Store(#[from] throng_image::ImageError),
    #[error("{0}")]
    State(#[from] state::StateError),
}

impl ServeError {
    pub fn hint(&self) -> Option<String> {
        walls::hint(&self.to_string()).or_else(|| self.own_hint())
    }

    fn own_hint(&self) -> Option<String> {
        match self {
            ServeError::SocketPath(_) => Some("set THRONG_HOME to a shorter path".into()),
            ServeError::Running(project) => Some(format!("talk to it: throng -p {project} ps")),
            ServeError::Runtime(error) => error.hint.clone(),
            ServeError::Store(error) => error.hint(),
            ServeError::State(state::StateError::Damaged { path, .. }) => {
                Some(format!("remove {path}; then `throng down` takes down what is left of the app"))
            }
            ServeError::State(state::StateError::Newer { .. }) => Some("update throng".into()),
            ServeError::Io { .. } | ServeError::State(_) => None,
        }
    }
}

fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> ServeError {
    let what = what.into();
    move |source| ServeError::Io { what, source }
}

/// Runs until the app is down. Prints one line on standard output when it listens.
pub async fn serve(options: ServeOptions) -> Result<(), ServeError> {
    let socket = options.paths.socket(&options.project);
    if socket.as_os_str().len() > SOCKET_PATH_MOST {
        return Err(ServeError::SocketPath(socket.display().to_string()));
    }
    options.paths.prepare().map_err(io("prepare the folders"))?;
    let _lock = take_lock(&options.paths, &options.project).await?;
    let durable = state::load(&options.paths.state_file(&options.project))?;
    let fixed = open(options, durable.as_ref()).await?;
    let exits = fixed.runtime.watch();
    let observed = fixed.runtime.observe(&fixed.project).await?;
    let notes = match &fixed.backend {
        Backend::Local(engine) => engine.take_notes(),
        Backend::Docker { .. } => Vec::new(),
    };

    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).map_err(io(format!("listen on {}", socket.display())))?;
    let (orders, orders_in) = mpsc::channel(ORDERS_WAITING);
    let (feed, _) = broadcast::channel(FEED_BEHIND);
    let (readiness_in, readiness) = watch::channel(Arc::new(BTreeMap::new()));
    let (gone_in, gone) = watch::channel(false);
    let left = Arc::new(OnceLock::new());
    let (looks, looks_in) = silent::channel();
    let handles = Handles { orders, looks, readiness, feed: feed.clone(), gone, left: left.clone() };
    let known = durable.clone().unwrap_or_default();
    let actor = Actor::new(fixed.clone(), known, observed, feed, readiness_in);
    let actor = tokio::spawn(actor.run(orders_in, exits));
    for (subject, note) in notes.clone() {
        let said = Order::Say { kind: "warning", subject, message: format!("{note} (hint: {DAMAGED})") };
        // The actor leaves only when it is told to.
        let _ = handles.orders.send(said).await;
    }
    if let Some(durable) = durable.filter(|durable| !durable.going_down)
        && let Err(refusal) = resume(&fixed, &handles, durable).await
    {
        tracing::error!("the last known definition cannot be taken up: {refusal}");
    }
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MOST));
    tokio::spawn(notice_forsaken(places.clone(), handles.orders.clone()));
    tokio::spawn(room::keep(fixed.clone(), handles.orders.clone()));
    tokio::spawn(silent::keep(fixed.clone(), handles.orders.clone(), looks_in));
    let accept = tokio::spawn(accept(listener, places.clone(), fixed.clone(), handles));
    announce(&notes);
    let ended = actor.await;
    // The socket goes first: whoever asks from now on starts a new supervisor instead of talking to this one.
    let _ = std::fs::remove_file(&socket);
    let ended = ended.map(|refusal| refusal.into_iter().for_each(|refusal| drop(left.set(refusal))));
    let _ = gone_in.send(true);
    accept.abort();
    // Connections that wait for the end must get to say so; all places are free when they have.
    let _ = tokio::time::timeout(ENDING_WITHIN, places.acquire_many(CONNECTIONS_MOST as u32)).await;
    ended.map_err(|error| ServeError::Io { what: "run".into(), source: std::io::Error::other(error) })
}

/// Opens what the app runs on, which stays what it was when the app came up.
async fn open(options: ServeOptions, durable: Option<&Durable>) -> Result<Arc<Fixed>, ServeError> {
    let (paths, project) = (options.paths, options.project);
    let on = durable.map_or(options.on, |durable| durable.on.clone());
    let store = Arc::new(Store::open(&paths.images())?);
    let backend = Backend::open(&on, &project, options.isolation, &paths, &store).await?;
    paths.mark(&project, &on).map_err(io("record what replicas run on"))?;
    Ok(Arc::new(Fixed {
        nodes: tokio::sync::Mutex::default(),
        directory: Arc::new(Directory::new(&project)),
        project,
        store,
        runtime: Arc::new(walls::Explained::new(backend.runtime(), paths.data.clone())),
        paths,
        on,
        backend,
        limits: options.limits,
        cores: options.cores,
        checks_share: options.checks_share,
        name_ports: options.name_ports,
        loopbacks: crate::loopback::Claims::default(),
    }))
}

/// Tells the parent what was odd about replicas that were there, and that the socket is there. A parent that has gone
/// does not matter.
fn announce(notes: &[(String, String)]) {
    let mut text: String =
        notes.iter().take(NOTES_TOLD).map(|(name, note)| format!("{name}: {note}\n")).collect();
    if let Some(more) = notes.len().checked_sub(NOTES_TOLD).filter(|more| *more > 0) {
        text += &format!("{more} more replicas: see `throng events`\n");
    }
    if !notes.is_empty() {
        text += &format!("hint: {DAMAGED}\n");
    }
    let mut out = std::io::stdout();
    let _ = out.write_all(format!("{text}{LISTENING}\n").as_bytes());
    let _ = out.flush();
}

/// Held as long as the process lives; the kernel releases it however the process ends.
struct Lock {
    path: PathBuf,
    _file: std::fs::File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while it is still held: who opened it before sees that it is not there any more and tries again.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn take_lock(paths: &Paths, project: &str) -> Result<Lock, ServeError> {
    use std::os::unix::fs::MetadataExt;
    let path = paths.lock(project);
    let deadline = tokio::time::Instant::now() + LEAVING_WITHIN;
    loop {
        let file = std::fs::File::create(&path).map_err(io(format!("open {}", path.display())))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                // One that does not listen any more has taken its app down and is about to end.
                let listens = UnixStream::connect(paths.socket(project)).await.is_ok();
                if listens || tokio::time::Instant::now() >= deadline {
                    return Err(ServeError::Running(project.into()));
                }
                tokio::time::sleep(LEAVING_LOOK).await;
                continue;
            }
            Err(std::fs::TryLockError::Error(source)) => {
                return Err(ServeError::Io { what: format!("lock {}", path.display()), source });
            }
        }
        let held = file.metadata().map_err(io(format!("look at {}", path.display())))?;
        if std::fs::metadata(&path).is_ok_and(|there| there.ino() == held.ino()) {
            return Ok(Lock { path, _file: file });
        }
    }
}

/// Tells the actor whenever nobody has been connected for a while: a command may have been refused or killed between
/// starting this process and giving it an app.
async fn notice_forsaken(places: Arc<tokio::sync::Semaphore>, orders: mpsc::Sender<Order>) {
    // One place is always held for the next connection.
    let alone = || places.available_permits() + 1 >= CONNECTIONS_MOST;
    let mut since = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(FORSAKEN_AFTER / 10).await;
        if !alone() {
            since = tokio::time::Instant::now();
        } else if since.elapsed() >= FORSAKEN_AFTER {
            if orders.send(Order::Forsaken).await.is_err() {
                return;
            }
            since = tokio::time::Instant::now();
        }
    }
}

async fn accept(
    listener: UnixListener,
    places: Arc<tokio::sync::Semaphore>,
    fixed: Arc<Fixed>,
    handles: Handles,
) {
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (fixed, handles) = (fixed.clone(), handles.clone());
                tokio::spawn(async move {
                    let _place = place;
                    if let Err(error) = connection::serve(stream, fixed, handles).await {
                        tracing::debug!("a connection ended: {error}");
                    }
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
