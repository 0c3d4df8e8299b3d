//! Docker holds what every runtime must, over a real daemon that is started for it, and so do two daemons inside it.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use throng_contract::{Bench, CASES, Case, Lab, PATIENCE};
use throng_docker::{Docker, DockerOptions, Names, Nested, NestedOptions};
use throng_dockerd::Dockerd;
use throng_image::Store;
use throng_model::replica::{Exit, NetworkSpec, Observed, ReplicaSpec, ReplicaState, RootFs};
use throng_runtime::Runtime;

struct There {
    daemon: Dockerd,
    folder: tempfile::TempDir,
    store: Arc<Store>,
    root: RootFs,
}

impl Lab for There {
    fn open(&self) -> BoxFuture<'_, Arc<dyn Runtime>> {
        Box::pin(async {
            let docker: Arc<dyn Runtime> = self.docker().await;
            docker
        })
    }

    fn root(&self) -> RootFs {
        self.root.clone()
    }

    fn block(&self) -> u8 {
        202
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// The same daemon with two more inside.
struct Inside<'a>(&'a There);

impl Lab for Inside<'_> {
    fn open(&self) -> BoxFuture<'_, Arc<dyn Runtime>> {
        Box::pin(async {
            let nested: Arc<dyn Runtime> = Nested::open(NestedOptions {
                outer: self.0.docker().await,
                name: NODES_OF.into(),
                nodes: 2,
                run: self.0.folder.path().join("r"),
                home: self.0.folder.path().into(),
            })
            .expect("nodes are possible");
            nested
        })
    }

    fn root(&self) -> RootFs {
        self.0.root()
    }

    fn block(&self) -> u8 {
        203
    }

    fn folder(&self) -> &Path {
        self.0.folder()
    }
}

/// Whose nodes they are.
const NODES_OF: &str = "contract";

/// A network that no case removes, so that the nodes are made once for all of them.
fn lasting() -> NetworkSpec {
    NetworkSpec {
        name: "contract-lasting_default".into(),
        subnet: "10.203.255.0/29".parse().expect("a subnet"),
        gateway: [10, 203, 255, 1].into(),
        internal: false,
    }
}

impl There {
    async fn docker(&self) -> Arc<Docker> {
        let opened = Docker::open(DockerOptions {
            host: self.daemon.host(),
            folder: self.folder.path().join("state"),
            store: self.store.clone(),
            names: Names::Gateway,
        });
        opened.await.expect("the daemon is there")
    }

    fn new() -> There {
        let folder = tempfile::Builder::new().prefix("tdc").tempdir().expect("a folder");
        let store = Arc::new(Store::open(&folder.path().join("images")).expect("a store"));
        let archive = archive(&throng_contract::layer(folder.path()));
        let image = store.load(archive.as_slice()).expect("an image").remove(0);
        let root = RootFs {
            image: "probe".into(),
            image_id: image.id.clone(),
            layers: store.layers(&image).expect("layers"),
            read_only: false,
        };
        let options = throng_dockerd::Options {
            folder: &folder.path().join("d"),
            name: "thr-ctr",
            bridge: "10.204.0.1/22",
        };
        let daemon = Dockerd::start(&options).expect("a daemon");
        There { daemon, folder, store, root }
    }
}

/// An image of one layer as `docker save` writes it.
fn archive(layer: &Path) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let hex =
        |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut files = tar::Builder::new(Vec::new());
    files.append_dir_all(".", layer).expect("the layer");
    let layer = files.into_inner().expect("the layer");
    let config = format!(
        r#"{{"architecture":"{}","os":"linux","config":{{"Env":["IMAGE=probe"]}},"rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}}}"#,
        throng_image::machine_architecture(),
        hex(&layer)
    );
    let name = format!("{}.json", hex(config.as_bytes()));
    let manifest = format!(r#"[{{"Config":"{name}","RepoTags":["probe:latest"],"Layers":["layer.tar"]}}]"#);
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in
        [(name.as_str(), config.as_bytes()), ("layer.tar", &layer), ("manifest.json", manifest.as_bytes())]
    {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes).expect("a file");
    }
    archive.into_inner().expect("an archive")
}

