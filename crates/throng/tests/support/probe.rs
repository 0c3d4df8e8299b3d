//! The program inside the tests' images: one static file that does what its first argument says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Whether `/healthz` answers 200.
static WELL: AtomicBool = AtomicBool::new(true);
/// Whether nothing is answered any more.
static HANGS: AtomicBool = AtomicBool::new(false);

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Answers HTTP/1.1 with this replica's name; the path says how.
fn serve(port: u16) -> ! {
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("a free port");
    println!("serving");
    loop {
        if let Ok((stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                // A client that leaves in the middle is no concern of the next one.
                let _ = answer_all(stream);
            });
        }
    }
}

fn answer_all(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let name = host_name();
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let path = first.split(' ').nth(1).unwrap_or("/").to_owned();
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink())?;
        let (route, argument) = path.split_once('?').unwrap_or((&path, ""));
        let milliseconds = Duration::from_millis(argument.parse().unwrap_or(0));
        let (mut status, mut body) = ("200 OK", name.clone());
        match route {
            "/slow" => std::thread::sleep(milliseconds),
            "/say" => println!("{argument}"),
            "/spin" => spin(milliseconds),
            // Of its own, for whoever scrapes it.
            "/metrics" => body = format!("probe_info{{name=\"{name}\"}} 1\n"),
            "/sick" => WELL.store(false, Ordering::SeqCst),
            "/hang" => HANGS.store(true, Ordering::SeqCst),
            _ if HANGS.load(Ordering::SeqCst) => std::thread::sleep(Duration::from_secs(3_600)),
            "/healthz" if !WELL.load(Ordering::SeqCst) => status = "503 Service Unavailable",
            "/drip" => {
                // Promises more than it sends before it sleeps.
                let out = reader.get_mut();
                write!(out, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbeginning")?;
                out.flush()?;
                std::thread::sleep(milliseconds);
                out.write_all(&[b'.'; 991])?;
                continue;
            }
            _ => {}
        }
        let out = reader.get_mut();
        write!(
            out,
            "HTTP/1.1 {status}\r\nX-Replica: {name}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        out.flush()?;
    }
}

/// Uses a core.
fn spin(time: Duration) {
    let begin = std::time::Instant::now();
    while begin.elapsed() < time {}
}

/// One request; the status and the body.
fn get(address: impl ToSocketAddrs, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let status = first.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = String::new();
    reader.take(length).read_to_string(&mut body)?;
    Ok((status, body))
}

/// The addresses behind a name, sorted, on one line; empty if there are none.
fn resolve(name: &str) -> String {
    let found = (name, 1u16).to_socket_addrs();
    let mut addresses: Vec<String> = found.into_iter().flatten().map(|a| a.ip().to_string()).collect();
    addresses.sort();
    addresses.dedup();
    addresses.join(" ")
}

/// One index of a job, which notes in a folder what it does. The lowest indexes fail the first time.
fn work(folder: &str, failing: u32, milliseconds: u64) {
    let index: u32 = std::env::var("JOB_COMPLETION_INDEX").ok().and_then(|text| text.parse().ok()).expect("an index");
    let note = |file: &str, text: String| {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(format!("{folder}/{file}"));
        file.and_then(|mut file| file.write_all(format!("{text}\n").as_bytes())).expect("a file");
    };
    note("starts", index.to_string());
    let (running, failed) = (format!("{folder}/running"), format!("{folder}/failed-{index}"));
    std::fs::create_dir_all(&running).expect("a folder");
    let own = format!("{running}/{index}");
    std::fs::write(&own, "").expect("a file");
    note("abreast", std::fs::read_dir(&running).expect("listed").count().to_string());
    std::thread::sleep(Duration::from_millis(milliseconds));
    while std::path::Path::new(&format!("{folder}/hold")).exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::fs::remove_file(&own).expect("a file");
    if index < failing && !std::path::Path::new(&failed).exists() {
        std::fs::write(&failed, "").expect("a file");
        std::process::exit(3);
    }
    note("done", index.to_string());
}

