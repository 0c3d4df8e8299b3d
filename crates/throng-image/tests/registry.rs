//! Pull and push against Debian's docker-registry on this machine.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod common;

use common::{Fixture, block_on, has_program, skip, tree};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use throng_image::{ImageError, PullOptions, Silent, Store, TransferEvent, TransferProgress, pull, push};

/// How long a registry may take to listen.
const START: Duration = Duration::from_secs(20);

struct Registry {
    process: Child,
    address: String,
    dir: TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    /// `None`, and said so, if the package is missing. `extra` goes into the configuration file.
    fn start(test: &str, extra: &str) -> Option<Registry> {
        if !has_program("docker-registry") {
            skip(test, "docker-registry is not installed");
            return None;
        }
        // Between choosing a free port and using it another process may take it.
        for _ in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let address = format!("127.0.0.1:{port}");
            let config = format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{extra}",
                dir.path().join("data").display()
            );
            let file = dir.path().join("config.yml");
            fs::write(&file, config.replace("@DIR@", &dir.path().to_string_lossy())).unwrap();
            if extra.contains("htpasswd") {
                write_htpasswd(&dir.path().join("htpasswd"));
            }
            let mut process = Command::new("docker-registry")
                .arg("serve")
                .arg(&file)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let deadline = Instant::now() + START;
            while Instant::now() < deadline && process.try_wait().unwrap().is_none() {
                if TcpStream::connect(&address).is_ok() {
                    return Some(Registry { process, address, dir });
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        panic!("docker-registry does not start");
    }

    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Files of blobs that are larger than `size`.
    fn blobs(&self, size: u64) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect(&self.dir.path().join("data"), &mut found);
        found.retain(|path| path.ends_with("data") && fs::metadata(path).unwrap().len() > size);
        found
    }
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, found) } else { found.push(path) }
    }
}

/// User `u` with password `p`, hashed by bcrypt, which is all that docker-registry takes.
fn write_htpasswd(path: &Path) {
    fs::write(path, "u:$2y$05$naoy2XpKp9YEjeZBtRAx3.Pc65kbj14oBG9hUyrzqF4eI8CNWoa3W\n").unwrap();
}

/// A file that gzip cannot make smaller, so that blobs keep their size.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

fn fixture(name: &str) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.write("big", noise(3 << 20));
    fixture.write("small", "small");
    fixture.options.tags = vec![name.into()];
    fixture.build("FROM scratch\nCOPY big /\nCOPY small /\nCMD [\"/small\"]");
    fixture
}

fn options() -> PullOptions {
    // The developer's own credentials must not take part.
    PullOptions { docker_config: Some("/nonexistent".into()), ..Default::default() }
}

fn assert_clean(store: &Store) {
    assert_eq!(store.list().unwrap(), []);
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
}

#[derive(Default)]
struct Events(Mutex<Vec<String>>);

impl TransferProgress for Events {
    fn event(&self, event: TransferEvent<'_>) {
        let text = match event {
            TransferEvent::Started { .. } => "started".to_string(),
            TransferEvent::Advanced { .. } => return,
            TransferEvent::Resumed { at, .. } => format!("resumed {}", u8::from(at > 0)),
            TransferEvent::Finished { .. } => "finished".into(),
            TransferEvent::Present { .. } => "present".into(),
        };
        self.0.lock().unwrap().push(text);
    }
}

