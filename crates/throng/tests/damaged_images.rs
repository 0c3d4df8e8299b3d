//! Images that do not come whole, or are not whole any more: none is used, and what runs goes on.

mod support;

use sha2::{Digest, Sha256};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use support::Bench;

/// What a registry does with the layer of its one image.
#[derive(Clone, Copy)]
enum Fault {
    /// Ends in the middle of it, and is not there any more.
    Dies,
    /// Gives other bytes, as many as there should be.
    Lies,
}

const LAYER: usize = 1 << 20;

/// A registry with one image, `some/thing:1`, at the returned address.
fn registry(fault: Fault) -> String {
    let digest = |bytes: &[u8]| {
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex}")
    };
    let layer = vec![7u8; LAYER];
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": {"Cmd": ["/x"]}, "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    })
    .to_string();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": config.len(),
                   "digest": digest(config.as_bytes())},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "size": LAYER, "digest": digest(&layer)}],
    })
    .to_string();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address").to_string();
    let (config_path, manifest_digest) = (digest(config.as_bytes()), digest(manifest.as_bytes()));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Some(path) = asked(&stream) else { continue };
            let (kind, body) = match path.as_str() {
                "/v2/" => ("application/json", b"{}".to_vec()),
                path if path.contains("/manifests/") => {
                    ("application/vnd.oci.image.manifest.v1+json", manifest.clone().into_bytes())
                }
                path if path.ends_with(&config_path) => {
                    ("application/octet-stream", config.clone().into_bytes())
                }
                _ => ("application/octet-stream", vec![8u8; LAYER]),
            };
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
                 Docker-Content-Digest: {manifest_digest}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let dies = body.len() == LAYER && matches!(fault, Fault::Dies);
            let sent = if dies { &body[..LAYER / 3] } else { &body[..] };
            // Whoever asked may have gone.
            let _ = (&stream).write_all(head.as_bytes()).and_then(|()| (&stream).write_all(sent));
            if dies {
                return;
            }
        }
    });
    address
}

/// The path that somebody asks for.
fn asked(stream: &TcpStream) -> Option<String> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines().map_while(Result::ok);
    let first = lines.next()?;
    lines.find(String::is_empty)?;
    first.split(' ').nth(1).map(str::to_owned)
}

/// Work in progress in the store: nothing is, when no command runs.
fn scratch(bench: &Bench) -> Vec<PathBuf> {
    let entries = fs::read_dir(bench.home.join("images/tmp")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Bytes of all that the store holds under digests.
fn stored(bench: &Bench) -> u64 {
    let blobs = fs::read_dir(bench.home.join("images/blobs/sha256")).into_iter().flatten().flatten();
    blobs.map(|blob| blob.metadata().map_or(0, |metadata| metadata.len())).sum()
}

#[test]
fn an_image_that_does_not_come_whole_is_no_image() {
    let bench = Bench::anywhere();
    for (fault, text) in [(Fault::Dies, "127.0.0.1:"), (Fault::Lies, "sha256:")] {
        let address = registry(fault);
        bench.compose(&format!("services:\n  web: {{image: '{address}/some/thing:1'}}\n"));
        bench.fails(5, &["up", "-d"]).says("some/thing").says(text).says("hint:");
        assert_eq!(bench.ok(&["images", "--format", "json"]).out, "");
        assert_eq!(scratch(&bench), Vec::<PathBuf>::new(), "nothing of the transfer is left");
        assert!(stored(&bench) < LAYER as u64 / 2, "{} bytes of a layer that is none", stored(&bench));
        bench.assert_clean();
    }
}

#[test]
fn an_app_goes_on_while_its_next_image_does_not_come() {
    let Some(bench) = Bench::with_probe("an_app_goes_on_while_its_next_image_does_not_come") else { return };
    bench.compose("services:\n  web: {image: probe, command: [serve, '80'], deploy: {replicas: 2}}\n");
    bench.ok(&["up", "-d", "--wait"]);
    let lives = || ["web-1", "web-2"].map(|name| bench.pids(name));
    let before = lives();
    for fault in [Fault::Dies, Fault::Lies] {
        let address = registry(fault);
        bench.compose(&format!(
            "services:\n  web: {{image: '{address}/some/thing:1', command: [serve, '80'], deploy: {{replicas: 2}}}}\n"
        ));
        bench.fails(5, &["up", "-d"]).says("some/thing").says("hint:");
        assert_eq!(lives(), before, "the same processes");
        assert!(bench.ps().iter().all(|replica| replica["Image"] == "probe"), "{:?}", bench.ps());
        assert_eq!(scratch(&bench), Vec::<PathBuf>::new());
    }
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn a_layer_that_is_damaged_on_disk_is_named_and_made_anew() {
    let Some(bench) = Bench::with_probe("a_layer_that_is_damaged_on_disk_is_named_and_made_anew") else {
        return;
    };
    bench.compose("services:\n  web: {image: probe, command: [serve, '80']}\n");
    // No replica has ever been made of it, so it is not unpacked yet.
    let blobs = fs::read_dir(bench.home.join("images/blobs/sha256")).expect("blobs").flatten();
    let largest = blobs.max_by_key(|blob| blob.metadata().map_or(0, |metadata| metadata.len()));
    let layer = largest.expect("a layer").path();
    let mut bytes = fs::read(&layer).expect("a layer");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&layer, bytes).expect("written");
    let digest = layer.file_name().expect("a name").to_string_lossy().into_owned();
    bench
        .fails(5, &["up", "-d"])
        .says("web: image probe: ")
        .says(&format!("layer sha256:{digest}"))
        .says("hint: fetch or make it anew");
    assert_eq!(scratch(&bench), Vec::<PathBuf>::new());
    bench.assert_clean();
    // What the hint says helps.
    bench.build_probe();
    bench.ok(&["up", "-d", "--wait"]);
    bench.ok(&["down"]);
    bench.assert_clean();
}
