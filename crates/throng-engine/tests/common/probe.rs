//! The program inside the tests' images: one static file that does what its first argument says.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

unsafe extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
    fn fork() -> i32;
    fn pause() -> i32;
}

fn serve(port: u16) -> ! {
    let address = std::env::var("THRONG_ADDRESS").unwrap_or("0.0.0.0".into());
    let listener = TcpListener::bind((address.as_str(), port)).expect("bind");
    loop {
        if let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(b"ok\n");
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let argument = args.get(2).map(String::as_str).unwrap_or_default();
    match args.get(1).map(String::as_str).unwrap_or_default() {
        "serve" => serve(argument.parse().unwrap_or(80)),
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
        "list" => {
            let mut names: Vec<_> = std::fs::read_dir(argument)
                .expect("a folder")
                .map(|e| e.expect("an entry").file_name().into_string().expect("a name"))
                .collect();
            names.sort();
            println!("{}", names.join(" "));
        }
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
