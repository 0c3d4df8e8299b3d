//! How replicas are replaced and started again: what is read, what is refused, and where.

use crate::common::{Case, check};
use std::time::Duration;
use throng_model::app::{RestartPolicy, Service};
use throng_model::update::{BackOff, FailureAction, RestartPace, UpdateOrder, UpdatePolicy};

/// Checks the text under `deploy` of a service; it begins in column 7 of line 5.
#[track_caller]
fn check_deploy(text: &str, expected: &str) {
    check(&format!("services:\n  web:\n    image: web\n    deploy:\n      {text}\n"), expected);
}

fn service(deploy: &str, x_throng: &str) -> Service {
    let text = format!(
        "services:\n  web:\n    image: web\n    deploy: {{{deploy}}}\n    x-throng: {{{x_throng}}}\n"
    );
    let (loaded, _) = Case { files: &[("compose.yaml", &text)], ..Case::default() }.load();
    loaded.expect("a good file").app.services["web"].clone()
}

#[test]
fn policies_are_read_and_what_is_missing_is_swarms() {
    let deploy = "update_config: {parallelism: 0, delay: 10s, order: start-first, monitor: 1m,
      max_failure_ratio: 0.25, failure_action: rollback}, rollback_config: {failure_action: continue}";
    let service = service(deploy, "");
    let expected = UpdatePolicy {
        parallelism: 0,
        delay: Duration::from_secs(10),
        order: UpdateOrder::StartFirst,
        monitor: Duration::from_secs(60),
        max_failure_ratio: 0.25,
        failure_action: FailureAction::Rollback,
    };
    assert_eq!(service.update, Some(expected));
    let rollback = UpdatePolicy { failure_action: FailureAction::Continue, ..UpdatePolicy::default() };
    assert_eq!(service.rollback, Some(rollback));
    let swarm = UpdatePolicy::default();
    assert_eq!((swarm.parallelism, swarm.monitor.as_secs(), swarm.order), (1, 5, UpdateOrder::StopFirst));
    assert_eq!((swarm.max_failure_ratio, swarm.failure_action), (0.0, FailureAction::Pause));
}

#[test]
fn without_a_policy_there_is_none() {
    assert_eq!((service("", "").update, service("", "").rollback), (None, None));
}

#[test]
fn senseless_policies_are_refused_where_they_stand() {
    check_deploy(
        "update_config: {max_failure_ratio: 1.5}",
        r#"compose.yaml:5:42: error: expected a share from 0 to 1 such as 0.2, found "1.5""#,
    );
    check_deploy(
        "update_config: {max_failure_ratio: .nan}",
        r#"compose.yaml:5:42: error: expected a share from 0 to 1 such as 0.2, found ".nan""#,
    );
    check_deploy(
        "update_config: {order: newest-first}",
        r#"compose.yaml:5:30: error: expected one of stop-first, start-first, found "newest-first""#,
    );
    check_deploy(
        "update_config: {delay: -5s}",
        r#"compose.yaml:5:30: error: "-5s" is not a duration; write numbers with units, as in 1m30s or 200ms"#,
    );
    check_deploy(
        "update_config: {monitor: 9000h}",
        "compose.yaml:5:32: error: this is longer than a year, the longest that anything waits for here",
    );
    check_deploy(
        "update_config: {parallelism: -1}",
        r#"compose.yaml:5:36: error: expected a whole number of replicas, or 0 for all at once, found "-1""#,
    );
    check_deploy(
        "rollback_config: {failure_action: rollback}",
        r#"compose.yaml:5:41: error: expected one of pause, continue, found "rollback""#,
    );
}

#[test]
fn restarts_are_read() {
    let policy = service("restart_policy: {delay: 5s, max_attempts: 3, window: 2m}", "");
    assert_eq!(policy.restart, RestartPolicy::Always);
    let seconds = Duration::from_secs;
    let pace = RestartPace {
        delay: Some(seconds(5)),
        max_attempts: Some(3),
        window: Some(seconds(120)),
        back_off: None,
    };
    assert_eq!(policy.restart_pace, pace);
    let policy = service("restart_policy: {condition: on-failure, max_attempts: 3}", "");
    assert_eq!(policy.restart, RestartPolicy::OnFailure(Some(3)));
    assert!(policy.restart_pace.is_default());
    let policy = service("", "restart: {initial: 1s, factor: 1.5, max: 1m, reset: 30s}");
    let back_off = BackOff { initial: seconds(1), factor: 1.5, max: seconds(60), reset: seconds(30) };
    assert_eq!(policy.restart_pace.back_off, Some(back_off));
    let longer = service("", "restart: {initial: 10m}").restart_pace.back_off.expect("given");
    assert_eq!((longer.initial, longer.max), (seconds(600), seconds(600)));
}

#[test]
fn senseless_back_offs_are_refused_where_they_stand() {
    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let text = format!("services:\n  web:\n    image: web\n    x-throng:\n      restart: {text}\n");
        check(&text, expected);
    }
    refused("{initial: 0s}", "compose.yaml:5:26: error: initial must be 100ms or longer");
    refused("{initial: 1m, max: 1s}", "compose.yaml:5:35: error: max is shorter than initial");
    refused("{factor: 0.5}", r#"compose.yaml:5:25: error: expected a number from 1 to 100, found "0.5""#);
    refused(
        "{inital: 1s}",
        r#"compose.yaml:5:17: error: unknown key "inital" (hint: did you mean initial?)"#,
    );
}
