//! `throng convert`: manifests in a folder, on standard output, and as a base with overlays.

mod support;

use std::process::{Command, Stdio};
use support::{Bench, skip};

const SHOP: &str = "services:
  web:
    image: registry.example/web:1
    ports: ['8080:80']
    environment: {API_TOKEN: hush}
    stop_signal: SIGQUIT
    deploy: {replicas: 2}
  worker:
    image: registry.example/worker:1
";

#[test]
fn a_folder_holds_a_file_for_each_service_and_the_secrets_apart() {
    let bench = Bench::anywhere();
    bench.compose(SHOP);
    let done = bench.ok(&["convert"]);
    done.prints("k8s/secrets.yaml  Secret\n")
        .prints("k8s/web.yaml  Service, Deployment, PodDisruptionBudget\n");
    done.says("compose.yaml:7:5").says("\"stop_signal\" says nothing to a cluster");
    let read = |name: &str| std::fs::read_to_string(bench.folder.join("k8s").join(name)).unwrap_or_default();
    assert!(
        read("web.yaml").contains("  replicas: 2 # deploy.replicas, compose.yaml:8\n"),
        "{}",
        read("web.yaml")
    );
    assert!(!read("web.yaml").contains("hush") && read("secrets.yaml").contains("API_TOKEN: hush\n"));
    let first = read("web.yaml");
    bench.ok(&["convert", "-f", "compose.yaml"]);
    assert_eq!(read("web.yaml"), first, "the same file gives the same bytes");
}

#[test]
fn what_left_the_app_leaves_the_folder_and_what_is_anybody_else_s_stays() {
    let bench = Bench::anywhere();
    bench.compose(SHOP);
    bench.ok(&["convert", "-o", "out"]);
    bench.write("out/notes.yaml", "mine: yes\n");
    bench.compose(&SHOP[..SHOP.find("  worker:").expect("a second service")]);
    bench.ok(&["convert", "-o", "out"]).says("removed out/worker.yaml");
    assert!(!bench.folder.join("out/worker.yaml").exists() && bench.folder.join("out/notes.yaml").exists());
    bench.write("out/web.yaml", "mine: too\n");
    bench.fails(2, &["convert", "-o", "out"]).says("out/web.yaml is there already").says("--force");
    assert_eq!(std::fs::read_to_string(bench.folder.join("out/web.yaml")).expect("a file"), "mine: too\n");
    bench.ok(&["convert", "-o", "out", "--force"]);
}

#[test]
fn standard_output_takes_one_list() {
    let bench = Bench::anywhere();
    bench.compose(SHOP);
    let documents = bench.ok(&["convert", "-o", "-"]).out;
    assert_eq!(documents.matches("\n---\n").count(), 4, "{documents}");
    assert!(!bench.folder.join("k8s").exists());
    let list = bench.ok(&["convert", "-o", "-", "--format", "json", "--namespace", "shop-1"]).out;
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    let items = list["items"].as_array().expect("items");
    assert_eq!((list["kind"].as_str(), items.len()), (Some("List"), 5));
    assert!(items.iter().all(|item| item["metadata"]["namespace"] == "shop-1"));
}

#[test]
fn what_no_cluster_takes_is_refused_with_nothing_written() {
    let bench = Bench::anywhere();
    bench.compose("services:\n  a_b: {image: 'x:1'}\n  a-b: {image: 'x:1'}\n");
    bench.fails(2, &["convert"]).says("would both be called \"a-b\"").says("compose.yaml:3:3");
    assert!(!bench.folder.join("k8s").exists());
    bench.compose(SHOP);
    bench.fails(2, &["convert", "--namespace", "Shop_1"]).says("cannot be the name of a namespace");
    bench.fails(2, &["convert", "-o", "-", "--overlay", "home"]).says("standard output is none");
    bench.fails(2, &["convert", "-f", "missing.yaml"]).says("missing.yaml");
    bench.fails(2, &["convert", "--volume-size", "0"]);
}

#[test]
fn overlays_are_written_once_and_build_with_kustomize() {
    let bench = Bench::anywhere();
    // One service is called as Kustomize calls its own file.
    bench.compose(&SHOP.replace("  worker:", "  kustomization:"));
    bench.ok(&["convert", "--overlay", "home", "--overlay", "cloud"]).prints("k8s/base/web.yaml");
    let overlay = bench.folder.join("k8s/overlays/home/kustomization.yaml");
    let own = std::fs::read_to_string(&overlay)
        .expect("an overlay")
        .replace("# namespace: home", "namespace: home");
    let own = own.replace("# images:\n# - ", "images:\n- ").replace("newTag: \"1\"", "newTag: \"2\"");
    bench.write("k8s/overlays/home/kustomization.yaml", &own);
    bench.ok(&["convert", "--overlay", "home"]).prints("k8s/overlays/home/kustomization.yaml  left as it is");
    assert_eq!(std::fs::read_to_string(&overlay).expect("an overlay"), own);
    let version = kubectl(&["version", "--client", "--output=json"]);
    let minor = version.and_then(|said| {
        let version: serde_json::Value = serde_json::from_slice(&said.stdout).ok()?;
        version["clientVersion"]["minor"].as_str()?.trim_end_matches('+').parse::<u32>().ok()
    });
    let Some(minor) = minor else {
        return skip("overlays_are_written_once_and_build_with_kustomize", "kubectl is not installed");
    };
    if minor < 22 {
        // It brings a Kustomize that takes a base by another key, and reads all else alike.
        bench.write("k8s/overlays/home/kustomization.yaml", &own.replace("resources:", "bases:"));
    }
    let folder = overlay.parent().expect("a folder").to_string_lossy().into_owned();
    let built = kubectl(&["kustomize", &folder]).expect("kubectl runs");
    let text = String::from_utf8_lossy(&built.stdout);
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    assert!(
        text.contains("image: registry.example/web:2\n") && text.matches("namespace: home\n").count() == 5,
        "{text}"
    );
}

fn kubectl(arguments: &[&str]) -> Option<std::process::Output> {
    Command::new("kubectl").args(arguments).stdin(Stdio::null()).output().ok()
}