/// What only Docker can do to a replica.
const OWN: [Case; 4] = [
    Case::new("who_is_removed_by_others_comes_back", |bench| Box::pin(removed_by_others(bench))),
    Case::new("a_name_that_is_taken_is_said", |bench| Box::pin(name_taken(bench))),
    Case::new("docker_answers_for_names_where_it_must", |bench| Box::pin(names_of_docker(bench))),
    Case::new("images_go_with_their_last_replica", |bench| Box::pin(images_go(bench))),
];

/// What only several daemons can do.
const OWN_INSIDE: [Case; 3] = [
    Case::new("replicas_of_one_service_are_on_all_nodes", |bench| Box::pin(on_all_nodes(bench))),
    Case::new("a_node_that_ends_is_made_afresh", |bench| Box::pin(node_ends(bench))),
    Case::new("a_network_without_room_for_the_nodes_is_refused", |bench| Box::pin(no_room(bench))),
];

/// The daemon's socket and the store; there is one of each for all cases.
static PLACES: OnceLock<(PathBuf, Arc<Store>)> = OnceLock::new();

fn ask(method: &str, path: &str, body: &str) -> (u16, String) {
    let (socket, _) = PLACES.get().expect("the daemon is there");
    throng_dockerd::request(socket, method, path, body.as_bytes()).expect("the daemon answers")
}

async fn removed_by_others(bench: &Bench<'_>) {
    let spec = bench.spec("web", 1, &["serve"]);
    let mut events = bench.runtime.watch();
    bench.launch(&spec).await;
    let (status, said) = ask("DELETE", &format!("/containers/{}?force=1", spec.id), "");
    assert_eq!(status, 204, "{said}");
    let exit = bench.end_of(&mut events, &spec.id).await;
    assert!(matches!(exit, Exit::Signal { signal: 9 } | Exit::Unknown), "{exit:?}");
    let spec = ReplicaSpec { generation: 2, ..spec };
    assert!(bench.launch(&spec).await > 0);
    assert_eq!(bench.runtime.stop(&spec.id, 2, 9, PATIENCE).await.expect("stopped").code(), 137);
}

