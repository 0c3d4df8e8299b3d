//! From a request to the bytes of an image, never more of them than allowed.

use super::rejection::{Outcome, Rejection};
use axum::body::Body;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use std::time::Duration;
use tokio::time::Instant;

/// Name of the form's file field.
pub const FIELD: &str = "myfile";

/// What a form may weigh beyond its file: boundaries, headers, other fields.
const FORM_OVERHEAD: usize = 64 << 10;

/// Memory for a body is taken as it arrives, beginning with at most this much: a Content-Length is only a claim.
const FIRST_RESERVE: usize = 1 << 20;

/// A request that is refused before it was read is read on for so long and so far, and thrown away: a client that is
/// still sending when its connection closes sees a reset instead of the answer.
const DISCARD_TIME: Duration = Duration::from_secs(2);
const DISCARD_BYTES: usize = 64 << 20;

/// An image as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    pub bytes: Bytes,
    /// The client's name for the file; nothing but a hint.
    pub file_name: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Form,
    Raw,
}

/// Reads an upload: a form with the file in [`FIELD`], or the image itself as the body.
pub async fn read(request: Request, max_bytes: usize, deadline: Instant) -> Result<Upload, Rejection> {
    let (parts, mut body) = request.into_parts();
    let result = match kind(&parts.headers) {
        Ok(kind) => {
            let limit = if kind == Kind::Form { max_bytes + FORM_OVERHEAD } else { max_bytes };
            collect(&mut body, &parts.headers, limit, max_bytes, deadline).await.map(|bytes| (kind, bytes))
        }
        Err(rejection) => Err(rejection),
    };
    let (kind, bytes) = match result {
        Ok(read) => read,
        Err(rejection) => {
            let whole = rejection.outcome != Outcome::SlowClient && discard(body).await;
            return Err(Rejection { unread: !whole, ..rejection });
        }
    };
    let upload = match kind {
        Kind::Raw => Upload { bytes, file_name: None },
        Kind::Form => from_multipart(&parts.headers, bytes).await?,
    };
    if upload.bytes.is_empty() {
        return Err(Rejection::new(
            Outcome::BadRequest,
            "the file is empty; choose an image and send it again",
        ));
    }
    if upload.bytes.len() > max_bytes {
        return Err(too_large(max_bytes));
    }
    Ok(upload)
}

fn kind(headers: &HeaderMap) -> Result<Kind, Rejection> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "multipart/form-data" => Ok(Kind::Form),
        "image/jpeg" | "image/jpg" | "image/png" => Ok(Kind::Raw),
        _ => Err(Rejection::new(
            Outcome::UnsupportedType,
            format!(
                "the content type {essence:?} is not accepted; send a form (multipart/form-data) with the image in its \
                 field {FIELD}, or the image itself as image/jpeg or image/png"
            ),
        )),
    }
}

async fn collect(
    body: &mut Body,
    headers: &HeaderMap,
    limit: usize,
    max_bytes: usize,
    deadline: Instant,
) -> Result<Bytes, Rejection> {
    let stated = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if stated.is_some_and(|length| length > limit) {
        return Err(too_large(max_bytes));
    }
    let mut bytes = BytesMut::with_capacity(stated.unwrap_or(0).min(FIRST_RESERVE));
    loop {
        let frame = tokio::time::timeout_at(deadline, body.frame()).await.map_err(|_| {
            Rejection::new(
                Outcome::SlowClient,
                "the image did not arrive in time; the limit is set by --timeout",
            )
        })?;
        let Some(frame) = frame else { return Ok(bytes.freeze()) };
        let frame = frame.map_err(|error| {
            Rejection::new(Outcome::BadRequest, format!("the request broke off: {error}"))
        })?;
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > limit {
                return Err(too_large(max_bytes));
            }
            bytes.extend_from_slice(&data);
        }
    }
}

/// Reads what a refused client still sends, within bounds, and says whether that was all of it.
pub async fn discard(mut body: Body) -> bool {
    let reading = async {
        let mut discarded = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            discarded += frame.data_ref().map_or(0, Bytes::len);
            if discarded > DISCARD_BYTES {
                return false;
            }
        }
        true
    };
    // Whether it ended or not, the answer goes out now.
    tokio::time::timeout(DISCARD_TIME, reading).await.unwrap_or(false)
}

/// Finds the file in a form that has been read as a whole.
pub async fn from_multipart(headers: &HeaderMap, body: Bytes) -> Result<Upload, Rejection> {
    let bad = |what: String| Rejection::new(Outcome::BadRequest, what);
    let mut request = Request::new(Body::from(body));
    // The body is in memory already and was bounded when it was read; axum's own bound is lower.
    axum::extract::DefaultBodyLimit::disable().apply(&mut request);
    if let Some(content_type) = headers.get(CONTENT_TYPE) {
        request.headers_mut().insert(CONTENT_TYPE, content_type.clone());
    }
    let mut form = Multipart::from_request(request, &())
        .await
        .map_err(|_| bad("the form has no boundary in its content type".to_owned()))?;
    let broken = |error: axum::extract::multipart::MultipartError| {
        bad(format!("the form cannot be read: {}", error.body_text()))
    };
    while let Some(field) = form.next_field().await.map_err(broken)? {
        if field.name() == Some(FIELD) {
            let file_name = field.file_name().map(str::to_owned);
            return Ok(Upload { bytes: field.bytes().await.map_err(broken)?, file_name });
        }
    }
    Err(bad(format!("the form has no file field named {FIELD}")))
}

fn too_large(max_bytes: usize) -> Rejection {
    let sentence = format!(
        "the image is larger than the limit of {max_bytes} bytes; send a smaller one, or raise the limit with --max-bytes"
    );
    Rejection::new(Outcome::TooLarge, sentence)
}
