//! A host that allows no namespaces, as inside an unprivileged container: replicas become plain processes, and one
//! line says so. The test gives up the system calls that Docker's default profile keeps from such a container.

mod common;

use common::{answer_from, exec, options, skip, spec};
use seccompiler::{
    SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Compare, SeccompCondition as Condition,
    SeccompFilter, SeccompRule as Rule, TargetArch,
};
use std::collections::BTreeMap;
use std::time::Duration;
use throng_engine::{Engine, EngineOptions, Isolation, IsolationChoice, rootless};
use throng_model::replica::NetworkSpec;
use throng_runtime::Runtime;

const NAME: &str = "where_namespaces_are_refused_replicas_are_plain_processes";
const PROJECT: &str = "engine-refused";
const PATIENCE: Duration = Duration::from_secs(10);
/// Flags of `clone` that make namespaces.
const NAMESPACES: [i32; 6] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
];

fn main() {
    if std::env::args().any(|a| a == "--list") {
        return println!("{NAME}: test");
    }
    common::layer();
    refuse();
    // Root needs no user namespace and asks for none; the engine finds out by itself.
    let entered = rootless::enter();
    assert!(entered.is_ok() == common::is_root(), "{entered:?}");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(check());
    println!("test {NAME} ... ok");
}

fn refuse() {
    let flag = |flag: i32| {
        let flag = flag as u64;
        Rule::new(vec![Condition::new(0, Width::Qword, Compare::MaskedEq(flag), flag).expect("a condition")])
            .expect("a rule")
    };
    let rules = BTreeMap::from([
        (libc::SYS_clone, NAMESPACES.map(flag).to_vec()),
        (libc::SYS_unshare, vec![]),
        (libc::SYS_setns, vec![]),
        (libc::SYS_mount, vec![]),
        (libc::SYS_pidfd_getfd, vec![]),
    ]);
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("a known architecture");
    let denied = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, arch).expect("a filter");
    let program = seccompiler::BpfProgram::try_from(filter).expect("a program");
    seccompiler::apply_filter(&program).expect("installed");
}

async fn check() {
    let folder = tempfile::tempdir().expect("a folder");
    let forced = EngineOptions { isolation: IsolationChoice::Container, ..options(folder.path()) };
    let error = Engine::open(forced).err().expect("no containers here");
    assert!(error.message.contains("allows no containers"), "{error}");
    assert!(error.hint.expect("a hint").contains("--isolation process"));

    let chosen = EngineOptions { isolation: IsolationChoice::Auto, ..options(folder.path()) };
    let engine = Engine::open(chosen).expect("opens");
    assert_eq!(*engine.isolation(), Isolation::Process);
    let lost = engine.lost().expect("something");
    assert!(lost.contains("plain processes") && lost.contains("Operation not permitted"), "{lost}");
    assert_eq!(lost.lines().count(), 1, "{lost}");
    if lost.contains("THRONG_ADDRESS") {
        return skip(NAME, &lost);
    }
    let network = NetworkSpec {
        name: format!("{PROJECT}_default"),
        subnet: "127.78.0.0/24".parse().expect("a subnet"),
        gateway: [127, 78, 0, 1].into(),
        internal: false,
    };
    engine.create_network(&network).await.expect("a network");
    // The helper can take no copies of sockets here and changes what the calls say instead.
    for (ordinal, address) in [(1, "0.0.0.0:8081"), (2, "127.0.0.1:8081"), (3, "[::]:8081")] {
        let mut server = spec(PROJECT, &network, "web", ordinal, &["serve", address]);
        server.process.env.push(format!("ANSWER=web-{ordinal}"));
        engine.create(&server).await.expect("created");
        engine.start(&server.id, 1).await.expect("started");
        let wanted = format!("web-{ordinal}\n");
        let own = (server.networks[0].address, 8081);
        assert_eq!(answer_from(&engine, own, PATIENCE).await.expect("an answer"), wanted, "{address}");
        let (_, answer) = exec(&engine, &server.id, &["/probe", "dial", "127.0.0.1:8081"]).await;
        assert_eq!(answer, wanted, "its own loopback");
    }
    engine.sweep(PROJECT).await.expect("swept");
}
