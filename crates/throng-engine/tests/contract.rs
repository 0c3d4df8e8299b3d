//! The engine holds what every runtime must.

mod common;

use common::{is_root, options, skip};
use futures_util::future::BoxFuture;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use throng_contract::{CASES, Lab};
use throng_engine::Engine;
use throng_model::replica::RootFs;
use throng_runtime::Runtime;

struct Here {
    folder: tempfile::TempDir,
    layer: PathBuf,
}

impl Lab for Here {
    fn open(&self) -> BoxFuture<'_, Arc<dyn Runtime>> {
        let engine: Arc<dyn Runtime> = Engine::open(options(self.folder.path())).expect("the engine opens");
        Box::pin(async { engine })
    }

    fn block(&self) -> u8 {
        201
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn root(&self) -> RootFs {
        RootFs {
            image: "probe".into(),
            image_id: "sha256:0".into(),
            layers: vec![self.layer.clone()],
            read_only: false,
        }
    }
}

/// The probe is compiled once for all cases; the folder stays until the tests have ended.
fn layer() -> PathBuf {
    static LAYER: OnceLock<(PathBuf, tempfile::TempDir)> = OnceLock::new();
    let make = || {
        let folder = tempfile::tempdir().expect("a folder");
        (throng_contract::layer(folder.path()), folder)
    };
    LAYER.get_or_init(make).0.clone()
}

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            if !is_root() {
                return skip(concat!("contract: ", stringify!($name)), "containers without a user namespace need root");
            }
            let number = CASES.iter().position(|case| case.name == stringify!($name)).expect("a case");
            let lab = Here { folder: tempfile::tempdir().expect("a folder"), layer: layer() };
            CASES[number].run(&lab, number as u8).await;
        })*

        #[test]
        fn no_case_is_left_out() {
            let run = [$(stringify!($name)),*];
            assert!(CASES.iter().all(|case| run.contains(&case.name)));
        }
    };
}

contract![
    orders_are_idempotent,
    old_orders_are_refused,
    ends_are_what_they_are,
    a_limit_of_tasks_holds,
    grace_comes_before_force,
    who_leaves_in_time_is_not_killed,
    every_watcher_is_told,
    output_is_kept_in_order,
    a_restart_keeps_files_and_output,
    another_definition_needs_a_stop,
    commands_run_inside,
    commands_end_in_time,
    who_is_paused_does_not_run,
    use_is_counted,
    networks_are_made_once,
    replicas_reach_each_other,
    mounts_are_as_asked,
    a_replica_is_confined,
    wishes_are_granted,
    hooks_have_their_moments,
    replicas_are_taken_over,
    what_cannot_start_says_why,
];