/// Says something, and how it is said is what the order is about. `false` for any other order.
fn talk(args: &[String]) -> bool {
    let word = |n: usize| args.get(n).map(String::as_str).unwrap_or_default();
    let count = || word(2).parse::<u32>().expect("a number");
    match word(1) {
        "print" => println!("{}", args[2..].join(" ")),
        "lines" => (1..=count()).for_each(|n| println!("line {n}")),
        // As fast as it can, then stays.
        "flood" => {
            (1..=count()).for_each(|n| println!("{} line {n}", "x".repeat(80)));
            std::thread::sleep(Duration::from_secs(3_600));
        }
        // Prints, then stays.
        "say" => {
            println!("{}", args[2..].join(" "));
            std::thread::sleep(Duration::from_secs(3_600));
        }
        "complain" => {
            (1..=count()).for_each(|n| eprintln!("complaint {n}"));
            std::process::exit(word(3).parse().expect("a code"));
        }
        "terminal" => println!("terminal: {}", std::io::IsTerminal::is_terminal(&std::io::stdout())),
        "cat" => {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::stdout());
        }
        "read" => print!("{}", std::fs::read_to_string(word(2)).unwrap_or_else(|error| error.to_string())),
        "env" => println!("{}", std::env::var(word(2)).unwrap_or_else(|_| "unset".into())),
        "where" => println!("{}", std::env::current_dir().expect("a folder").display()),
        _ => return false,
    }
    true
}

/// Has to do with others in its network. `false` for any other order.
fn meet(args: &[String]) -> bool {
    let word = |n: usize| args.get(n).map(String::as_str).unwrap_or_default();
    match word(1) {
        "serve" => serve(word(2).parse().expect("a port")),
        // Does something else after so many milliseconds.
        "late" => {
            use std::os::unix::process::CommandExt;
            std::thread::sleep(Duration::from_millis(word(2).parse().expect("milliseconds")));
            panic!("{}", std::process::Command::new("/proc/self/exe").args(&args[3..]).exec());
        }
        // Takes connections for so many milliseconds, then none, and stays.
        "listen" => {
            let listener = TcpListener::bind(("0.0.0.0", word(2).parse::<u16>().expect("a port")));
            let listener = listener.expect("a free port");
            std::thread::sleep(Duration::from_millis(word(3).parse().expect("milliseconds")));
            drop(listener);
            std::thread::sleep(Duration::from_secs(3_600));
        }
        "healthy" => {
            let port: u16 = word(2).parse().expect("a port");
            let well = get(("127.0.0.1", port), "/healthz").is_ok_and(|(status, _)| status == 200);
            std::process::exit(if well { 0 } else { 1 });
        }
        "get" => match get(word(2), word(3)) {
            Ok((status, body)) => println!("{status} {body}"),
            Err(error) => {
                eprintln!("{error}");
                std::process::exit(1);
            }
        },
        "resolve" => println!("{}", resolve(word(2))),
        // Connects, with little patience.
        "dial" => {
            let address = word(2).parse().expect("an address");
            match TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
                Ok(_) => println!("reached"),
                Err(error) => println!("{error}"),
            }
        }
        // To everybody in its network, again and again.
        "shout" => {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.set_broadcast(true).expect("allowed");
            let pause = Duration::from_millis(word(3).parse().expect("milliseconds"));
            loop {
                // A full queue of its own is no reason to end.
                let _ = socket.send_to(b"who is there", word(2));
                std::thread::sleep(pause);
            }
        }
        // One datagram to each of so many addresses, from the given one on.
        "greet" => {
            let first: std::net::Ipv4Addr = word(2).parse().expect("an address");
            let mut socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
            for number in 0..word(3).parse().expect("a number") {
                // A socket waits while a few hundred datagrams of its own wait for who they are to.
                if number % 100 == 0 {
                    socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
                }
                let _ = socket.send_to(b"hello", (std::net::Ipv4Addr::from(u32::from(first) + number), 9));
            }
        }
        _ => return false,
    }
    true
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if talk(&args) || meet(&args) {
        return;
    }
    let word = |n: usize| args.get(n).map(String::as_str).unwrap_or_default();
    match word(1) {
        "spin" => spin(Duration::MAX),
        "exit" => std::process::exit(word(2).parse().expect("a code")),
        "sleep" => std::thread::sleep(Duration::from_secs(word(2).parse().expect("seconds"))),
        // Makes more of itself without end.
        "breed" => loop {
            let _ = std::process::Command::new("/probe").arg("breed").spawn();
            std::thread::sleep(Duration::from_millis(1));
        },
        "eat" => {
            let mut eaten = Vec::new();
            for _ in 0..word(2).parse().expect("megabytes") {
                eaten.push(vec![1u8; 1 << 20]);
                std::hint::black_box(&eaten);
            }
            std::thread::sleep(Duration::from_secs(3_600));
        }
        "append" => {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(word(2));
            file.and_then(|mut file| writeln!(file, "{}", word(3))).expect("a file that can be written");
        }
        "work" => work(word(2), word(3).parse().expect("a number"), word(4).parse().expect("milliseconds")),
        other => {
            eprintln!("unknown order {other:?}");
            std::process::exit(64);
        }
    }
}
