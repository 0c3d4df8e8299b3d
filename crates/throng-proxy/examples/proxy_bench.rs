//! Requests per second and p99 of a small answer through this balancer, nginx and HAProxy, side by side.
//!
//! Starts one nginx with three ports as the backends, puts each balancer in front of them in turn, and lets `wrk` ask.
//! Each balancer runs as a process of its own with the same number of threads. Rounds alternate between them, so that
//! a machine that gets slower gets slower for all; the median round of each is reported. Prints one JSON object.
//!
//! Usage: proxy_bench [--workers N] [--rounds N] [--seconds N] [--connections N] [--also 'NAME=COMMAND'] [--paced THRONG]
//!
//! `wrk` asks as fast as it is answered, so each balancer is at its own limit, where latency is mostly waiting for a
//! turn on a core. `--paced` gives the `throng` program, which then asks over as many connections as well, with a pause
//! before each next request, so that nobody is at a limit.
//!
//! `--also` measures one more proxy: `{listen}` and `{backends}` in its command stand for the address to listen on
//! and those of the backends.
//! Needs the Debian packages nginx-light (or nginx), haproxy and wrk, and taskset of util-linux: with a core for each
//! thread of the balancer and one more, the balancers have theirs to themselves, and what asks and what answers shares
//! the next. Three busy programs on two cores would share one by turns otherwise, now these and now those, which moves
//! the 99th percentile of one and the same balancer by a factor of two from round to round.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use throng_proxy::{Backend, Limits, ProtocolHint, Proxy, ProxyConfig};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const BACKENDS: usize = 3;
/// How long a server may take until it accepts connections.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to end.
/// Of each client before its next request, where nobody is to be at a limit.
const PAUSE: &str = "1ms";
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

struct Options {
    workers: usize,
    rounds: usize,
    seconds: u32,
    connections: u32,
    also: Vec<(String, String)>,
    /// The `throng` program, which asks with pauses.
    paced: Option<String>,
}

/// Where programs run, as taskset(1) lists cores; anywhere without.
#[derive(Debug, Clone, Default)]
struct Cores {
    balancer: Option<String>,
    others: Option<String>,
}

impl Cores {
    fn for_workers(workers: usize) -> Cores {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        if workers == 0 || cores <= workers {
            return Cores::default();
        }
        Cores { balancer: Some(format!("0-{}", workers - 1)), others: Some(workers.to_string()) }
    }
}

