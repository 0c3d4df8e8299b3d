//! One connection to a supervisor: requests and replies as lines of JSON.

use super::{ClientError, Result};
use crate::protocol::{MESSAGE_MOST, Reply, Request};
use async_trait::async_trait;
use std::os::fd::BorrowedFd;
use throng_runtime::cluster::{Feed, FeedStream};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Events, counts and samples as they come.
pub struct Watch {
    exchange: Exchange,
}

impl Watch {
    pub(super) fn new(exchange: Exchange) -> Watch {
        Watch { exchange }
    }
}

#[async_trait]
impl FeedStream for Watch {
    async fn next(&mut self) -> Option<Feed> {
        loop {
            return match self.exchange.next().await.ok()? {
                Reply::Event { event } => Some(Feed::Event(event)),
                Reply::Counts { at, services } => Some(Feed::Counts { at, services }),
                Reply::Samples { at, samples } => Some(Feed::Samples { at, samples }),
                _ => continue,
            };
        }
    }
}

/// Ties an app to this value: see [`super::Client::lease`].
pub struct Lease {
    exchange: Exchange,
}

impl Lease {
    pub(super) fn new(exchange: Exchange) -> Lease {
        Lease { exchange }
    }

    /// Gives the lease up; the app stays.
    pub async fn release(mut self) -> Result<()> {
        self.exchange.send(&Request::Release).await?;
        self.exchange.next().await.map(|_| ())
    }
}

pub(super) struct Exchange {
    stream: BufReader<UnixStream>,
    project: String,
}

impl Exchange {
    pub fn new(stream: UnixStream, project: String) -> Exchange {
        Exchange { stream: BufReader::new(stream), project }
    }

    fn lost(&self, source: std::io::Error) -> ClientError {
        ClientError::Lost { project: self.project.clone(), source }
    }

    pub async fn send(&mut self, request: &Request) -> Result<()> {
        let mut line = serde_json::to_vec(request).map_err(|error| self.lost(error.into()))?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).await.map_err(|error| self.lost(error))
    }

    /// The next reply; a refusal is an error.
    pub async fn next(&mut self) -> Result<Reply> {
        let mut line = String::new();
        let read = (&mut self.stream).take(MESSAGE_MOST as u64).read_line(&mut line).await;
        if read.map_err(|error| self.lost(error))? == 0 {
            return Err(self.lost(std::io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_str(&line).map_err(|error| self.lost(error.into()))? {
            Reply::Error { error } => Err(ClientError::Refused(error)),
            reply => Ok(reply),
        }
    }

    pub async fn send_descriptors(&mut self, descriptors: [BorrowedFd<'_>; 3]) -> Result<()> {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        let stream = self.stream.get_ref();
        let sent = stream.async_io(tokio::io::Interest::WRITABLE, || {
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
            let byte = [std::io::IoSlice::new(b"d")];
            sendmsg(stream, &byte, &mut ancillary, SendFlags::NOSIGNAL)?;
            Ok(())
        });
        let sent = sent.await;
        sent.map_err(|error| self.lost(error))
    }
}