async fn name_taken(bench: &Bench<'_>) {
    let other = bench.spec("other", 2, &["serve"]);
    bench.launch(&other).await;
    let spec = bench.spec("web", 1, &["serve"]);
    let image = format!("{}:{}", throng_docker::REPOSITORY, &spec.root.image_id["sha256:".len()..]);
    let name = format!("/containers/create?name={}", spec.id);
    let (status, said) = ask("POST", &name, &format!(r#"{{"Image":"{image}","Cmd":["/probe"]}}"#));
    assert_eq!(status, 201, "{said}");
    let error = bench.runtime.create(&spec).await.expect_err("taken");
    assert!(error.message.contains("not throng's") && error.hint.is_some(), "{error:?}");
    assert_eq!(ask("DELETE", &format!("/containers/{}", spec.id), "").0, 204);
    bench.launch(&spec).await;
}

/// As for a user who may not answer at port 53.
async fn names_of_docker(bench: &Bench<'_>) {
    let (socket, store) = PLACES.get().expect("the daemon is there");
    let folder = tempfile::tempdir().expect("a folder");
    let docker = Docker::open(DockerOptions {
        host: format!("unix://{}", socket.display()),
        folder: folder.path().into(),
        store: store.clone(),
        names: Names::Docker,
    });
    let docker = docker.await.expect("the daemon is there");
    assert!(docker.lost().is_some_and(|lost| lost.contains("ready or not")));
    let other = Bench {
        runtime: docker,
        network: bench.network.clone(),
        project: bench.project.clone(),
        lab: bench.lab,
    };
    assert!(other.observe().await.is_empty(), "another folder's replicas are not seen");
    other.launch(&other.spec("web", 1, &["serve"])).await;
    for name in ["web", "web-1"] {
        let client = other.spec("client", 2, &["dial", &format!("{name}:80")]);
        assert_eq!(other.run(&client).await, (Exit::Code { code: 0 }, "ok\n".into()), "{name}");
        other.runtime.remove(&client.id, 1).await.expect("removed");
    }
    let id = other.spec("web", 1, &[]).id;
    other.runtime.stop(&id, 1, 9, PATIENCE).await.expect("stopped");
    other.runtime.remove(&id, 1).await.expect("removed");
}

async fn images_go(bench: &Bench<'_>) {
    let images = || ask("GET", "/images/json?all=1", "").1;
    let specs = [bench.spec("web", 1, &["serve"]), bench.spec("web", 2, &["serve"])];
    for spec in &specs {
        bench.launch(spec).await;
    }
    for spec in &specs {
        assert!(images().contains(throng_docker::REPOSITORY), "{}", images());
        bench.runtime.stop(&spec.id, 1, 9, PATIENCE).await.expect("stopped");
        bench.runtime.remove(&spec.id, 1).await.expect("removed");
    }
    assert!(!images().contains(throng_docker::REPOSITORY), "{}", images());
    // Handed over again when somebody needs it.
    bench.launch(&ReplicaSpec { generation: 2, ..specs[0].clone() }).await;
}

/// Names of the containers of a node, as its own daemon lists them.
async fn in_node(node: u32) -> Vec<String> {
    let (socket, _) = PLACES.get().expect("the daemon is there");
    let folder = socket.parent().and_then(Path::parent).expect("a folder").join("r");
    let socket = folder.join(format!("{NODES_OF}.node-{node}/docker.sock"));
    let (status, text) =
        throng_dockerd::request(&socket, "GET", "/containers/json", &[]).expect("a node answers");
    assert_eq!(status, 200, "{text}");
    let names = text.split("\"Names\":[\"/").skip(1).filter_map(|rest| rest.split('"').next());
    names.map(str::to_owned).collect()
}

async fn on_all_nodes(bench: &Bench<'_>) {
    let all = [1, 2, 3, 4].map(|ordinal| bench.spec("web", ordinal, &["serve"]));
    for spec in &all {
        bench.launch(spec).await;
    }
    let (first, second) = (in_node(1).await, in_node(2).await);
    assert_eq!((first.len(), second.len()), (2, 2), "{first:?} {second:?}");
    assert_eq!(
        ask("GET", "/containers/json", "").1.matches("\"Names\"").count(),
        2,
        "only nodes are outside"
    );
    // From either node to replicas on either node.
    for ordinal in [5, 6] {
        for server in &all[..2] {
            let address = format!("{}:80", server.networks[0].address);
            let client = bench.spec("client", ordinal, &["dial", &address]);
            assert_eq!(bench.run(&client).await, (Exit::Code { code: 0 }, "ok\n".into()));
            bench.runtime.remove(&client.id, 1).await.expect("removed");
        }
    }
}

async fn node_ends(bench: &Bench<'_>) {
    let all = [1, 2].map(|ordinal| bench.spec("web", ordinal, &["serve"]));
    let mut pids = Vec::new();
    for spec in &all {
        pids.push(bench.launch(spec).await);
    }
    let there = in_node(1).await;
    let (lost, kept) = if there == [all[0].id.to_string()] { (0, 1) } else { (1, 0) };
    let mut events = bench.runtime.watch();
    let (status, said) = ask("POST", &format!("/containers/{NODES_OF}.node-1/kill"), "");
    assert_eq!(status, 204, "{said}");
    assert_eq!(bench.end_of(&mut events, &all[lost].id).await, Exit::Unknown);
    let fresh = ReplicaSpec { generation: 2, ..all[lost].clone() };
    assert!(bench.launch(&fresh).await > 0);
    assert_eq!(in_node(1).await, [fresh.id.to_string()]);
    let Observed { state, .. } =
        bench.observe().await.into_iter().find(|one| one.id == all[kept].id).expect("it is there");
    assert!(matches!(state, ReplicaState::Running { pid, .. } if pid == pids[kept]), "{state:?}");
}

async fn no_room(bench: &Bench<'_>) {
    let network = NetworkSpec {
        name: format!("{}_small", bench.project),
        // Two addresses: the gateway's and one more.
        subnet: "10.203.254.0/30".parse().expect("a subnet"),
        gateway: [10, 203, 254, 1].into(),
        internal: false,
    };
    let error = bench.runtime.create_network(&network).await.expect_err("too small");
    assert!(error.message.contains("has no address for node 2") && error.hint.is_some(), "{error:?}");
    assert_eq!(ask("GET", &format!("/networks/{}", network.name), "").0, 404, "nothing of it stays");
}

/// What the daemon has of containers, volumes and networks beside its own three.
fn left() -> Vec<String> {
    let count = |path: &str, mark: &str, own: usize| {
        let found = ask("GET", path, "").1.matches(mark).count();
        (found > own).then(|| format!("{} at {path}", found - own))
    };
    let all = [
        count("/containers/json?all=1", "\"Names\"", 0),
        count("/volumes", "\"Mountpoint\"", 0),
        count("/networks", "\"IPAM\"", 3),
        count("/images/json", "\"Id\"", 0),
    ];
    all.into_iter().flatten().collect()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let chosen = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(*part));
    let named = |prefix: &'static str, case: &Case| (format!("{prefix}::{}", case.name), *case);
    let over = CASES.iter().chain(&OWN).map(|case| named("over", case));
    let inside = CASES.iter().chain(&OWN_INSIDE).map(|case| named("inside", case));
    let cases: Vec<(String, Case)> = over.chain(inside).filter(|(name, _)| chosen(name)).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        cases.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if let Some(reason) = throng_dockerd::missing() {
        assert!(std::env::var("THRONG_REQUIRE_ALL").as_deref() != Ok("1"), "contract over Docker: {reason}");
        cases.iter().for_each(|(name, _)| eprintln!("SKIPPED contract of Docker, {name}: {reason}"));
        println!("test result: ok. 0 passed; 0 failed; {} ignored", 0);
        return ExitCode::SUCCESS;
    }
    let lab = There::new();
    let _ = PLACES.set((lab.daemon.socket(), lab.store.clone()));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let failed = runtime.block_on(run_all(&lab, &cases));
    runtime.shutdown_background();
    if failed > 0 {
        let log = lab.daemon.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("level=error")).collect();
        eprintln!("dockerd said:\n{}", lines.join("\n"));
    }
    println!(
        "\ntest result: {}. {} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out",
        if failed == 0 { "ok" } else { "FAILED" },
        cases.len().saturating_sub(failed)
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the cases one after another and returns how many did not hold.
async fn run_all(lab: &There, cases: &[(String, Case)]) -> usize {
    let inner = Inside(lab);
    let is_inside = |name: &str| name.starts_with("inside::");
    let nodes = cases.iter().any(|(name, _)| is_inside(name));
    if nodes {
        inner.open().await.create_network(&lasting()).await.expect("nodes");
    }
    let mut failed = 0;
    for (number, (name, case)) in (0u8..).zip(cases) {
        let begin = Instant::now();
        let place: &dyn Lab = if is_inside(name) { &inner } else { lab };
        let held = AssertUnwindSafe(case.run(place, number)).catch_unwind().await.is_ok();
        failed += usize::from(!held);
        let word = if held { "ok" } else { "FAILED" };
        println!("test {name} ... {word} ({:.1} s)", begin.elapsed().as_secs_f64());
    }
    if nodes {
        let removed = inner.open().await.remove_network(&lasting().name).await;
        let left = left();
        if removed.is_err() || !left.is_empty() {
            eprintln!("left behind: {left:?} ({removed:?})");
            failed += 1;
        }
    }
    failed
}