/// A command on those cores.
fn on(cores: Option<&String>, program: impl AsRef<OsStr>) -> Command {
    match cores {
        Some(cores) => {
            let mut command = Command::new("taskset");
            command.args(["-c", cores]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// A server that ends with this process.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Asked first, because nginx killed outright would leave its workers behind.
        let asked = Command::new("kill").arg(self.0.id().to_string()).status().is_ok_and(|s| s.success());
        let begin = Instant::now();
        while asked && begin.elapsed() < STOP_TIMEOUT && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // It has ended by itself as a rule; then there is nothing left to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, workers, backends @ ..] = arguments.as_slice()
        && mode == "serve"
    {
        return serve(workers.parse()?, backends);
    }
    let options = parse(&arguments)?;
    let folder = tempfile::tempdir()?;
    let ports: Vec<u16> = (0..BACKENDS).map(|_| free_port()).collect::<Result<_>>()?;
    let Cores { balancer, others } = Cores::for_workers(options.workers);
    let (balancer, others) = (balancer.as_ref(), others.as_ref());
    let backends = start_nginx(others, folder.path(), "backend", &backend_config(&ports), 1)?;
    ports.iter().try_for_each(|port| wait_for(*port))?;

    let (nginx_port, haproxy_port) = (free_port()?, free_port()?);
    let config = balancer_config(&ports, nginx_port);
    let nginx = start_nginx(balancer, folder.path(), "balancer", &config, options.workers)?;
    let haproxy = start_haproxy(balancer, folder.path(), &ports, haproxy_port, options.workers)?;
    let (ours, ours_port) = start_ours(balancer, &ports, options.workers)?;
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let peer = |name: &str, port, server: &Server| Peer {
        name: name.to_owned(),
        address: loopback(port),
        process: server.0.id(),
    };
    let mut peers = vec![
        peer("ours", ours_port, &ours),
        peer("nginx", nginx_port, &nginx),
        peer("haproxy", haproxy_port, &haproxy),
    ];
    let mut also = Vec::new();
    for (name, command) in &options.also {
        let port = free_port()?;
        let server = start_other(balancer, command, port, &ports)?;
        peers.push(peer(name, port, &server));
        also.push(server);
    }
    peers.push(peer("direct", ports[0], &backends));
    peers.iter().try_for_each(|peer| wait_for(peer.address.port()))?;
    let measured = measure(&peers, &options, others)?;
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Options> {
    let mut options =
        Options { workers: 1, rounds: 5, seconds: 4, connections: 32, also: Vec::new(), paced: None };
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let value = rest.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--workers" => options.workers = value.parse()?,
            "--rounds" => options.rounds = value.parse::<usize>()?.max(1),
            "--seconds" => options.seconds = value.parse()?,
            "--connections" => options.connections = value.parse()?,
            "--paced" => options.paced = Some(value.clone()),
            "--also" => {
                let (name, command) = value.split_once('=').ok_or("--also needs NAME=COMMAND")?;
                options.also.push((name.to_owned(), command.to_owned()));
            }
            _ => return Err(format!("unknown option {flag}").into()),
        }
    }
    Ok(options)
}

/// This program as the balancer under test: prints its port and serves until its standard input ends.
fn serve(workers: usize, backends: &[String]) -> Result<()> {
    let mut config = ProxyConfig::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    config.protocol = ProtocolHint::Detect;
    config.limits = Limits { workers, ..Limits::default() };
    let proxy = Proxy::bind(config, None)?;
    let backends = backends
        .iter()
        .enumerate()
        .map(|(i, address)| Ok(Backend { name: format!("backend-{}", i + 1), address: address.parse()? }));
    proxy.set_backends(backends.collect::<Result<_>>()?);
    println!("{}", proxy.local_addr().port());
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

fn start_ours(cores: Option<&String>, ports: &[u16], workers: usize) -> Result<(Server, u16)> {
    let mut child = on(cores, std::env::current_exe()?)
        .args(["serve", &workers.to_string()])
        .args(ports.iter().map(|port| format!("127.0.0.1:{port}")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("the balancer has no output")?;
    let server = Server(child);
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    Ok((server, line.trim().parse()?))
}

fn start_other(cores: Option<&String>, command: &str, port: u16, ports: &[u16]) -> Result<Server> {
    let mut arguments: Vec<String> = Vec::new();
    for word in command.split_ascii_whitespace() {
        match word {
            "{listen}" => arguments.push(format!("127.0.0.1:{port}")),
            "{backends}" => arguments.extend(ports.iter().map(|port| format!("127.0.0.1:{port}"))),
            word => arguments.push(word.to_owned()),
        }
    }
    let (program, arguments) = arguments.split_first().ok_or("--also needs a command")?;
    let child =
        on(cores, program).args(arguments).spawn().map_err(|e| format!("cannot start {program}: {e}"))?;
    Ok(Server(child))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn wait_for(port: u16) -> Result<()> {
    let begin = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if begin.elapsed() > START_TIMEOUT {
            return Err(format!("nothing listens on port {port} after {START_TIMEOUT:?}").into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn backend_config(ports: &[u16]) -> String {
    let listen: String = ports.iter().map(|port| format!("listen 127.0.0.1:{port} backlog=1024;")).collect();
    format!("server {{ {listen} location / {{ default_type text/plain; return 200 'ok\n'; }} }}")
}

fn balancer_config(ports: &[u16], port: u16) -> String {
    let servers: String = ports.iter().map(|port| format!("server 127.0.0.1:{port};")).collect();
    format!(
        "upstream b {{ random two least_conn; {servers} keepalive 64; keepalive_requests 100000000; }}
         server {{ listen 127.0.0.1:{port} backlog=1024; location / {{ proxy_pass http://b; \
         proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host $host; \
         proxy_set_header X-Forwarded-Host $host; proxy_set_header X-Forwarded-Proto $scheme; \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }}"
    )
}

fn start_nginx(
    cores: Option<&String>,
    folder: &Path,
    name: &str,
    http: &str,
    workers: usize,
) -> Result<Server> {
    let folder = folder.join(name);
    fs::create_dir(&folder)?;
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {}/{kind};", folder.display()))
        .collect();
    let config = format!(
        "daemon off; worker_processes {workers}; pid {dir}/pid; error_log {dir}/error.log; \
         events {{ worker_connections 4096; }} http {{ access_log off; keepalive_requests 100000000; \
         {temporary} {http} }}",
        dir = folder.display()
    );
    let path = folder.join("nginx.conf");
    fs::write(&path, config)?;
    let child = on(cores, "nginx")
        .args(["-e".as_ref(), folder.join("error.log").as_os_str(), "-c".as_ref(), path.as_os_str()])
        .spawn()
        .map_err(|e| format!("cannot start nginx ({e}); install the package nginx-light"))?;
    Ok(Server(child))
}

fn start_haproxy(
    cores: Option<&String>,
    folder: &Path,
    ports: &[u16],
    port: u16,
    workers: usize,
) -> Result<Server> {
    let servers: String =
        ports.iter().enumerate().map(|(i, port)| format!("  server s{i} 127.0.0.1:{port}\n")).collect();
    let config = format!(
        "global\n  nbthread {workers}\n  maxconn 4096\n\
         defaults\n  mode http\n  option forwardfor\n  option http-keep-alive\n  http-reuse always\n  \
         timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         frontend f\n  bind 127.0.0.1:{port}\n  http-request set-header X-Forwarded-Proto http\n  \
         http-request set-header X-Forwarded-Host %[req.hdr(Host)]\n  default_backend b\n\
         backend b\n  balance random(2)\n{servers}"
    );
    let path = folder.join("haproxy.cfg");
    fs::File::create(&path)?.write_all(config.as_bytes())?;
    let child = on(cores, "haproxy")
        .args(["-db".as_ref(), "-q".as_ref(), "-f".as_ref(), path.as_os_str()])
        .spawn()
        .map_err(|e| format!("cannot start haproxy ({e}); install the package haproxy"))?;
    Ok(Server(child))
}

/// A balancer under test.
struct Peer {
    name: String,
    address: SocketAddr,
    process: u32,
}

/// What one round of one balancer gave.
#[derive(Debug, Clone, Copy)]
struct Figures {
    /// Requests a second, as many as it could.
    rate: f64,
    p99_us: f64,
    /// Processor time of a request.
    cpu_us: f64,
    /// 99th percentile where nobody is at a limit.
    paced_p99_us: Option<f64>,
}

type Rounds<'a> = BTreeMap<&'a str, Vec<Figures>>;

/// Runs the rounds and reports the median of each figure.
fn measure(
    peers: &[Peer],
    options: &Options,
    cores: Option<&String>,
) -> Result<BTreeMap<String, serde_json::Value>> {
    let mut rounds = Rounds::new();
    for peer in peers {
        wrk(cores, peer.address, options.connections, 1)?;
    }
    for round in 1..=options.rounds {
        // Each round begins with another one, so that nobody always follows the same neighbour.
        let order: Vec<&Peer> = peers.iter().cycle().skip(round).take(peers.len()).collect();
        for Peer { name, address, process } in &order {
            let before = processor_micros(*process);
            let (requests, rate, p99_us) = wrk(cores, *address, options.connections, options.seconds)?;
            let cpu_us = (processor_micros(*process) - before) / requests;
            eprintln!(
                "round {round}: {name:>8} {rate:>9.0}/s  p99 {p99_us:>7.0} µs  processor {cpu_us:>5.1} µs each"
            );
            let figures = Figures { rate, p99_us, cpu_us, paced_p99_us: None };
            rounds.entry(name).or_default().push(figures);
        }
        if let Some(throng) = &options.paced {
            for peer in &order {
                let p99_us = paced(throng, cores, peer.address, options)?;
                eprintln!("round {round}: {:>8} with pauses  p99 {p99_us:>7.0} µs", peer.name);
                if let Some(figures) = rounds.get_mut(peer.name.as_str()).and_then(|all| all.last_mut()) {
                    figures.paced_p99_us = Some(p99_us);
                }
            }
        }
    }
    Ok(rounds.iter().map(|(name, rounds)| ((*name).to_owned(), report(rounds))).collect())
}

fn report(rounds: &[Figures]) -> serde_json::Value {
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let of = |figure: fn(&Figures) -> f64| median(rounds.iter().map(figure).collect()).unwrap_or(0.0);
    serde_json::json!({
        "rate": of(|f| f.rate).round(),
        "p99_us": of(|f| f.p99_us).round(),
        "cpu_us": (of(|f| f.cpu_us) * 10.0).round() / 10.0,
        "paced_p99_us": median(rounds.iter().filter_map(|f| f.paced_p99_us).collect()),
        "rates": rounds.iter().map(|f| f.rate.round()).collect::<Vec<_>>(),
    })
}

/// 99th percentile in microseconds where every client pauses before its next request.
fn paced(throng: &str, cores: Option<&String>, address: SocketAddr, options: &Options) -> Result<f64> {
    let output = on(cores, throng)
        .args(["load", "--threads", "1", "--json", "--require", "errors<0.01%"])
        .args(["--clients", &options.connections.to_string(), "--think", PAUSE])
        .args(["--duration", &format!("{}s", options.seconds)])
        .arg(format!("http://{address}/"))
        .output()
        .map_err(|e| format!("cannot start {throng} ({e})"))?;
    if !output.status.success() {
        return Err(format!("{address}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let result: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let p99 = result["result"]["latency"]["percentiles"]["99"].as_f64();
    Ok(p99.ok_or("throng load said nothing of the 99th percentile")?)
}

/// Processor time of a process and its children so far (proc(5): utime and stime, in ticks of 10 ms).
fn processor_micros(process: u32) -> f64 {
    const TICK_MICROS: f64 = 10_000.0;
    let read = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
    let stat = read("stat");
    // The name, which may contain blanks, ends with the last parenthesis.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum();
    let children = read(&format!("task/{process}/children"));
    let below: f64 =
        children.split_ascii_whitespace().filter_map(|c| c.parse().ok()).map(processor_micros).sum();
    ticks * TICK_MICROS + below
}

/// Requests, requests per second and the 99th percentile in microseconds, as `wrk` sees them.
fn wrk(
    cores: Option<&String>,
    address: SocketAddr,
    connections: u32,
    seconds: u32,
) -> Result<(f64, f64, f64)> {
    let output = on(cores, "wrk")
        .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "--latency"])
        .arg(format!("http://{address}/"))
        .output()
        .map_err(|e| format!("cannot start wrk ({e}); install the package wrk"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        return Err(format!("{address} gave errors:\n{text}").into());
    }
    let after = |label: &str| {
        text.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim).ok_or("wrk said nothing")
    };
    let requests = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in ")?.0.parse::<f64>().ok())
        .ok_or("wrk said nothing")?;
    Ok((requests, after("Requests/sec:")?.parse()?, micros(after("99%")?)?))
}

/// A latency as `wrk` prints it: `850.00us`, `1.50ms`, `2.00s`.
fn micros(text: &str) -> Result<f64> {
    let (number, scale) = match text {
        t if t.ends_with("us") => (&t[..t.len() - 2], 1.0),
        t if t.ends_with("ms") => (&t[..t.len() - 2], 1e3),
        t => (t.trim_end_matches('s'), 1e6),
    };
    Ok(number.parse::<f64>()? * scale)
}
