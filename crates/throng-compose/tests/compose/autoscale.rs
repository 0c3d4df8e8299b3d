//! `x-throng.autoscale`: what is read, what is refused, and where.

use crate::common::{Case, check};

/// Checks the text under `x-throng` of a service; it begins in column 7 of line 6.
#[track_caller]
fn check_x(text: &str, expected: &str) {
    let text = text.replace('\n', "\n      ");
    let resources = "deploy: {resources: {limits: {cpus: 0.5, memory: 64m}}}";
    check(
        &format!("services:\n  web:\n    image: web\n    {resources}\n    x-throng:\n      {text}\n"),
        expected,
    );
}

const DOCS: &str = "a cluster would refuse this too; docs/autoscale.md describes the fields";

#[test]
fn a_good_one_has_no_findings_and_comes_back_whole() {
    let text = "services:
  web:
    image: web
    ports: ['80']
    deploy: {resources: {reservations: {cpus: 0.25}}}
    x-throng:
      autoscale:
        minReplicas: 0
        maxReplicas: 10
        metrics:
        - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}
        - {type: Pods, pods: {metric: {name: hits}, target: {type: AverageValue, averageValue: 500m}}}
        - type: Object
          object:
            describedObject: {kind: Service, name: web}
            metric: {name: requests_in_flight}
            target: {type: Value, value: 10}
        - {type: External, external: {metric: {name: queue, selector: {matchLabels: {a: b}}}, target: {type: Value, value: 1}}}
        behavior: {scaleDown: {stabilizationWindowSeconds: 60, tolerance: 0.05}}
      autoscaler:
        syncPeriod: 2s
        tolerance: 0.2
        sources:
          hits: {series: hits_total, port: 9090, path: /m, as: rate}
          queue: {url: 'http://localhost:9/metrics'}
";
    check(text, "");
    let (loaded, _) = Case { files: &[("compose.yaml", text)], ..Case::default() }.load();
    let app = loaded.expect("a good file").app;
    let autoscale = app.services["web"].autoscale.as_ref().expect("an autoscaler");
    assert_eq!(autoscale.controller.sync_period.as_secs(), 2);
    assert_eq!(autoscale.spec["metrics"][0]["resource"]["target"]["averageUtilization"], 60);
    let canonical = throng_compose::to_yaml(&app);
    let (again, _) = Case { files: &[("compose.yaml", &canonical)], ..Case::default() }.load();
    let again = again.expect("what is printed is read").app.services["web"].autoscale.clone().expect("there");
    assert_eq!((&again.spec, &again.sources), (&autoscale.spec, &autoscale.sources));
    assert_eq!(
        throng_compose::canonical(&app)["services"]["web"]["x-throng"]["autoscaler"]["syncPeriod"],
        "2s"
    );
}

#[test]
fn typing_errors_are_told_with_their_place() {
    check_x(
        "autoscle: {}",
        "compose.yaml:6:7: error: unknown key \"autoscle\" (hint: did you mean autoscale?)",
    );
    check_x(
        "autoscale: {maxReplica: 5}",
        "compose.yaml:6:19: error: unknown key \"maxReplica\" (hint: did you mean maxReplicas?)",
    );
    check_x(
        "autoscale: {maxReplicas: five}",
        "compose.yaml:6:32: error: expected a whole number, found the text \"five\"",
    );
    check_x(
        "autoscale: {maxReplicas: 5}\nautoscaler: {syncperiod: 3s}",
        "compose.yaml:7:20: error: unknown key \"syncperiod\" (hint: did you mean syncPeriod?)",
    );
    check_x(
        "autoscaler: {syncPeriod: 3s}",
        "compose.yaml:6:7: warning: autoscaler has no effect without autoscale (hint: say under autoscale what the \
         number of replicas is to follow)",
    );
}

#[test]
fn what_a_cluster_would_refuse_is_refused() {
    check_x(
        "autoscale: {minReplicas: 5, maxReplicas: 3}",
        "compose.yaml:6:48: error: maxReplicas: 3 is below minReplicas, 5 (hint: write minReplicas at or below \
         maxReplicas, and maxReplicas above 0)",
    );
    let metric = |target: &str| {
        format!(
            "autoscale:\n  maxReplicas: 3\n  metrics:\n  - type: Resource\n    resource: {{name: cpu, target: {target}}}"
        )
    };
    check_x(
        &metric("{type: Utilization, averageUtilization: 0}"),
        "compose.yaml:10:81: error: metrics[0].resource.target.averageUtilization: 0 is not above 0 (hint: write a \
         percentage of the request above 0, such as 60)",
    );
    check_x(
        "autoscale:\n  maxReplicas: 3\n  behavior:\n    scaleUp:\n      policies:\n      - {type: Pods, value: 2}",
        "compose.yaml:11:15: error: behavior.scaleUp.policies[0].periodSeconds: 0 is not from 1 to 1800 (hint: say in how \
         many seconds the policy allows its change, from 1 to 1800)",
    );
    check_x(
        "autoscale: {minReplicas: 0, maxReplicas: 3}",
        "compose.yaml:6:18: error: metrics: minReplicas 0 needs at least one Object or External metric (hint: add one: \
         without replicas no metric of replicas can say that some are needed)",
    );
    check_x(
        "autoscale:\n  maxReplicas: 3\n  metrics: [{type: Resources}]",
        &format!(
            "compose.yaml:8:26: error: metrics[0].type: \"Resources\" is not one of ContainerResource, External, Object, \
             Pods, Resource (hint: {DOCS})"
        ),
    );
}

