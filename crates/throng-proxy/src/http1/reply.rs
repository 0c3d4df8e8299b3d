//! Answers that the balancer gives in its own name: a status and one plain sentence.

use super::exchange::Failure;
use super::head::Refusal;
use crate::backends::Unavailable;
use std::io::Write;

/// Seconds after which a client may ask again when no replica is ready.
pub(crate) const RETRY_AFTER: u32 = 1;

/// 503 and not 502 where no replica was given the request: it can be sent again, whatever it asks for.
const NOBODY: (u16, &str) = (503, "No replica of this service accepts connections.");

/// The status and sentence for a request that nobody could take; HTTP/2 says the same.
pub(crate) fn sentence_for(why: Unavailable) -> (u16, &'static str) {
    match why {
        Unavailable::TimedOut => (503, "No replica of this service became ready in time."),
        Unavailable::TooManyHeld => {
            (503, "No replica of this service is ready, and as many requests as allowed are waiting for one.")
        }
        Unavailable::AllTried => NOBODY,
        Unavailable::Closing => (503, "This service is shutting down."),
    }
}

pub(super) fn unavailable(why: Unavailable) -> Refusal {
    let (status, sentence) = sentence_for(why);
    Refusal { status, sentence }
}

pub(super) fn failed(failure: Failure) -> Refusal {
    let (status, sentence) = match failure {
        Failure::NotSent => NOBODY,
        Failure::NoResponse | Failure::Reset => (502, "The replica closed its connection without an answer."),
        Failure::BadResponse(_) => (502, "The replica gave an answer that is not complete, valid HTTP."),
        Failure::Late => (504, "The replica did not answer in time."),
        Failure::ClientSlow => (408, "The request's body took too long to arrive."),
        Failure::BadRequestBody => (400, "The request's chunks are not well formed."),
        Failure::ClientLeft => (499, "The client closed the connection."),
    };
    Refusal { status, sentence }
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Error")
}

/// Appends the whole answer to `out`; the answer to HEAD has no body but says how long it would be.
pub(super) fn write(refusal: Refusal, close: bool, is_head: bool, out: &mut Vec<u8>) {
    let Refusal { status, sentence } = refusal;
    // Writing to a vector cannot fail.
    let _ = write!(
        out,
        "HTTP/1.1 {status} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n",
        reason(status),
        sentence.len() + 1
    );
    if status == 503 {
        let _ = write!(out, "Retry-After: {RETRY_AFTER}\r\n");
    }
    let connection = if close { "close" } else { "keep-alive" };
    let _ = write!(out, "Connection: {connection}\r\n\r\n");
    if !is_head {
        let _ = writeln!(out, "{sentence}");
    }
}
