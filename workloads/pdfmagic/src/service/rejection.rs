//! Everything a request can come to, with its status and its label in the metrics.

use crate::convert::ConvertError;
use axum::http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

/// Seconds after which a client may try again when this replica is full; its requests take milliseconds.
const RETRY_AFTER_SECONDS: &str = "1";

/// How a conversion request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Converted,
    /// The request is not a form with a file in it.
    BadRequest,
    /// The client sent too slowly.
    SlowClient,
    /// More bytes or pixels than allowed.
    TooLarge,
    /// Neither JPEG nor PNG.
    UnsupportedType,
    /// A damaged image, or one that PDF cannot hold.
    Unprocessable,
    /// Too many requests at once, or this one took too long.
    Overloaded,
    /// Something on this side, as a full disk.
    Failed,
}

impl Outcome {
    pub const ALL: [Outcome; 8] = [
        Outcome::Converted,
        Outcome::BadRequest,
        Outcome::SlowClient,
        Outcome::TooLarge,
        Outcome::UnsupportedType,
        Outcome::Unprocessable,
        Outcome::Overloaded,
        Outcome::Failed,
    ];

    /// The label in the metrics.
    pub fn label(self) -> &'static str {
        match self {
            Outcome::Converted => "converted",
            Outcome::BadRequest => "bad_request",
            Outcome::SlowClient => "slow_client",
            Outcome::TooLarge => "too_large",
            Outcome::UnsupportedType => "unsupported_type",
            Outcome::Unprocessable => "unprocessable",
            Outcome::Overloaded => "overloaded",
            Outcome::Failed => "failed",
        }
    }

    pub fn status(self) -> StatusCode {
        match self {
            Outcome::Converted => StatusCode::OK,
            Outcome::BadRequest => StatusCode::BAD_REQUEST,
            Outcome::SlowClient => StatusCode::REQUEST_TIMEOUT,
            Outcome::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Outcome::UnsupportedType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Outcome::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
            Outcome::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Outcome::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// A request that was not converted, with a sentence for the person who sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub outcome: Outcome,
    pub sentence: String,
    /// The request has not been read to its end, so its connection is closed after the answer.
    pub unread: bool,
}

impl Rejection {
    pub fn new(outcome: Outcome, sentence: impl Into<String>) -> Self {
        Rejection { outcome, sentence: sentence.into(), unread: false }
    }
}

impl From<ConvertError> for Rejection {
    fn from(error: ConvertError) -> Self {
        let outcome = match error {
            ConvertError::NotAnImage { .. } => Outcome::UnsupportedType,
            ConvertError::TooManyPixels { .. }
            | ConvertError::TooMuchMemory { .. }
            | ConvertError::PdfTooLarge { .. } => Outcome::TooLarge,
            ConvertError::Unsupported { .. } | ConvertError::Damaged { .. } => Outcome::Unprocessable,
            ConvertError::OutOfTime => Outcome::Overloaded,
        };
        Rejection::new(outcome, error.to_string())
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let mut response = text(self.outcome.status(), self.sentence);
        if self.unread {
            // Said beforehand: a balancer that keeps connections would send the next request on this one.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if self.outcome == Outcome::Overloaded {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        response
    }
}

/// A sentence on a line of its own.
pub fn text(status: StatusCode, mut sentence: String) -> Response {
    sentence.push('\n');
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], sentence).into_response()
}
