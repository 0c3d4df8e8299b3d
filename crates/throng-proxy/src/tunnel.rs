//! Bytes both ways until both sides have ended: TCP services and connections that left HTTP.

use crate::backends::{Lease, Unavailable};
use crate::buffer::Buffer;
use crate::pool::connect;
use crate::tries::{Miss, Tries};
use crate::worker::Context;
use std::sync::atomic::Ordering::Relaxed;
use tokio::io::{AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;

/// Bytes read at once in each direction.
const TUNNEL_BUFFER: usize = 16 << 10;

/// Leases a backend and connects to it; another one takes the place of one that cannot be reached.
pub(crate) async fn open(context: &Context) -> Result<(TcpStream, Lease), Unavailable> {
    let mut tries = Tries::new(&context.shared);
    loop {
        let lease = tries.lease().await?;
        let miss = match connect(&context.shared, context.worker, &lease.backend).await {
            Ok(stream) => return Ok((stream, lease)),
            Err(error) => Miss::of_connecting(&error, lease.backend.clone()),
        };
        drop(lease);
        if !tries.again(miss).await {
            return Err(Unavailable::AllTried);
        }
    }
}

/// Serves a client whose protocol nobody here needs to understand.
pub(crate) async fn serve(context: Context, client: TcpStream, input: Buffer) {
    context.shared.counters.requests.fetch_add(1, Relaxed);
    match open(&context).await {
        Ok((backend, lease)) => run((client, input), (backend, Buffer::default()), lease).await,
        Err(_) => {
            context.shared.counters.failed.fetch_add(1, Relaxed);
            // A reset is the only way to say "refused" to a client that is connected already.
            let _ = client.set_zero_linger();
        }
    }
}

/// Carries bytes between the two, beginning with those already read from each.
///
/// The end of one direction is passed on while the other goes on (half-close); a reset of either side resets the
/// other, so that a broken stream is never taken for a finished one.
pub(crate) async fn run(client: (TcpStream, Buffer), backend: (TcpStream, Buffer), lease: Lease) {
    let ((mut client, from_client), (mut backend, from_backend)) = (client, backend);
    let carried = async {
        backend.write_all(from_client.filled()).await?;
        client.write_all(from_backend.filled()).await?;
        copy_bidirectional_with_sizes(&mut client, &mut backend, TUNNEL_BUFFER, TUNNEL_BUFFER).await
    }
    .await;
    if carried.is_err() {
        // Either call fails only if its connection is gone already.
        let _ = client.set_zero_linger();
        let _ = backend.set_zero_linger();
    }
    drop(lease);
}
