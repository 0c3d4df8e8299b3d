//! A Docker daemon for a measurement: started, asked over its socket, ended, and every trace of it removed.
//!
//! It has folders, a socket, a bridge and a containerd of its own, and leaves the host's packet filter and settings
//! alone, so a Docker that the host already runs is not disturbed.

use super::children::{Children, Server};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// At most 15 bytes, as the kernel wants.
const BRIDGE: &str = "throng-bench0";
/// Room for a thousand containers.
const BRIDGE_ADDRESS: &str = "10.198.0.1/22";
const CGROUP: &str = "/throng-bench-docker";
const START_LIMIT: Duration = Duration::from_secs(60);
/// It stops its containers first.
const STOP_LIMIT: Duration = Duration::from_secs(90);
/// For one answer of its API.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

pub struct Docker {
    // Dropped first: the folders can only be removed when nobody uses them.
    server: Server,
    places: Places,
}

/// What the daemon uses of this host.
struct Places {
    folder: PathBuf,
}

/// What a container is made of.
pub struct Image<'a> {
    pub name: &'a str,
    pub arguments: &'a [&'a str],
}

impl Docker {
    /// Starts the daemon with everything of it below `folder`, whose path must be short enough for sockets.
    pub fn start(children: &Children, folder: &Path) -> Result<Docker> {
        let places = Places::make(children, folder)?;
        let log = std::fs::File::create(folder.join("dockerd.log")).context("cannot write dockerd's log")?;
        let mut command = Command::new("dockerd");
        command
            .arg(format!("--data-root={}", folder.join("data").display()))
            .arg(format!("--exec-root={}", folder.join("exec").display()))
            .arg(format!("--pidfile={}", folder.join("pid").display()))
            .arg(format!("--host=unix://{}", places.socket().display()))
            .arg(format!("--config-file={}", folder.join("daemon.json").display()))
            .arg(format!("--bridge={BRIDGE}"))
            .arg(format!("--cgroup-parent={CGROUP}"))
            .args(["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"])
            .args(["--userland-proxy=false", "--storage-driver=overlay2", "--log-level=warn"]);
        let mut server = children.server(&command, log)?;
        server.patience = STOP_LIMIT;
        let mut docker = Docker { server, places };
        docker.wait(children)?;
        Ok(docker)
    }

