//! A new client connection on its way to the protocol that serves it.

use crate::buffer::Buffer;
use crate::detect::{Guess, guess};
use crate::worker::Context;
use crate::{ProtocolHint, h2c, http1, tunnel};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// More than any first bytes that leave the protocol undecided.
const DETECT_BYTES: usize = 64;

/// Serves one client from its first byte to its last.
pub(crate) async fn serve(context: Context, mut client: TcpStream, peer: SocketAddr, hint: ProtocolHint) {
    let mut input = Buffer::default();
    let limits = &context.shared.limits;
    let found = match hint {
        ProtocolHint::Tcp => Guess::Tcp,
        ProtocolHint::Http2 => Guess::Http2,
        ProtocolHint::Http => match first_bytes(&mut client, &mut input, limits.keep_alive).await {
            Some(Guess::Http2) => Guess::Http2,
            // Whatever it is, it is judged, and refused in words, as HTTP/1.
            Some(_) => Guess::Http1,
            None => return,
        },
        ProtocolHint::Detect => match first_bytes(&mut client, &mut input, limits.detect_timeout).await {
            Some(Guess::Undecided) if input.is_empty() => return silent(context, client, peer).await,
            Some(found) => found,
            None => return,
        },
    };
    dispatch(context, client, peer, found, input).await
}

async fn dispatch(context: Context, client: TcpStream, peer: SocketAddr, found: Guess, input: Buffer) {
    match found {
        Guess::Http1 => http1::serve(context, client, peer, input).await,
        Guess::Http2 => h2c::serve(context, client, peer, input).await,
        Guess::Tcp | Guess::Undecided => tunnel::serve(context, client, input).await,
    }
}

/// Reads until the protocol is clear or `patience` is at its end. `None`: the client is gone.
async fn first_bytes(client: &mut TcpStream, input: &mut Buffer, patience: Duration) -> Option<Guess> {
    let deadline = Instant::now() + patience;
    loop {
        match timeout_at(deadline, input.read_from(client, DETECT_BYTES)).await {
            Err(_) => return Some(Guess::Undecided),
            Ok(Ok(n)) if n > 0 => {}
            // One that sent a little and then ended its direction still waits for an answer to that.
            Ok(Ok(_)) if !input.is_empty() => return Some(Guess::Tcp),
            Ok(_) => return None,
        }
        match guess(input.filled()) {
            Guess::Undecided if !input.is_full(DETECT_BYTES) => {}
            found => return Some(found),
        }
    }
}

/// A client that says nothing: perhaps the server speaks first, perhaps a browser connected ahead of time.
///
/// A backend is connected, and whoever speaks first decides. If that is the client, its protocol is told from its
/// bytes as usual, and the backend's unused connection is closed unless it is needed as it is.
async fn silent(context: Context, mut client: TcpStream, peer: SocketAddr) {
    let opened = tokio::select! {
        biased;
        opened = tunnel::open(&context) => opened,
        _ = client.readable() => {
            let mut input = Buffer::default();
            let patience = context.shared.limits.detect_timeout;
            if let Some(found) = first_bytes(&mut client, &mut input, patience).await {
                dispatch(context, client, peer, found, input).await;
            }
            return;
        }
    };
    let Ok((backend, lease)) = opened else {
        // A reset is the only way to say "refused" to a client that is connected already.
        let _ = client.set_zero_linger();
        return;
    };
    let mut input = Buffer::default();
    tokio::select! {
        biased;
        _ = backend.readable() => {}
        _ = client.readable() => {
            let patience = context.shared.limits.detect_timeout;
            match first_bytes(&mut client, &mut input, patience).await {
                Some(found @ (Guess::Http1 | Guess::Http2)) => {
                    drop((backend, lease));
                    return dispatch(context, client, peer, found, input).await;
                }
                Some(Guess::Tcp | Guess::Undecided) => {}
                None => return,
            }
        }
    }
    context.shared.counters.requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    tunnel::run((client, input), (backend, Buffer::default()), lease).await;
}