#[test]
fn what_is_pushed_is_pulled_with_the_same_digests() {
    let Some(registry) = Registry::start("what_is_pushed_is_pulled_with_the_same_digests", "") else {
        return;
    };
    let name = registry.name("team/app:1");
    let fixture = fixture(&name);
    let image = fixture.store.get(&name).unwrap();
    let digest = block_on(push(&fixture.store, &name, &options(), &Silent)).unwrap();
    assert_eq!(digest, image.manifest_digest);
    let again = Events::default();
    block_on(push(&fixture.store, &name, &options(), &again)).unwrap();
    assert_eq!(*again.0.lock().unwrap(), ["present"; 3]);

    let other = fixture.other_store("other");
    let pulled = block_on(pull(&other, &name, &options(), &Silent)).unwrap();
    assert_eq!((&pulled.id, &pulled.manifest_digest), (&image.id, &image.manifest_digest));
    assert_eq!(pulled.config.cmd.as_deref(), Some(&["/small".to_string()][..]));
    assert_eq!(tree(&other.layers(&pulled).unwrap()[1])["small"], "small");

    let by_digest = format!("{}@{digest}", registry.name("team/app"));
    let third = fixture.other_store("third");
    assert_eq!(block_on(pull(&third, &by_digest, &options(), &Silent)).unwrap().id, image.id);
    assert_eq!(third.get(&by_digest).unwrap().id, image.id);

    if has_program("skopeo") {
        let source = format!("docker://{name}");
        let output =
            Command::new("skopeo").args(["inspect", "--tls-verify=false", &source]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let seen: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(seen["Digest"], digest);
    } else {
        skip("skopeo inspect of a pushed image", "skopeo is not installed");
    }
}

#[test]
fn dockers_own_media_types_are_understood() {
    let test = "dockers_own_media_types_are_understood";
    let Some(registry) = Registry::start(test, "") else { return };
    if !has_program("skopeo") {
        return skip(test, "skopeo is not installed");
    }
    let name = registry.name("app:1");
    let fixture = fixture(&name);
    let image = fixture.store.get(&name).unwrap();
    let archive = fixture.dir.path().join("a.tar");
    let file = fs::File::create(&archive).unwrap();
    fixture.store.save(std::slice::from_ref(&name), throng_image::ArchiveFormat::Docker, file).unwrap();
    let (source, target) = (format!("docker-archive:{}", archive.display()), format!("docker://{name}"));
    let output = Command::new("skopeo")
        .args([
            "copy",
            "-q",
            "--insecure-policy",
            "--dest-tls-verify=false",
            "--format",
            "v2s2",
            &source,
            &target,
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let other = fixture.other_store("other");
    let pulled = block_on(pull(&other, &name, &options(), &Silent)).unwrap();
    assert_eq!(pulled.id, image.id);
    assert_ne!(pulled.manifest_digest, image.manifest_digest);
    // And back again, as it came.
    block_on(push(&other, &name, &options(), &Silent)).unwrap();
}

#[test]
fn a_blob_that_was_changed_on_the_registry_is_refused() {
    let Some(registry) = Registry::start("a_blob_that_was_changed_on_the_registry_is_refused", "") else {
        return;
    };
    let name = registry.name("app:1");
    let fixture = fixture(&name);
    block_on(push(&fixture.store, &name, &options(), &Silent)).unwrap();
    let blob = registry.blobs(1 << 20).pop().unwrap();
    let mut bytes = fs::read(&blob).unwrap();
    bytes[1000] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let other = fixture.other_store("other");
    let error = block_on(pull(&other, &name, &options(), &Silent)).unwrap_err();
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
    assert!(error.to_string().contains(&name) && error.hint().is_some(), "{error}");
    assert_clean(&other);
}

#[test]
fn what_a_registry_does_not_have_is_named() {
    let Some(mut registry) = Registry::start("what_a_registry_does_not_have_is_named", "") else { return };
    let fixture = Fixture::new();
    let name = registry.name("no/such:1");
    let error = block_on(pull(&fixture.store, &name, &options(), &Silent)).unwrap_err();
    assert!(matches!(error, ImageError::NotInRegistry { .. }), "{error}");
    let error = block_on(push(&fixture.store, &name, &options(), &Silent)).unwrap_err();
    assert!(matches!(error, ImageError::NotFound { .. }), "{error}");
    registry.process.kill().unwrap();
    registry.process.wait().unwrap();
    let error = block_on(pull(&fixture.store, &name, &options(), &Silent)).unwrap_err();
    assert!(matches!(error, ImageError::Registry { .. }), "{error}");
    assert!(
        error.to_string().contains(&registry.address) && error.to_string().contains("refused"),
        "{error}"
    );
    assert_clean(&fixture.store);
}

#[test]
fn a_registry_with_passwords() {
    let test = "a_registry_with_passwords";
    let extra = "auth:\n  htpasswd:\n    realm: test\n    path: @DIR@/htpasswd\n";
    let Some(registry) = Registry::start(test, extra) else { return };
    let name = registry.name("app:1");
    let fixture = fixture(&name);
    let error = block_on(push(&fixture.store, &name, &options(), &Silent)).unwrap_err();
    assert!(matches!(error, ImageError::Unauthorized { .. }), "{error}");
    let with = |auth: &str| {
        let folder = fixture.dir.path().join("docker");
        fs::create_dir_all(&folder).unwrap();
        let config = serde_json::json!({ "auths": { &registry.address: { "auth": auth } } });
        fs::write(folder.join("config.json"), config.to_string()).unwrap();
        PullOptions { docker_config: Some(folder), ..Default::default() }
    };
    // u:x, then u:p
    let error = block_on(push(&fixture.store, &name, &with("dTp4"), &Silent)).unwrap_err();
    assert!(matches!(error, ImageError::Unauthorized { .. }), "{error}");
    assert!(!error.to_string().contains("dTp4"));
    block_on(push(&fixture.store, &name, &with("dTpw"), &Silent)).unwrap();
    let other = fixture.other_store("other");
    block_on(pull(&other, &name, &with("dTpw"), &Silent)).unwrap();
    let error = block_on(pull(&fixture.other_store("third"), &name, &options(), &Silent)).unwrap_err();
    assert!(matches!(error, ImageError::Unauthorized { .. }), "{error}");
}

/// Stands between client and registry: the first `cuts` answers that are larger than `after` bytes are cut there.
fn unreliable(target: &str, after: usize, cuts: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let target = target.to_string();
    let left = std::sync::Arc::new(Mutex::new(cuts));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (target, left) = (target.clone(), left.clone());
            std::thread::spawn(move || serve_one(client, &target, after, &left));
        }
    });
    address
}

