//! The actor itself under seeded faults: a runtime that only pretends, beside which the supervisor's task is killed and
//! begins anew, replicas die, orders fail, counts and definitions change. When all that is over the app is as it was
//! asked for last, and after `down` nothing is left.
//!
//! What is decided is rehearsed more thoroughly where time is virtual (`throng-control`, tests/simulation). Here it is
//! about what lies around the decisions: steps, their outcomes, what is on the disk when the process dies.

use super::*;
use async_trait::async_trait;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use throng_engine::{Engine, EngineOptions, IsolationChoice};
use throng_model::app::{RestartPolicy, Service};
use throng_model::replica::{NetworkSpec, Process, ReplicaSpec, RootFs};
use throng_model::update::{BackOff, FailureAction, RestartPace, UpdateOrder, UpdatePolicy};
use throng_runtime::{ErrorKind, ExecIo, ExecSpec, Result, RuntimeError};

/// Seeds of CI. One that fails is named and fails alone, too: `THRONG_SEED=17`.
const SCHEDULES: u64 = 200;
const AT_ONCE: usize = 16;
/// Things that happen in one schedule while faults last.
const HAPPENINGS: u64 = 14;
/// How long it may take until all is as it was asked for; far above what a busy machine needs.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(2);
const PROJECT: &str = "sim";

/// splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A replica as the runtime has it.
struct Made {
    generation: u64,
    hash: String,
    state: ReplicaState,
}

struct Books {
    random: Random,
    replicas: BTreeMap<ReplicaId, Made>,
    watchers: Vec<mpsc::Sender<RuntimeEvent>>,
    /// Orders fail now and then.
    faults: bool,
    /// Orders that no supervisor may give.
    wrong: Vec<String>,
}

/// Replicas that are entries in a book.
struct SimRuntime(Mutex<Books>);

impl SimRuntime {
    fn new(seed: u64) -> SimRuntime {
        let random = Random(seed);
        let (replicas, watchers, wrong) = Default::default();
        SimRuntime(Mutex::new(Books { random, replicas, watchers, faults: true, wrong }))
    }

    fn books(&self) -> std::sync::MutexGuard<'_, Books> {
        self.0.lock().expect("no test thread panics with it")
    }

    /// Ends a process that runs and tells whoever watches.
    fn end(&self, id: &ReplicaId, exit: Exit) {
        let mut books = self.books();
        let Some(made) = books.replicas.get_mut(id) else { return };
        if matches!(made.state, ReplicaState::Running { .. }) {
            made.state = ReplicaState::Exited { exit, finished_at: SystemTime::now() };
            let event = RuntimeEvent::Exited { id: id.clone(), generation: made.generation, exit };
            books.watchers.retain(|watcher| watcher.try_send(event.clone()).is_ok());
        }
    }

    fn kill_one(&self) {
        let chosen = {
            let mut books = self.books();
            let count = books.replicas.len() as u64;
            let place = books.random.below(count.max(1)) as usize;
            books.replicas.keys().nth(place).cloned()
        };
        if let Some(id) = chosen {
            self.end(&id, Exit::Signal { signal: 9 });
        }
    }
}

impl Books {
    /// An order that is older than the newest one is refused.
    fn known(&mut self, id: &ReplicaId, generation: u64) -> Result<&mut Made> {
        match self.replicas.get_mut(id) {
            None => Err(RuntimeError::new(ErrorKind::NotFound, format!("{id} is not there"))),
            Some(made) if made.generation > generation => {
                Err(RuntimeError::new(ErrorKind::Stale, format!("{id} has had a newer order")))
            }
            Some(made) => {
                made.generation = generation;
                Ok(made)
            }
        }
    }
}

/// The runtime in the hands of one supervisor. Orders of one that has been killed come to nothing, wherever they are.
struct Hands {
    runtime: Arc<SimRuntime>,
    dead: AtomicBool,
}

