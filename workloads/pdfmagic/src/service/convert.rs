//! POST /: the one request that costs something.

use super::metrics::Metrics;
use super::rejection::{Outcome, Rejection};
use super::routes::Service;
use super::upload::{self, Upload};
use crate::convert::{Format, Limits, convert, detect};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::fmt::Write;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;

/// A JPEG up to this size is converted on the runtime's own thread: scanning and copying it takes less than half a
/// millisecond, which is no more than one switch to another thread and back under load costs.
const INLINE_BYTES: usize = 1 << 20;

/// Longest name that is passed on, in characters.
const MAX_NAME: usize = 100;

pub async fn post(State(service): State<Arc<Service>>, request: Request) -> Response {
    let (outcome, response) = match handle(&service, request).await {
        Ok(response) => (Outcome::Converted, response),
        Err(rejection) => (rejection.outcome, rejection.into_response()),
    };
    service.metrics.ended(outcome);
    response
}

async fn handle(service: &Arc<Service>, request: Request) -> Result<Response, Rejection> {
    let Ok(permit) = Arc::clone(&service.requests).try_acquire_owned() else {
        let unread = !upload::discard(request.into_body()).await;
        let limit = service.config.max_in_flight;
        let sentence =
            format!("this replica has {limit} requests in flight already; --max-in-flight allows more");
        return Err(Rejection { unread, ..Rejection::new(Outcome::Overloaded, sentence) });
    };
    let deadline = Instant::now() + service.config.timeout;
    let upload = upload::read(request, service.config.max_bytes, deadline.into()).await?;
    let name = pdf_name(upload.file_name.as_deref());
    let pdf = converted(service, upload, deadline).await?;
    match &service.store {
        None => Ok(answer(Held { pdf, _permit: permit }, &name)),
        Some(store) => {
            let store = Arc::clone(store);
            let kept = tokio::task::spawn_blocking(move || store.put(&pdf)).await;
            let id = kept.map_err(std::io::Error::other).flatten().map_err(|error| {
                eprintln!("pdfmagic: cannot keep a result: {error}");
                Rejection::new(Outcome::Failed, not_kept(error.kind()))
            })?;
            redirect(&format!("/results/{id}.pdf"))
        }
    }
}

fn not_kept(why: ErrorKind) -> &'static str {
    match why {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "the result could not be kept, because its folder has no space left; make some, keep fewer with --keep, or \
             none with --results stateless"
        }
        _ => "the result could not be kept in its folder; this replica's log says why",
    }
}

/// Runs the conversion where it does not hold up other requests.
async fn converted(service: &Arc<Service>, upload: Upload, deadline: Instant) -> Result<Vec<u8>, Rejection> {
    let limits = Limits { deadline: Some(deadline), ..service.config.picture };
    let inline = detect(&upload.bytes)? == Format::Jpeg && upload.bytes.len() <= INLINE_BYTES;
    if inline {
        return timed(&service.metrics, &upload.bytes, &limits);
    }
    let turn =
        tokio::time::timeout_at(deadline.into(), Arc::clone(&service.converters).acquire_owned()).await;
    let Ok(Ok(turn)) = turn else {
        return Err(crate::convert::ConvertError::OutOfTime.into());
    };
    let service = Arc::clone(service);
    let work = move || {
        let result = timed(&service.metrics, &upload.bytes, &limits);
        drop(turn);
        result
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        eprintln!("pdfmagic: a conversion failed: {error}");
        Err(Rejection::new(Outcome::Failed, "the conversion failed on this replica"))
    })
}

fn timed(metrics: &Metrics, image: &[u8], limits: &Limits) -> Result<Vec<u8>, Rejection> {
    let start = Instant::now();
    let pdf = convert(image, limits)?;
    metrics.converted(start.elapsed(), image.len(), pdf.len());
    Ok(pdf)
}

/// A PDF that keeps its request in flight until its last byte has been handed to the kernel: it takes memory so long.
struct Held {
    pdf: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.pdf
    }
}

fn answer(pdf: Held, name: &str) -> Response {
    let mut response = Response::new(Body::from(Bytes::from_owner(pdf)));
    response.headers_mut().extend(pdf_headers(name));
    response
}

/// A name that cannot stand in a header is left out, which costs the client only the name.
pub fn pdf_headers(name: &str) -> HeaderMap {
    let disposition = HeaderValue::try_from(disposition(name));
    let headers: [(HeaderName, HeaderValue); 3] = [
        (CONTENT_TYPE, HeaderValue::from_static("application/pdf")),
        (CONTENT_DISPOSITION, disposition.unwrap_or(HeaderValue::from_static("inline"))),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    headers.into_iter().collect()
}

fn redirect(location: &str) -> Result<Response, Rejection> {
    let location = HeaderValue::try_from(location)
        .map_err(|error| Rejection::new(Outcome::Failed, format!("the result has no address: {error}")))?;
    Ok((StatusCode::SEE_OTHER, [(LOCATION, location)]).into_response())
}

/// The client's file name without folders, controls and the image's ending, and with `.pdf`.
fn pdf_name(file_name: Option<&str>) -> String {
    let base = file_name.unwrap_or_default().rsplit(['/', '\\']).next().unwrap_or_default();
    let stem = base.rsplit_once('.').map_or(base, |(stem, _)| stem);
    let clean: String =
        stem.chars().filter(|c| !c.is_control() && !is_invisible(*c)).take(MAX_NAME).collect();
    let clean = clean.trim_matches([' ', '.']);
    format!("{}.pdf", if clean.is_empty() { "image" } else { clean })
}

/// Characters that turn the direction of text or have no width can make one file name look like another.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
}

/// RFC 6266: a plain name for everybody, and the exact one (RFC 8187) where it differs.
fn disposition(name: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ' | '(' | ')');
    let plain: String = name.chars().map(|c| if safe(c) { c } else { '_' }).collect();
    let mut value = format!("inline; filename=\"{plain}\"");
    if plain != name {
        value.push_str("; filename*=UTF-8''");
        for byte in name.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_') {
                value.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(value, "%{byte:02X}");
            }
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_made_safe() {
        for (sent, expected) in [
            (None, "image.pdf"),
            (Some("holiday.jpeg"), "holiday.pdf"),
            (Some("/etc/passwd"), "passwd.pdf"),
            (Some("C:\\photos\\cat.png"), "cat.pdf"),
            (Some("../..//"), "image.pdf"),
            (Some("..png"), "image.pdf"),
            (Some("two.parts.png"), "two.parts.pdf"),
            (Some("a\r\nSet-Cookie: b.png"), "aSet-Cookie: b.pdf"),
            (Some("invoice\u{202E}gpj.exe.png"), "invoicegpj.exe.pdf"),
        ] {
            assert_eq!(pdf_name(sent), expected, "{sent:?}");
        }
        assert_eq!(pdf_name(Some(&"x".repeat(500))).len(), MAX_NAME + 4);
        assert_eq!(disposition("a\"b.pdf"), "inline; filename=\"a_b.pdf\"; filename*=UTF-8''a%22b.pdf");
        assert_eq!(
            disposition("été.pdf"),
            "inline; filename=\"_t_.pdf\"; filename*=UTF-8''%C3%A9t%C3%A9.pdf"
        );
    }

    proptest! {
        #[test]
        fn every_name_can_stand_in_the_header(name in any::<String>()) {
            let header = HeaderValue::try_from(disposition(&pdf_name(Some(&name))));
            prop_assert!(header.is_ok_and(|value| value.to_str().is_ok_and(|text| text.matches('"').count() == 2)));
        }
    }
}