/// One request and its answer, then the connection is closed.
fn serve_one(mut client: TcpStream, target: &str, after: usize, left: &Mutex<usize>) -> Option<()> {
    let mut request = String::new();
    let mut reader = BufReader::new(client.try_clone().ok()?);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if line == "\r\n" {
            break;
        }
        request.push_str(&line);
    }
    let mut server = TcpStream::connect(target).ok()?;
    server.write_all(request.as_bytes()).ok()?;
    server.write_all(b"Connection: close\r\n\r\n").ok()?;
    let mut buffer = [0; 16_384];
    let mut passed = 0;
    loop {
        let read = server.read(&mut buffer).ok().filter(|read| *read > 0)?;
        client.write_all(&buffer[..read]).ok()?;
        passed += read;
        if passed > after {
            let mut left = left.lock().unwrap();
            if *left > 0 {
                *left -= 1;
                return None;
            }
        }
    }
}

#[test]
fn a_broken_transfer_goes_on_where_it_was() {
    let Some(registry) = Registry::start("a_broken_transfer_goes_on_where_it_was", "") else { return };
    let name = registry.name("app:1");
    let fixture = fixture(&name);
    let image = fixture.store.get(&name).unwrap();
    block_on(push(&fixture.store, &name, &options(), &Silent)).unwrap();
    let proxy = unreliable(&registry.address, 1 << 20, 2);
    let other = fixture.other_store("other");
    let events = Events::default();
    let pulled = block_on(pull(&other, &format!("{proxy}/app:1"), &options(), &events)).unwrap();
    assert_eq!(pulled.id, image.id);
    let resumed = events.0.lock().unwrap().iter().filter(|event| *event == "resumed 1").count();
    assert_eq!(resumed, 2);
}

#[test]
fn a_registry_that_dies_in_the_middle_leaves_nothing_half_made() {
    let test = "a_registry_that_dies_in_the_middle_leaves_nothing_half_made";
    let Some(registry) = Registry::start(test, "") else { return };
    let name = registry.name("app:1");
    let fixture = fixture(&name);
    block_on(push(&fixture.store, &name, &options(), &Silent)).unwrap();
    let registry = Mutex::new(registry);

    /// Kills the registry as soon as the first bytes of a large blob have come.
    struct Kill<'a>(&'a Mutex<Registry>, &'a str);
    impl TransferProgress for Kill<'_> {
        fn event(&self, event: TransferEvent<'_>) {
            if matches!(event, TransferEvent::Started { total, .. } if total > 1 << 20) {
                let mut registry = self.0.lock().unwrap();
                registry.process.kill().unwrap();
                registry.process.wait().unwrap();
                assert!(TcpStream::connect(self.1).is_err());
            }
        }
    }
    let other = fixture.other_store("other");
    let address = registry.lock().unwrap().address.clone();
    let error = block_on(pull(&other, &name, &options(), &Kill(&registry, &address))).unwrap_err();
    assert!(matches!(error, ImageError::Registry { .. }), "{error}");
    assert!(error.hint().unwrap().contains("try again"));
    assert_clean(&other);
}
