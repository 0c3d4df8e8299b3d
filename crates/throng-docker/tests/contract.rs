//! Docker holds what every runtime must, over a real daemon that is started for it.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use throng_contract::{Bench, CASES, Case, Lab, PATIENCE};
use throng_docker::{Docker, DockerOptions, Names};
use throng_dockerd::Dockerd;
use throng_image::Store;
use throng_model::replica::{Exit, ReplicaSpec, RootFs};
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
            let opened = Docker::open(DockerOptions {
                host: self.daemon.host(),
                folder: self.folder.path().join("state"),
                store: self.store.clone(),
                names: Names::Gateway,
            });
            let docker: Arc<dyn Runtime> = opened.await.expect("the daemon is there");
            docker
        })
    }

    fn root(&self) -> RootFs {
        self.root.clone()
    }
}

impl There {
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
            bridge: "10.202.0.1/22",
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
    assert_eq!(images().trim(), "[]");
    // Handed over again when somebody needs it.
    bench.launch(&ReplicaSpec { generation: 2, ..specs[0].clone() }).await;
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let all = || CASES.iter().chain(&OWN);
    if arguments.iter().any(|argument| argument == "--list") {
        all().for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let chosen = |case: &&Case| wanted.is_empty() || wanted.iter().any(|part| case.name.contains(*part));
    let cases: Vec<Case> = all().filter(chosen).copied().collect();
    if let Some(reason) = throng_dockerd::missing() {
        assert!(std::env::var("THRONG_REQUIRE_ALL").as_deref() != Ok("1"), "contract over Docker: {reason}");
        cases.iter().for_each(|case| eprintln!("SKIPPED contract over Docker, {}: {reason}", case.name));
        println!("test result: ok. 0 passed; 0 failed; {} ignored", 0);
        return ExitCode::SUCCESS;
    }
    let lab = There::new();
    let _ = PLACES.set((lab.daemon.socket(), lab.store.clone()));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut failed = 0;
    for (number, case) in cases.iter().enumerate() {
        let begin = Instant::now();
        let run = AssertUnwindSafe(case.run(&lab, number as u8)).catch_unwind();
        let held = runtime.block_on(run).is_ok();
        failed += usize::from(!held);
        let word = if held { "ok" } else { "FAILED" };
        println!("test {} ... {word} ({:.1} s)", case.name, begin.elapsed().as_secs_f64());
    }
    runtime.shutdown_background();
    if failed > 0 {
        let log = lab.daemon.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("level=error")).collect();
        eprintln!("dockerd said:\n{}", lines.join("\n"));
    }
    println!(
        "\ntest result: {}. {} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out",
        if failed == 0 { "ok" } else { "FAILED" },
        cases.len() - failed
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
