//! The program inside the tests' images: one static file that does what its first argument says.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

unsafe extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
    fn fork() -> i32;
    fn pause() -> i32;
    fn mknod(path: *const std::ffi::c_char, mode: u32, device: u64) -> i32;
    fn socket(domain: i32, kind: i32, protocol: i32) -> i32;
    fn setsockopt(socket: i32, level: i32, name: i32, value: *const i32, length: u32) -> i32;
    fn bind(socket: i32, address: *const u8, length: u32) -> i32;
    fn umount2(target: *const u8, flags: i32) -> i32;
    fn setns(fd: i32, kind: i32) -> i32;
}

/// Listens at an address like `0.0.0.0:80` and answers every connection with this replica's name.
fn serve(address: &str) -> ! {
    let listener = TcpListener::bind(address).expect("bind");
    let answer = std::env::var("ANSWER").unwrap_or("ok".into()) + "\n";
    loop {
        if let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(answer.as_bytes());
        }
    }
}

/// Binds a socket for IPv6 alone to every address, as nginx does beside its socket for IPv4.
fn bind_ipv6_alone(port: u16) {
    const AF_INET6: i32 = 10;
    const SOCK_STREAM: i32 = 1;
    const IPPROTO_IPV6: i32 = 41;
    const IPV6_V6ONLY: i32 = 26;
    let mut address = [0u8; 28];
    address[..2].copy_from_slice(&(AF_INET6 as u16).to_ne_bytes());
    address[2..4].copy_from_slice(&port.to_be_bytes());
    let on = 1;
    unsafe {
        let socket = socket(AF_INET6, SOCK_STREAM, 0);
        assert_eq!(setsockopt(socket, IPPROTO_IPV6, IPV6_V6ONLY, &on, 4), 0);
        assert_eq!(bind(socket, address.as_ptr(), 28), 0, "{}", std::io::Error::last_os_error());
    }
}

fn names(folder: &str) -> String {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return error.to_string(),
    };
    let mut names: Vec<_> =
        entries.map(|e| e.expect("an entry").file_name().into_string().expect("a name")).collect();
    names.sort();
    names.join(" ")
}

/// Leaves a root by way of a folder that is not below the next one (chroot(2), "this call does not change the current
/// working directory"), and says what is seen then.
fn escape_by_chroot() {
    std::fs::create_dir_all("/jail").expect("a folder");
    std::os::unix::fs::chroot("/jail").expect("the privilege to change the root");
    for _ in 0..100 {
        std::env::set_current_dir("..").expect("a parent");
    }
    std::os::unix::fs::chroot(".").expect("the privilege to change the root");
    println!("{}", names("/"));
}

/// Takes away one mount after another from over the root of the namespace, and says each time what is seen then.
fn escape_by_unmounting(writing: bool) {
    use std::os::fd::AsRawFd;
    const MNT_DETACH: i32 = 2;
    const CLONE_NEWNS: i32 = 0x2_0000;
    let namespace = std::fs::File::open("/proc/self/ns/mnt").expect("the namespace");
    for _ in 0..4 {
        let (gone, entered) =
            unsafe { (umount2(c"/".as_ptr().cast(), MNT_DETACH), setns(namespace.as_raw_fd(), CLONE_NEWNS)) };
        assert_eq!(entered, 0, "{}", std::io::Error::last_os_error());
        println!("{gone}: {}; {}", names("/"), writing && std::fs::write("/new", "x").is_err());
    }
}