impl Hands {
    fn books(&self) -> std::sync::MutexGuard<'_, Books> {
        self.runtime.books()
    }

    /// The order takes a moment, and fails now and then.
    async fn moment(&self, what: &str) -> Result<()> {
        let (takes, fails) = {
            let mut books = self.books();
            (books.random.below(3), books.faults && books.random.below(12) == 0)
        };
        tokio::time::sleep(Duration::from_millis(takes)).await;
        if self.dead.load(Relaxed) {
            std::future::pending::<()>().await;
        }
        match fails {
            true => Err(RuntimeError::new(ErrorKind::Host, format!("{what} fails by chance"))),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Runtime for Hands {
    async fn create_network(&self, _network: &NetworkSpec) -> Result<()> {
        Ok(())
    }

    async fn remove_network(&self, _name: &str) -> Result<()> {
        Ok(())
    }

    async fn create(&self, spec: &ReplicaSpec) -> Result<()> {
        self.moment("making").await?;
        let mut books = self.books();
        if let Some(made) = books.replicas.get(&spec.id) {
            if made.generation > spec.generation {
                return Err(RuntimeError::new(ErrorKind::Stale, "a newer order has been seen"));
            }
            if matches!(made.state, ReplicaState::Running { .. }) {
                books.wrong.push(format!("{} is made while it runs", spec.id));
            }
        }
        let made = Made {
            generation: spec.generation,
            hash: spec.config_hash.clone(),
            state: ReplicaState::Created,
        };
        books.replicas.insert(spec.id.clone(), made);
        Ok(())
    }

    async fn start(&self, id: &ReplicaId, generation: u64) -> Result<u32> {
        self.moment("starting").await?;
        let mut books = self.books();
        let made = books.known(id, generation)?;
        made.state = ReplicaState::Running { pid: 1, started_at: SystemTime::now() };
        Ok(1)
    }

    async fn stop(&self, id: &ReplicaId, generation: u64, signal: i32, _grace: Duration) -> Result<Exit> {
        self.moment("stopping").await?;
        self.books().known(id, generation)?;
        self.runtime.end(id, Exit::Signal { signal });
        Ok(Exit::Signal { signal })
    }

    async fn remove(&self, id: &ReplicaId, generation: u64) -> Result<()> {
        if self.dead.load(Relaxed) {
            std::future::pending::<()>().await;
        }
        let mut books = self.books();
        match books.known(id, generation) {
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
            Ok(made) if matches!(made.state, ReplicaState::Running { .. }) => {
                books.wrong.push(format!("{id} is removed while it runs"));
            }
            Ok(_) => {}
        }
        books.replicas.remove(id);
        Ok(())
    }

    async fn observe(&self, _project: &str) -> Result<Vec<Observed>> {
        let books = self.books();
        let observed = books.replicas.iter().map(|(id, made)| Observed {
            id: id.clone(),
            generation: made.generation,
            config_hash: made.hash.clone(),
            networks: Vec::new(),
            node: None,
            paused: false,
            state: made.state.clone(),
        });
        Ok(observed.collect())
    }

    fn watch(&self) -> mpsc::Receiver<RuntimeEvent> {
        let (events, watching) = mpsc::channel(1_024);
        self.books().watchers.push(events);
        watching
    }

    async fn log_files(&self, _id: &ReplicaId) -> Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    async fn exec(&self, id: &ReplicaId, _spec: &ExecSpec, _io: ExecIo) -> Result<Exit> {
        Err(RuntimeError::new(ErrorKind::Invalid, format!("{id} only pretends to run")))
    }

    async fn statistics(&self, ids: &[ReplicaId]) -> Vec<Option<Statistics>> {
        vec![None; ids.len()]
    }
}

/// One definition of the service: so many replicas of a version.
fn service(version: u64, replicas: u32, order: UpdateOrder) -> Service {
    let quick = Duration::from_millis(2);
    let back_off = BackOff { initial: quick, factor: 2.0, max: 4 * quick, reset: Duration::from_secs(600) };
    Service {
        name: "web".into(),
        image: format!("web:{version}"),
        replicas,
        restart: RestartPolicy::Always,
        restart_pace: RestartPace { back_off: Some(back_off), ..RestartPace::default() },
        update: Some(UpdatePolicy {
            parallelism: 2,
            order,
            monitor: Duration::ZERO,
            failure_action: FailureAction::Continue,
            ..UpdatePolicy::default()
        }),
        stop_grace_period: Duration::from_millis(10),
        ..Service::default()
    }
}

/// As if its image had been looked up.
fn prepared(service: &Service) -> Prepared {
    let image = service.image.clone();
    Prepared {
        service: service.clone(),
        root: RootFs { image: image.clone(), image_id: image.clone(), layers: Vec::new(), read_only: false },
        process: Process { args: vec!["/web".into()], env: Vec::new(), cwd: "/".into(), user: String::new() },
        mounts: Vec::new(),
        health: None,
        stop_signal: 15,
        networks: Vec::new(),
        ports: BTreeSet::new(),
        config_hash: image,
    }
}

/// A supervisor's task, and how it is talked to.
struct Supervisor {
    hands: Arc<Hands>,
    orders: mpsc::Sender<Order>,
    task: JoinHandle<Option<Refusal>>,
}

struct Schedule {
    seed: u64,
    paths: Paths,
    engine: Arc<Engine>,
    store: Arc<Store>,
    runtime: Arc<SimRuntime>,
    random: Random,
    wanted: Service,
    versions: u64,
}

impl Schedule {
    fn new(seed: u64, folder: &std::path::Path, engine: &Arc<Engine>, store: &Arc<Store>) -> Schedule {
        let home = folder.join(seed.to_string());
        Schedule {
            seed,
            paths: Paths { run: home.join("run"), data: home },
            engine: engine.clone(),
            store: store.clone(),
            runtime: Arc::new(SimRuntime::new(seed)),
            random: Random(seed ^ 0x5eed),
            wanted: service(1, 3, UpdateOrder::StopFirst),
            versions: 1,
        }
    }

    fn fixed(&self, hands: &Arc<Hands>) -> Fixed {
        let steps = 64;
        Fixed {
            nodes: tokio::sync::Mutex::default(),
            project: PROJECT.into(),
            paths: self.paths.clone(),
            on: On::Local,
            backend: Backend::Local(self.engine.clone()),
            runtime: hands.clone(),
            store: self.store.clone(),
            directory: Arc::new(Directory::new(PROJECT)),
            limits: Limits { launches: steps, retirements: steps, probes: steps, rechecks: steps },
            cores: 2,
            checks_share: 0.25,
            name_ports: 1,
            loopbacks: Claims::default(),
        }
    }

    fn state(&self) -> Option<Durable> {
        let path = self.paths.state_file(PROJECT);
        state::load(&path).unwrap_or_else(|error| panic!("seed {}: {error}", self.seed))
    }

    /// Begins a supervisor, which takes up what an earlier one has left.
    async fn begin(&self) -> Supervisor {
        let durable = self.state();
        let hands = Arc::new(Hands { runtime: self.runtime.clone(), dead: AtomicBool::new(false) });
        let exits = hands.watch();
        let observed = hands.observe(PROJECT).await.expect("a book");
        let (orders, orders_in) = mpsc::channel(16);
        let (feed, _) = broadcast::channel(16);
        let (readiness, _) = watch::channel(Arc::default());
        let known = durable.clone().unwrap_or_default();
        let actor = Actor::new(Arc::new(self.fixed(&hands)), known, observed, feed, readiness);
        let task = tokio::spawn(actor.run(orders_in, exits));
        let supervisor = Supervisor { hands, orders, task };
        match durable {
            Some(durable) if durable.going_down => {}
            Some(durable) => self.resume(&supervisor, durable).await,
            None => self.adopt(&supervisor).await,
        }
        supervisor
    }

    async fn resume(&self, supervisor: &Supervisor, durable: Durable) {
        let before = durable.rollouts.iter().filter_map(|(name, kept)| {
            let earlier = kept.earlier.as_ref()?;
            let prepared = prepared(earlier.app.services.get(name)?);
            Some((name.clone(), Before { app: earlier.app.clone(), prepared }))
        });
        let before = before.collect();
        self.apply(supervisor, Durable { rollouts: BTreeMap::new(), ..durable }, true, before).await;
    }

    /// Asks for what is wanted now.
    async fn adopt(&self, supervisor: &Supervisor) {
        let services = BTreeMap::from([("web".to_owned(), self.wanted.clone())]);
        let app = App { name: PROJECT.into(), services, ..App::default() };
        let durable = Durable { version: state::STATE_VERSION, app, ..Durable::default() };
        self.apply(supervisor, durable, false, BTreeMap::new()).await;
    }

    async fn apply(
        &self,
        supervisor: &Supervisor,
        durable: Durable,
        resumed: bool,
        before: BTreeMap<String, Before>,
    ) {
        let prepared = durable.app.services.iter().map(|(name, one)| (name.clone(), prepared(one)));
        let applied = Box::new(Applied {
            prepared: prepared.collect(),
            durable,
            fronts: Fronts::new(),
            dns: BTreeMap::new(),
            grace: None,
            resumed,
            before,
            untouched: BTreeSet::new(),
        });
        self.ask(supervisor, |reply| Order::Adopt { applied, reply }).await;
    }

    /// Gives an order that must be carried out.
    async fn ask(&self, supervisor: &Supervisor, order: impl FnOnce(oneshot::Sender<Done>) -> Order) {
        let (reply, answer) = oneshot::channel();
        supervisor
            .orders
            .send(order(reply))
            .await
            .unwrap_or_else(|_| panic!("seed {}: it has ended", self.seed));
        let answer = tokio::time::timeout(SETTLED_WITHIN, answer).await;
        let answer = answer.unwrap_or_else(|_| panic!("seed {}: an order is not answered", self.seed));
        answer.expect("it lives").unwrap_or_else(|refusal| panic!("seed {}: {refusal}", self.seed));
    }

    async fn happen(&mut self, supervisor: Supervisor) -> Supervisor {
        match self.random.below(10) {
            0..=2 => self.runtime.kill_one(),
            3..=5 => {
                self.wanted.replicas = self.random.below(6) as u32;
                let replicas = BTreeMap::from([("web".to_owned(), self.wanted.replicas)]);
                self.ask(&supervisor, |reply| Order::Scale { replicas, reply }).await;
            }
            6..=7 => {
                self.versions += 1;
                let order = [UpdateOrder::StopFirst, UpdateOrder::StartFirst][self.random.below(2) as usize];
                self.wanted = service(self.versions, self.wanted.replicas, order);
                self.adopt(&supervisor).await;
            }
            _ => {
                // Wherever it is: its steps end with it.
                supervisor.hands.dead.store(true, Relaxed);
                supervisor.task.abort();
                let ended = supervisor.task.await;
                assert!(ended.is_err_and(|error| error.is_cancelled()), "seed {}: it panicked", self.seed);
                return self.begin().await;
            }
        }
        supervisor
    }

    /// What is not as it was asked for.
    fn off(&self) -> Option<String> {
        let books = self.runtime.books();
        let is: Vec<(u32, &str, bool)> = books
            .replicas
            .iter()
            .map(|(id, made)| {
                (id.ordinal, made.hash.as_str(), matches!(made.state, ReplicaState::Running { .. }))
            })
            .collect();
        let expected: Vec<(u32, &str, bool)> =
            (1..=self.wanted.replicas).map(|ordinal| (ordinal, self.wanted.image.as_str(), true)).collect();
        (is != expected).then(|| format!("{is:?} instead of {expected:?}"))
    }

    async fn until_settled(&self) {
        let deadline = tokio::time::Instant::now() + SETTLED_WITHIN;
        while let Some(off) = self.off() {
            assert!(tokio::time::Instant::now() < deadline, "seed {}: {off}", self.seed);
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn run(mut self) {
        let mut supervisor = self.begin().await;
        for _ in 0..HAPPENINGS {
            tokio::time::sleep(Duration::from_millis(self.random.below(6))).await;
            supervisor = self.happen(supervisor).await;
        }
        self.runtime.books().faults = false;
        // It stays so, once what was under way when all looked well has come to its end: a replica that was to leave, say.
        let deadline = tokio::time::Instant::now() + SETTLED_WITHIN;
        loop {
            self.until_settled().await;
            tokio::time::sleep(10 * LOOK).await;
            let Some(off) = self.off() else { break };
            assert!(tokio::time::Instant::now() < deadline, "seed {}: {off}", self.seed);
        }
        let saved = self.state().unwrap_or_else(|| panic!("seed {}: nothing is saved", self.seed));
        let saved = &saved.app.services["web"];
        assert_eq!((&saved.image, saved.replicas), (&self.wanted.image, self.wanted.replicas));
        let down = Order::Down { volumes: false, grace: None };
        assert!(supervisor.orders.send(down).await.is_ok(), "seed {}: it lives", self.seed);
        let ended = tokio::time::timeout(SETTLED_WITHIN, supervisor.task).await;
        let left = ended.unwrap_or_else(|_| panic!("seed {}: it does not go down", self.seed));
        assert!(left.expect("no panic").is_none(), "seed {}", self.seed);
        let books = self.runtime.books();
        assert_eq!(
            (books.replicas.len(), books.wrong.as_slice()),
            (0, &[] as &[String]),
            "seed {}",
            self.seed
        );
        assert!(!self.paths.project(PROJECT).exists(), "seed {}: its folder is left", self.seed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_happens_the_app_becomes_what_was_asked_for_last() {
    // The state is synced to the disk again and again; memory is quicker at that.
    let memory = std::path::Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let folder = folder.expect("a folder");
    let (state_dir, run_dir) = (folder.path().join("engine"), folder.path().join("run"));
    // It is asked for nothing: the actor has it for sockets and names.
    let engine = Engine::open(EngineOptions { state_dir, run_dir, isolation: IsolationChoice::Process });
    let engine = engine.expect("an engine");
    let store = Arc::new(Store::open(&folder.path().join("images")).expect("a store"));
    let asked = std::env::var("THRONG_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut seeds = asked.map_or(0..SCHEDULES, |seed| seed..seed + 1);
    let mut running = JoinSet::new();
    loop {
        while running.len() < AT_ONCE
            && let Some(seed) = seeds.next()
        {
            running.spawn(Schedule::new(seed, folder.path(), &engine, &store).run());
        }
        match running.join_next().await {
            None => break,
            Some(ended) => ended.expect("a schedule that ends well"),
        }
    }
}
