//! Manifests as kubectl reads them, where there is one.

use crate::common::good;
use std::io::Write;
use std::process::{Command, Stdio};
use throng_kube::{Format, stream};

/// Says that a test could not run, or fails where it must.
fn skipped(name: &str, reason: &str) {
    assert!(std::env::var_os("THRONG_REQUIRE_ALL").is_none_or(|v| v != "1"), "{name}: {reason}");
    eprintln!("SKIPPED {name}: {reason}");
}

#[test]
fn kubectl_reads_all_cases() {
    let here = Command::new("kubectl")
        .args(["version", "--client"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !here.is_ok_and(|status| status.success()) {
        return skipped("kubectl_reads_all_cases", "there is no kubectl");
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let objects = good(&std::fs::read_to_string(&path).unwrap()).objects;
        for format in [Format::Yaml, Format::Json] {
            // A label is set on each object that was read, without asking any cluster.
            let mut child = Command::new("kubectl")
                .args(["label", "--local", "--dry-run=client", "-f", "-", "-o", "name", "tried=yes"])
                .env("KUBECONFIG", "/dev/null")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(stream(&objects, format).as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {said}", path.display());
            let names = String::from_utf8_lossy(&output.stdout).lines().count();
            assert_eq!(names, objects.len(), "{}: {said}", path.display());
        }
    }
}
