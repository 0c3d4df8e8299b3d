//! The smallest server that a crowd can consist of: one thread, and 200 for whatever is asked. `static_server PORT`.
//! It uses nothing but the standard library, so that `rustc` alone makes a static program of it.

use std::io::{Read, Write};
use std::net::TcpListener;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";

fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(8080u16);
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    loop {
        // A client that goes away before it is answered concerns nobody else.
        let Ok((mut client, _)) = listener.accept() else { continue };
        let _ = client.read(&mut [0; 1024]).and_then(|_| client.write_all(ANSWER));
    }
}