#[test]
fn what_makes_no_sense_here_is_refused_or_warned_about() {
    check_x(
        "autoscale:\n  maxReplicas: 3\n  behavior: {scaleDown: {policies: [{type: Percent, value: 150, periodSeconds: 15}]}}",
        "compose.yaml:8:66: error: behavior.scaleDown.policies[0].value: 150 % of the replicas are more than there are \
         (hint: write 100 at most)",
    );
    check_x(
        "autoscale:\n  maxReplicas: 3\n  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 120}}}]",
        "compose.yaml:8:106: warning: metrics[0].resource: a replica cannot use more than 100 % of what it requests (hint: \
         write a target below that, or lower deploy.resources.reservations.cpus)",
    );
    check_x(
        "autoscale:\n  maxReplicas: 3\n  metrics: [{type: External, external: {metric: {name: queue}, target: {type: Value, value: 1}}}]",
        "compose.yaml:8:62: error: metrics[0].external: nobody says where queue comes from (hint: add the address under \
         x-throng: autoscaler: sources: queue: url:)",
    );
    check_x(
        "autoscale:\n  maxReplicas: 3\n  metrics: [{type: Pods, pods: {metric: {name: hits}, target: {type: AverageValue, averageValue: 1}}}]",
        "compose.yaml:8:54: error: metrics[0].pods: no port is known at which a replica could be asked for hits (hint: add \
         the label prometheus.io/port, or autoscaler: sources: hits: port:)",
    );
    check_x(
        "autoscale: {maxReplicas: 3}\nautoscaler: {syncPeriod: 1ms}",
        "compose.yaml:7:32: error: a period is from 200ms to 1h (hint: Kubernetes' own is 15s)",
    );
    check_x(
        "autoscale: {maxReplicas: 3}\nautoscaler: {sources: {queue: {url: 'ftp://a/'}}}",
        "compose.yaml:7:30: warning: no metric is called \"queue\" (hint: sources are named as the Pods, Object or External \
         metrics are)\n\
         compose.yaml:7:43: error: \"ftp://a/\" is no URL (hint: write http://HOST:PORT/PATH, or the same with https)",
    );
    check_x(
        "autoscale: {maxReplicas: 3}\nautoscaler: {sources: {queue: {url: 'http://a/', ca: x.pem}}}",
        "compose.yaml:7:30: error: certificates are for a source with an https url (hint: write a url that begins with \
         https://, or leave ca out)\n\
         compose.yaml:7:30: warning: no metric is called \"queue\" (hint: sources are named as the Pods, Object or External \
         metrics are)",
    );
    check(
        "services:\n  web:\n    image: web\n    x-throng:\n      autoscale: {maxReplicas: 3}\n",
        "compose.yaml:5:18: warning: metrics[0].resource: 80 % of the cpu that a replica requests, but web requests none \
         (hint: add cpus under deploy.resources.reservations, or under deploy.resources.limits)",
    );
}

#[test]
fn what_becomes_of_recommendations_is_read_and_comes_back() {
    use throng_model::autoscale::{Allowed, Controlled, ControlledValues, UpdateMode, Vertical};
    let text = "services:
  web:
    image: web
    x-throng:
      vertical:
        updateMode: Initial
        minReplicas: 3
        minAllowed: {cpu: 100m, memory: 64Mi}
        maxAllowed: {cpu: 2}
        controlledResources: [memory]
        controlledValues: RequestsOnly
";
    check(text, "");
    let read = |text: &str| {
        let (loaded, _) = Case { files: &[("compose.yaml", text)], ..Case::default() }.load();
        loaded.expect("a good file").app
    };
    let app = read(text);
    let expected = Vertical {
        update_mode: UpdateMode::Initial,
        min_allowed: Allowed { cpu: Some(100), memory: Some(64 << 20) },
        max_allowed: Allowed { cpu: Some(2_000), memory: None },
        controlled_resources: Controlled { cpu: false, memory: true },
        controlled_values: ControlledValues::RequestsOnly,
        min_replicas: 3,
    };
    assert_eq!(app.services["web"].vertical, Some(expected));
    let again = read(&throng_compose::to_yaml(&app));
    assert_eq!(again.services["web"].vertical, Some(expected));
    let plain = read("services:\n  web:\n    image: web\n    x-throng: {vertical: {updateMode: Auto}}\n");
    assert_eq!(plain.services["web"].vertical, Some(Vertical::default()));

    for (text, expected) in [
        (
            "vertical: {updateMode: Sometimes}",
            "compose.yaml:6:30: error: expected one of Off, Initial, Recreate, Auto, found \"Sometimes\"",
        ),
        (
            "vertical: {minAllowed: {cpu: 2}, maxAllowed: {cpu: 500m}}",
            "compose.yaml:6:7: error: minAllowed.cpu is above maxAllowed.cpu (hint: write the larger one under maxAllowed)",
        ),
        (
            "vertical: {minAllowed: {cpu: 0}}",
            "compose.yaml:6:36: error: cpu must be above 0 (hint: write a quantity such as 100m or 64Mi)",
        ),
        (
            "vertical: {controlledResources: []}",
            "compose.yaml:6:39: error: controlledResources names nothing (hint: name cpu, memory or both, or say updateMode: \
             Off)",
        ),
        (
            "vertical: {minReplicas: 0}",
            "compose.yaml:6:31: error: expected a whole number above 0, found \"0\"",
        ),
        (
            "vertical: {updatemode: Off}",
            "compose.yaml:6:18: error: unknown key \"updatemode\" (hint: did you mean updateMode?)",
        ),
    ] {
        check_x(text, expected);
    }
}