fn main() {
    let mut args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|order| order == "later") {
        std::thread::sleep(Duration::from_secs(args[2].parse().expect("a number")));
        args.drain(1..3);
    }
    let argument = args.get(2).map(String::as_str).unwrap_or_default();
    match args.get(1).map(String::as_str).unwrap_or_default() {
        "serve" => serve(if argument.is_empty() { "0.0.0.0:80" } else { argument }),
        "serve-both" => {
            bind_ipv6_alone(argument.parse().expect("a port"));
            serve(&format!("0.0.0.0:{argument}"))
        }
        "echo" => {
            let socket = UdpSocket::bind(argument).expect("bind");
            let mut buffer = [0u8; 100];
            loop {
                let (_, client) = socket.recv_from(&mut buffer).expect("a datagram");
                let _ = socket.send_to(std::env::var("ANSWER").unwrap_or_default().as_bytes(), client);
            }
        }
        "ask" => {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
            socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
            let mut buffer = [0u8; 100];
            let answer = socket.connect(argument).and_then(|()| socket.send(b"?")).and_then(|_| socket.recv(&mut buffer));
            match answer {
                Ok(length) => println!("{}", String::from_utf8_lossy(&buffer[..length])),
                Err(error) => println!("{error}"),
            }
        }
        "hear" => {
            let group: Ipv4Addr = argument.parse().expect("a group");
            let socket = UdpSocket::bind((group, 5353)).expect("bind");
            socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED).expect("joined");
            std::thread::spawn(|| serve("0.0.0.0:80"));
            let mut buffer = [0u8; 100];
            loop {
                let (length, _) = socket.recv_from(&mut buffer).expect("a datagram");
                println!("{}", String::from_utf8_lossy(&buffer[..length]));
            }
        }
        "tell" => {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
            socket.send_to(args[3].as_bytes(), (argument, 5353)).expect("sent");
        }
        "print" => println!("{argument}"),
        "print-for-ever" => loop {
            println!("{argument}");
            std::thread::sleep(Duration::from_millis(1));
        },
        "exit" => std::process::exit(argument.parse().expect("a number")),
        "sleep" => std::thread::sleep(Duration::from_secs(argument.parse().expect("a number"))),
        "stubborn" => {
            unsafe { signal(15, 1) };
            println!("ready");
            loop {
                unsafe { pause() };
            }
        }
        "cat" => {
            for path in &args[2..] {
                match std::fs::read(path) {
                    Ok(bytes) => {
                        let _ = std::io::stdout().write_all(&bytes);
                    }
                    Err(error) => println!("{path}: {error}"),
                }
            }
        }
        "mode" => {
            use std::os::unix::fs::MetadataExt;
            let found = std::fs::metadata(argument).expect("a path");
            println!("{:o} {} {}", found.mode() & 0o7777, found.uid(), found.gid());
        }
        "question" => {
            let name = args[3].as_bytes();
            let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u8];
            question.extend(name);
            question.extend([0, 0, 1, 0, 1]);
            let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
            socket.set_read_timeout(Some(Duration::from_secs(8))).expect("a timeout");
            let mut buffer = [0u8; 512];
            let answer = socket.connect(argument).and_then(|()| socket.send(&question)).and_then(|_| socket.recv(&mut buffer));
            match answer {
                Ok(_) => println!("{}", buffer[3] & 0xf),
                Err(error) => println!("{error}"),
            }
        }
        "list" => println!("{}", names(argument)),
        order @ ("flood" | "spill") => {
            let mut out = std::io::BufWriter::new(std::io::stdout());
            for number in 0..argument.parse::<u32>().expect("a number") {
                writeln!(out, "{number:<999}").expect("written");
            }
            out.flush().expect("written");
            if order == "flood" {
                std::thread::sleep(Duration::from_secs(60));
            }
        }
        "fill" => {
            let mut file = std::fs::File::create(argument).expect("a file");
            let mut written = 0;
            let error = loop {
                match file.write(&[1u8; 16 << 10]) {
                    Ok(count) => written += count,
                    Err(error) => break error,
                }
            };
            println!("{written} {}", error.raw_os_error().unwrap_or_default());
        }
        "escape-by-chroot" => escape_by_chroot(),
        "escape-by-unmounting" => escape_by_unmounting(argument == "writing"),
        "write" => match std::fs::write(argument, args.get(3).map(String::as_str).unwrap_or_default()) {
            Ok(()) => println!("written"),
            Err(error) => println!("{error}"),
        },
        "env" => std::env::vars().for_each(|(key, value)| println!("{key}={value}")),
        "whoami" => {
            let status = std::fs::read_to_string("/proc/self/status").expect("status");
            status.lines().filter(|l| l.starts_with("Uid") || l.starts_with("Gid")).for_each(|l| println!("{l}"));
        }
        "dial" => {
            let mut text = String::new();
            let answer = TcpStream::connect(argument).and_then(|mut s| s.read_to_string(&mut text));
            match answer {
                Ok(_) => print!("{text}"),
                Err(error) => println!("{error}"),
            }
        }
        "eat" => {
            let mut eaten = Vec::new();
            loop {
                eaten.push(vec![1u8; 1 << 20]);
                std::hint::black_box(&eaten);
            }
        }
        // Makes the node of a character device and opens it for writing.
        "open-node" => {
            let path = std::ffi::CString::new(argument).expect("a path");
            let number = |n: usize| args[n].parse::<u64>().expect("a number");
            // makedev(3), of small numbers.
            let made = unsafe { mknod(path.as_ptr(), 0o020600, number(3) << 8 | number(4)) };
            let made = if made == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
            match made.and_then(|()| std::fs::OpenOptions::new().write(true).open(argument)) {
                Ok(_) => println!("opened"),
                Err(error) => {
                    println!("{error}");
                    std::process::exit(1);
                }
            }
        }
        "forks" => {
            let mut count = 0;
            while count < 10_000 {
                match unsafe { fork() } {
                    0 => loop {
                        unsafe { pause() };
                    },
                    -1 => break,
                    _ => count += 1,
                }
            }
            println!("forks {count}");
        }
        other => {
            eprintln!("unknown order {other:?}");
            std::process::exit(64);
        }
    }
}
