//! The first answer of a web server, asked for in the same way whoever started it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A packet that nobody took is sent again by the kernel only after a second, which would hide how soon the server
/// was there; so each attempt is given up after this.
const ATTEMPT: Duration = Duration::from_millis(20);
/// Between attempts. It is what a first answer can appear later than it came.
const EVERY: Duration = Duration::from_micros(300);
/// From a connection to its answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Waits until `GET /healthz` at the address is answered with 200, at most for `patience`.
pub fn first_answer(address: SocketAddr, patience: Duration) -> io::Result<()> {
    answer_by(address, patience, ATTEMPT)
}

/// The same, each attempt to connect given up after `attempt`.
pub fn answer_by(address: SocketAddr, patience: Duration, attempt: Duration) -> io::Result<()> {
    let end = Instant::now() + patience;
    loop {
        match ask(address, attempt) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => std::thread::sleep(EVERY),
        }
    }
}

fn ask(address: SocketAddr, attempt: Duration) -> io::Result<()> {
    const WANTED: &[u8] = b"HTTP/1.1 200 ";
    let mut stream = TcpStream::connect_timeout(&address, attempt)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(
        format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut start = [0; WANTED.len()];
    stream.read_exact(&mut start)?;
    if start != *WANTED {
        return Err(io::Error::other(format!("{address} answers {:?}", String::from_utf8_lossy(&start))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answering(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a client");
                let mut request = [0; 4096];
                let read = stream.read(&mut request).expect("a request");
                assert!(request[..read].starts_with(b"GET /healthz HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).expect("the client listens");
            }
        });
        address
    }

    #[test]
    fn only_a_200_is_an_answer() {
        let patience = Duration::from_millis(50);
        first_answer(answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), patience)
            .expect("it answers");
        let error = first_answer(answering("HTTP/1.1 503 Later\r\n\r\n"), patience).expect_err("it does not");
        assert!(error.to_string().contains("503"), "{error}");
    }

    #[test]
    fn patience_ends() {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
        first_answer(free, Duration::from_millis(5)).expect_err("nobody listens");
    }
}