    fn wait(&mut self, children: &Children) -> Result<()> {
        let socket = self.places.socket();
        let server = &mut self.server;
        let mut ended = None;
        let up = || {
            ended = server.ended();
            ended.is_some() || request(&socket, "GET", "/_ping", &[]).is_ok_and(|(status, _)| status == 200)
        };
        let waited = children.wait_until("dockerd does not answer", START_LIMIT, up);
        let said = || {
            let log = std::fs::read_to_string(self.places.folder.join("dockerd.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(5).collect();
            lines.into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        match (waited, ended) {
            (Ok(()), Some(status)) => bail!("dockerd ended ({status}):\n{}", said()),
            (waited, _) => waited.with_context(said),
        }
    }

    /// The daemon's address, as DOCKER_HOST takes it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.places.socket().display())
    }

    /// Takes an image in that `throng save` has written.
    pub fn load(&self, archive: &Path) -> Result<()> {
        let bytes = std::fs::read(archive).with_context(|| format!("cannot read {}", archive.display()))?;
        let (status, text) = request(&self.places.socket(), "POST", "/images/load?quiet=1", &bytes)?;
        if status != 200 || text.contains("errorDetail") {
            bail!("dockerd does not load the image ({status}): {}", text.trim());
        }
        Ok(())
    }

    /// Makes a container without health checks and starts it, as `docker run -d` does.
    pub fn run(&self, image: &Image<'_>) -> Result<String> {
        let container = json!({
            "Image": image.name,
            "Cmd": image.arguments,
            "Healthcheck": {"Test": ["NONE"]},
        });
        let made = self.ask("POST", "/containers/create", &container)?;
        let id = made["Id"].as_str().context("dockerd names no new container")?.to_owned();
        self.ask("POST", &format!("/containers/{id}/start"), &Value::Null)?;
        Ok(id)
    }

    pub fn address(&self, container: &str) -> Result<Ipv4Addr> {
        let found = self.ask("GET", &format!("/containers/{container}/json"), &Value::Null)?;
        address_in(&found).with_context(|| format!("container {container} has no address"))
    }

    /// All containers, running or not.
    pub fn containers(&self) -> Result<Vec<String>> {
        let all = self.ask("GET", "/containers/json?all=1", &Value::Null)?;
        let ids = all.as_array().into_iter().flatten().filter_map(|container| container["Id"].as_str());
        Ok(ids.map(str::to_owned).collect())
    }

    /// Kills the container and removes it.
    pub fn remove(&self, container: &str) -> Result<()> {
        self.ask("DELETE", &format!("/containers/{container}?force=1"), &Value::Null).map(drop)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let (status, text) = request(&self.places.socket(), method, path, &bytes)?;
        if !(200..300).contains(&status) {
            bail!("dockerd refuses {method} {path} ({status}): {}", text.trim());
        }
        if text.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
    }
}

/// The address on the bridge, where older and newer daemons say it.
fn address_in(container: &Value) -> Option<Ipv4Addr> {
    let settings = &container["NetworkSettings"];
    let networks = settings["Networks"].as_object().into_iter().flat_map(|networks| networks.values());
    std::iter::once(settings).chain(networks).find_map(|place| place["IPAddress"].as_str()?.parse().ok())
}

impl Places {
    fn make(children: &Children, folder: &Path) -> Result<Places> {
        // One that a killed measurement has left would carry the address twice.
        quietly("ip", &["link", "delete", BRIDGE]);
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        std::fs::write(folder.join("daemon.json"), "{}").context("cannot write dockerd's configuration")?;
        let places = Places { folder: folder.to_owned() };
        for arguments in [
            &["link", "add", BRIDGE, "type", "bridge"][..],
            &["address", "add", BRIDGE_ADDRESS, "dev", BRIDGE],
            &["link", "set", BRIDGE, "up"],
        ] {
            let mut command = Command::new("ip");
            command.args(arguments);
            children.output(command, START_LIMIT)?;
        }
        Ok(places)
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("docker.sock")
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        quietly("ip", &["link", "delete", BRIDGE]);
        for mount in mounts_below(&self.folder) {
            quietly("umount", &["-l", &mount]);
        }
        remove_cgroups();
        // The folder is below the measurement's own, which is removed as a whole.
    }
}

fn mounts_below(folder: &Path) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    points.filter(|point| Path::new(point).starts_with(folder)).map(str::to_owned).collect()
}

/// The daemon's empty control groups, in each hierarchy of version 1 or the one of version 2.
fn remove_cgroups() {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        // Most hierarchies have none, and one in use cannot be removed.
        let _ = std::fs::remove_dir(hierarchy.join(CGROUP.trim_start_matches('/')));
    }
}

/// Runs a command of the clean-up, which goes on whatever comes of it and must also run after an interruption.
fn quietly(program: &str, arguments: &[&str]) {
    let _ = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// One exchange over the daemon's socket: status and body.
fn request(socket: &Path, method: &str, path: &str, body: &[u8]) -> Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket).context("cannot reach dockerd")?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let content_type = if path.starts_with("/images/") { "application/x-tar" } else { "application/json" };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\
         Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).context("cannot ask dockerd")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("cannot read dockerd's answer")?;
    parse(&answer).context("dockerd's answer is no HTTP")
}

fn parse(answer: &[u8]) -> Option<(u16, String)> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = &answer[end + 4..];
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunked(body)? } else { body.to_vec() };
    Some((status, String::from_utf8_lossy(&body).into_owned()))
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?, 16).ok()?;
        if length == 0 {
            return Some(body);
        }
        let begin = line + 2;
        body.extend(rest.get(begin..begin.checked_add(length)?)?);
        rest = rest.get(begin + length + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_in_chunks() {
        let whole = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(parse(whole), Some((201, "{}".into())));
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(parse(chunked), Some((200, "abc0123456789".into())));
        assert_eq!(parse(b"HTTP/1.1 204 No Content\r\n\r\n"), Some((204, String::new())));
    }

    #[test]
    fn broken_answers_are_refused() {
        for answer in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nab",
        ] {
            assert_eq!(parse(answer), None, "{:?}", String::from_utf8_lossy(answer));
        }
    }

    #[test]
    fn addresses_are_found_where_either_daemon_says_them() {
        let expected = Some(Ipv4Addr::new(10, 198, 0, 2));
        let old = json!({"NetworkSettings": {"IPAddress": "10.198.0.2", "Networks": {}}});
        let new = json!({"NetworkSettings": {"Networks": {"bridge": {"IPAddress": "10.198.0.2"}}}});
        assert_eq!((address_in(&old), address_in(&new)), (expected, expected));
        assert_eq!(address_in(&json!({"NetworkSettings": {"IPAddress": ""}})), None);
    }
}
