//! Debian's docker-registry on this machine.

use super::skip;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a registry may take to listen.
const START: Duration = Duration::from_secs(20);

pub struct Registry {
    process: Child,
    pub address: String,
    _folder: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    /// `None`, said aloud, without the program.
    pub fn start(test: &str) -> Option<Registry> {
        let is_here = std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|folder| folder.join("docker-registry").is_file())
        });
        if !is_here {
            skip(test, "docker-registry is not installed");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let address = format!("127.0.0.1:{}", super::web::free_port());
        let data = folder.path().join("data");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {address}}}\n",
            data.display()
        );
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config).expect("written");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let registry = Registry { process, address, _folder: folder };
        let deadline = Instant::now() + START;
        while TcpStream::connect(&registry.address).is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }
}
