//! What nothing uses any more goes when asked, or by itself when the disk is full; what is used stays.

mod support;

use rustix::process::Signal;
use support::{Bench, until};

const SERVER: &str = "services:\n  web: {image: probe, command: [serve, '80']}\n";

fn names(bench: &Bench) -> Vec<String> {
    let images = bench.ok(&["images", "--format", "json"]).json();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let mut names: Vec<String> = images.iter().map(|image| text(&image["Repository"])).collect();
    names.sort();
    names
}

#[test]
fn only_what_nothing_uses_is_pruned() {
    let Some(bench) = Bench::with_probe("only_what_nothing_uses_is_pruned") else { return };
    bench.image("spare", "FROM scratch\nCOPY probe /spare\n");
    let server = SERVER.replace("}", ", volumes: ['kept:/data']}");
    bench.compose(&format!("{server}volumes: {{kept: {{}}}}\n"));
    bench.ok(&["up", "-d", "--wait"]);
    // The name goes to another image while a replica still runs from this one.
    bench.image("probe", "FROM scratch\nCOPY probe /elsewhere\n");
    assert_eq!(names(&bench), ["<none>", "probe", "spare"]);
    bench.fails(2, &["prune"]).says("--force");
    bench.ok(&["prune", "--force"]).prints("Total reclaimed space: 0 B");
    bench.ok(&["prune", "--all", "--volumes", "--dry-run"]).prints("Would remove: image spare:latest");
    let plan = bench.ok(&["prune", "--all", "--dry-run", "--format", "json"]).out;
    let plan: serde_json::Value = serde_json::from_str(&plan).expect("JSON");
    assert_eq!((&plan["Images"][0], &plan["Remains"]), (&"spare:latest".into(), &serde_json::json!([])));
    assert_eq!(names(&bench), ["<none>", "probe", "spare"]);
    let pruned = bench.ok(&["prune", "--all", "--volumes", "--force"]);
    pruned.prints("Untagged: spare:latest").prints("Deleted: sha256:").prints("Total reclaimed space: ");
    assert_eq!(names(&bench), ["<none>", "probe"], "one runs, the other one is what the app names");
    assert_eq!(bench.ok(&["exec", "web", "/probe", "print", "well"]).out, "well\n");
    bench.ok(&["down"]);
    let volumes = bench.home.join("volumes");
    let count = || std::fs::read_dir(&volumes).expect("volumes").count();
    assert_eq!(count(), 1);
    bench.ok(&["prune", "--all", "--force"]);
    assert_eq!((names(&bench).len(), count()), (0, 1), "volumes go only when asked for");
    bench.ok(&["prune", "--volumes", "--force"]).prints("Removed: volume ");
    assert_eq!(count(), 0);
    bench.assert_clean();
}

#[test]
fn remains_of_an_app_whose_record_is_lost_are_pruned() {
    let Some(bench) = Bench::with_probe("remains_of_an_app_whose_record_is_lost_are_pruned") else { return };
    bench.compose(SERVER);
    bench.ok(&["up", "-d", "--wait"]);
    support::kill(bench.supervisor().expect("a supervisor"), Signal::KILL);
    until("it has ended", || (!bench.listens()).then_some(()));
    std::fs::remove_dir_all(bench.home.join("projects")).expect("records");
    let left = format!("what is left of {}", bench.project);
    bench.ok(&["prune", "--dry-run"]).prints(&left);
    assert!(!bench.pids("web-1").is_empty());
    bench.ok(&["prune", "--force"]).prints(&format!("Removed: what was left of {}", bench.project));
    bench.assert_clean();
}

#[test]
fn a_disk_above_its_mark_is_made_room_on() {
    let Some(bench) = Bench::with_probe("a_disk_above_its_mark_is_made_room_on") else { return };
    bench.image("spare", "FROM scratch\nCOPY probe /spare\n");
    let done = "  done: {image: probe, command: [append, /written, text], restart: 'no'}\n";
    bench.compose(&format!("{SERVER}{done}"));
    bench.ok(&["up", "-d"]);
    until("it has ended", || bench.states().contains(&("done-1".into(), "exited".into())).then_some(()));
    // The next supervisor is one for which any disk is too full, and that spares nobody for being new.
    support::kill(bench.supervisor().expect("a supervisor"), Signal::KILL);
    until("it has ended", || (!bench.listens()).then_some(()));
    let mut ps = bench.command(&["ps"]);
    ps.envs([("THRONG_DISK_HIGH_PERCENT", "0"), ("THRONG_DISK_LOW_PERCENT", "0")]);
    ps.envs([("THRONG_DISK_PERIOD", "1"), ("THRONG_DISK_MIN_AGE", "0")]);
    assert_eq!(bench.spawn_with(ps).wait().code, 0);
    bench.ok(&["exec", "web", "/probe", "append", "/written", "text"]);
    let events = || bench.ok(&["events", "--no-follow"]).out;
    until("the image goes", || events().contains("removed spare:latest (").then_some(()));
    until("the layer goes", || events().contains("emptied the writable layers of 1 ended").then_some(()));
    assert_eq!(names(&bench), ["probe"]);
    let layers =
        |replica: &str| bench.home.join("engine").join(&bench.project).join(replica).join("upper/written");
    assert!(!layers("done-1").exists(), "it has ended for good");
    assert!(layers("web-1").exists(), "it runs");
    assert!(bench.states().contains(&("done-1".into(), "exited".into())));
    assert_eq!(bench.ok(&["exec", "web", "/probe", "print", "well"]).out, "well\n");
    bench.ok(&["down"]);
    bench.assert_clean();
}
