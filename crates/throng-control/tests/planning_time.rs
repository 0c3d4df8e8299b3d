//! How long a plan takes when there are many replicas.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use throng_control::{Limits, Phase, ReplicaView, Time, Wanted, WantedService, World, observe, plan};
use throng_model::app::RestartPolicy;
use throng_model::update::{UpdateOrder, UpdatePolicy};

const REPLICAS: u32 = 10_000;
/// What a plan may take as users run it; without optimisation it takes ten times as long and more.
const MOST: Duration = Duration::from_millis(50);
const MOST_UNOPTIMISED: Duration = Duration::from_secs(2);
const LIMITS: Limits = Limits { launches: 512, retirements: 512, probes: 512, rechecks: 512 };

fn service(hash: &str, order: UpdateOrder) -> WantedService {
    WantedService {
        replicas: REPLICAS,
        config_hash: hash.into(),
        restart: RestartPolicy::Always.into(),
        update: Some(UpdatePolicy { parallelism: 100, order, ..UpdatePolicy::default() }),
        ..WantedService::default()
    }
}

/// The longest of a few observations and plans, as an update of all replicas begins and goes on.
fn longest(order: UpdateOrder) -> Duration {
    let run =
        |ordinal| (ordinal, ReplicaView::new("old".into(), Phase::Running { since: Time::ZERO }, false));
    let mut world = World::from([("web".to_owned(), (1..=REPLICAS).map(run).collect())]);
    let mut next = service("new", order);
    next.succeed(service("old", order));
    let mut wanted = Wanted { services: BTreeMap::from([("web".to_owned(), next)]), going_down: false };
    let mut longest = Duration::ZERO;
    for round in 0..6 {
        let now = Duration::from_secs(10 * round);
        let begin = Instant::now();
        observe(&mut wanted, &world, now);
        let plan = plan(&wanted, &world, &LIMITS, now);
        longest = longest.max(begin.elapsed());
        let replicas = world.get_mut("web").expect("there");
        for step in plan.steps {
            match step {
                throng_control::Step::Retire { ordinal, .. } => drop(replicas.remove(&ordinal)),
                throng_control::Step::Launch { ordinal, .. } => {
                    let running = Phase::Running { since: now };
                    replicas.insert(ordinal, ReplicaView::new("new".into(), running, false));
                }
                _ => {}
            }
        }
    }
    let replaced = world["web"].values().filter(|view| view.config_hash == "new").count();
    assert!(replaced >= 100, "the update goes on: {replaced}");
    longest
}

#[test]
fn a_change_among_ten_thousand_replicas_is_planned_in_time() {
    let most = if cfg!(debug_assertions) { MOST_UNOPTIMISED } else { MOST };
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        let took = longest(order);
        println!("planning a change of {REPLICAS} replicas, {order:?}: {:.1} ms", 1e3 * took.as_secs_f64());
        assert!(took < most, "{took:?}");
    }
}
