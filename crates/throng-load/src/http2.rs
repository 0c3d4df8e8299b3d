//! One HTTP/2 connection with one stream at a time, so that gRPC servers can be loaded too.

use crate::connection::{Target, Traffic};
use crate::error::ErrorKind;
use crate::template::Template;
use bytes::Bytes;
use h2::client::SendRequest;
use http::header::HeaderMap;
use std::sync::Arc;

/// Flow-control window of streams and connections: an answer up to this size needs no update in between.
const WINDOW_BYTES: u32 = 1 << 20;
/// gRPC's code for a call that ended without saying how.
const GRPC_UNKNOWN: u32 = 2;

pub(crate) struct Http2 {
    target: Arc<Target>,
    sender: Option<SendRequest<Bytes>>,
    turn: usize,
    /// `X-Replica` of the answer read last.
    pub replica: Option<String>,
    /// What the answer read last gives as gRPC's status, if it is one of gRPC.
    pub grpc_status: Option<u32>,
}

impl Http2 {
    pub fn new(target: Arc<Target>, turn: usize) -> Http2 {
        Http2 { target, sender: None, turn, replica: None, grpc_status: None }
    }

    pub fn disconnect(&mut self) {
        self.sender = None;
    }

    /// The head that all requests share.
    pub fn prepare(template: &Template, scheme: &str) -> Result<http::request::Parts, http::Error> {
        let mut builder = http::Request::builder()
            .method(template.method.as_str())
            .version(http::Version::HTTP_2)
            .uri(format!("{scheme}://{}{}", template.authority, template.path));
        for (name, value) in &template.fields {
            // Fields that HTTP/2 carries otherwise or forbids (RFC 9113, section 8.2.2).
            if !["host", "connection", "keep-alive", "upgrade"].contains(&name.to_ascii_lowercase().as_str())
            {
                builder = builder.header(name, value);
            }
        }
        Ok(builder.body(())?.into_parts().0)
    }

    /// Sends a request and reads the whole answer. The traffic counts bodies, not frames.
    pub async fn exchange(
        &mut self,
        head: &http::request::Parts,
        body: Bytes,
        traffic: &mut Traffic,
    ) -> Result<u16, ErrorKind> {
        (self.replica, self.grpc_status) = (None, None);
        let mut sender = match self.sender.take() {
            Some(sender) => match sender.ready().await {
                Ok(sender) => sender,
                Err(_) => self.connect().await?,
            },
            None => self.connect().await?,
        };
        let request = http::Request::from_parts(head.clone(), ());
        let (answer, mut stream) = sender.send_request(request, body.is_empty()).map_err(kind)?;
        traffic.sent += body.len() as u64;
        if !body.is_empty() {
            stream.send_data(body, true).map_err(kind)?;
        }
        let answer = answer.await.map_err(kind)?;
        let status = self.read(answer, traffic).await?;
        self.sender = Some(sender);
        Ok(status)
    }

    async fn connect(&mut self) -> Result<SendRequest<Bytes>, ErrorKind> {
        self.turn = self.turn.wrapping_add(1);
        let wire = self.target.dial(self.turn).await?;
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .enable_push(false)
            .handshake(wire)
            .await
            .map_err(kind)?;
        // Ends when the last sender is dropped; its error reaches the requests too.
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        sender.ready().await.map_err(kind)
    }

    async fn read(
        &mut self,
        answer: http::Response<h2::RecvStream>,
        traffic: &mut Traffic,
    ) -> Result<u16, ErrorKind> {
        let (head, mut body) = answer.into_parts();
        self.replica = head.headers.get("x-replica").and_then(|name| name.to_str().ok()).map(str::to_owned);
        while let Some(chunk) = body.data().await {
            let chunk = chunk.map_err(kind)?;
            traffic.received += chunk.len() as u64;
            body.flow_control().release_capacity(chunk.len()).map_err(kind)?;
        }
        let trailers = body.trailers().await.map_err(kind)?;
        self.grpc_status = grpc_status(&head.headers, trailers.as_ref());
        Ok(head.status.as_u16())
    }
}

/// How a gRPC call ended; None for an answer that is not gRPC.
fn grpc_status(head: &HeaderMap, trailers: Option<&HeaderMap>) -> Option<u32> {
    let kind = head.get(http::header::CONTENT_TYPE)?;
    if !kind.as_bytes().starts_with(b"application/grpc") {
        return None;
    }
    let status = trailers.and_then(|fields| fields.get("grpc-status")).or_else(|| head.get("grpc-status"));
    Some(status.and_then(|text| text.to_str().ok()?.parse().ok()).unwrap_or(GRPC_UNKNOWN))
}

fn kind(error: h2::Error) -> ErrorKind {
    match error.get_io() {
        Some(error) => ErrorKind::of_stream(error),
        None if error.is_go_away() || error.is_reset() => ErrorKind::Reset,
        None => ErrorKind::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_without_a_status_did_not_succeed() {
        let fields = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(n, v)| ((*n).parse().expect("name"), (*v).parse().expect("value"))).collect()
        };
        let grpc = ("content-type", "application/grpc+proto");
        for (head, trailers, expected) in [
            (fields(&[("content-type", "text/html")]), fields(&[("grpc-status", "5")]), None),
            (fields(&[grpc]), fields(&[("grpc-status", "0")]), Some(0)),
            (fields(&[grpc]), fields(&[("grpc-status", "14")]), Some(14)),
            (fields(&[grpc, ("grpc-status", "12")]), fields(&[]), Some(12)),
            (fields(&[grpc]), fields(&[]), Some(GRPC_UNKNOWN)),
            (fields(&[grpc]), fields(&[("grpc-status", "x")]), Some(GRPC_UNKNOWN)),
        ] {
            assert_eq!(grpc_status(&head, Some(&trailers)), expected, "{head:?} {trailers:?}");
        }
    }
}
