//! Which answer belongs to which path, and what all answers have in common.

use super::metrics::Metrics;
use super::rejection::text;
use super::results::{self, ResultsMode, Store};
use super::{ServiceConfig, ServiceError, convert, page};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::{ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Semaphore;

const X_REPLICA: HeaderName = HeaderName::from_static("x-replica");

/// The page needs its own styles and its own form, nothing else.
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'";

/// What the handlers share.
pub struct Service {
    pub config: ServiceConfig,
    pub metrics: Metrics,
    /// One permit for each request in flight.
    pub requests: Arc<Semaphore>,
    /// One permit for each conversion on a blocking thread.
    pub converters: Arc<Semaphore>,
    pub store: Option<Arc<Store>>,
    page: Bytes,
    replica: HeaderValue,
    draining: AtomicBool,
}

impl Service {
    pub fn new(config: ServiceConfig) -> Result<Self, ServiceError> {
        let replica = HeaderValue::try_from(&config.replica)
            .map_err(|_| ServiceError::ReplicaName { name: config.replica.clone() })?;
        let store = match config.results.folder() {
            None => None,
            Some(folder) => {
                let failed = |cause| ServiceError::Results { folder: folder.display().to_string(), cause };
                Some(Arc::new(Store::open(folder, config.keep).map_err(failed)?))
            }
        };
        Ok(Service {
            metrics: Metrics::default(),
            requests: Arc::new(Semaphore::new(config.max_in_flight)),
            converters: Arc::new(Semaphore::new(config.threads)),
            store,
            page: page::render(&config).into(),
            replica,
            draining: AtomicBool::new(false),
            config,
        })
    }

    pub fn in_flight(&self) -> usize {
        self.config.max_in_flight - self.requests.available_permits()
    }

    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

pub fn router(service: Arc<Service>) -> Router {
    let replica = service.replica.clone();
    Router::new()
        .route("/", only(get(form).post(convert::post), "GET, HEAD and POST"))
        .route("/results/{name}", only(get(result), "GET and HEAD"))
        .route("/healthz", only(get(health), "GET and HEAD"))
        .route("/metrics", only(get(metrics), "GET and HEAD"))
        .fallback(|| async {
            text(StatusCode::NOT_FOUND, "there is nothing at this address; the form is at /".into())
        })
        // Uploads are bounded where they are read, by --max-bytes.
        .layer(DefaultBodyLimit::disable())
        .layer(map_response(move |mut response: Response| {
            let headers = response.headers_mut();
            headers.insert(X_REPLICA, replica.clone());
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            async move { response }
        }))
        .with_state(service)
}

/// Says in a sentence which methods an address takes; axum adds the Allow header itself.
fn only(routes: MethodRouter<Arc<Service>>, methods: &'static str) -> MethodRouter<Arc<Service>> {
    routes.fallback(move || async move {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("this address takes {methods} only"));
        let allow =
            HeaderValue::from_str(&methods.replace(" and ", ", ")).unwrap_or(HeaderValue::from_static("GET"));
        response.headers_mut().insert(ALLOW, allow);
        response
    })
}

async fn form(State(service): State<Arc<Service>>) -> Response {
    ([(CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(service.page.clone())).into_response()
}

async fn health(State(service): State<Arc<Service>>) -> Response {
    if service.is_draining() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "draining".to_owned());
    }
    text(StatusCode::OK, "ok".to_owned())
}

async fn metrics(State(service): State<Arc<Service>>) -> Response {
    let body =
        service.metrics.render(service.in_flight(), service.config.max_in_flight, service.is_draining());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], body).into_response()
}

/// A PDF that was kept by an earlier request, if it was kept here.
async fn result(State(service): State<Arc<Service>>, Path(name): Path<String>) -> Response {
    let replica = &service.config.replica;
    let not_found =
        |why: &str| text(StatusCode::NOT_FOUND, format!("replica {replica} has no such result: {why}"));
    let Some(store) = service.store.clone() else {
        return not_found("it keeps none, the PDF is the answer to the upload (--results stateless)");
    };
    let Some(id) = results::parse_name(&name) else {
        return not_found("results are called <uuid>.pdf");
    };
    let found = tokio::task::spawn_blocking(move || store.get(id)).await;
    match found.map_err(std::io::Error::other).flatten() {
        Ok(Some(pdf)) => (convert::pdf_headers("image.pdf"), pdf).into_response(),
        Ok(None) if matches!(service.config.results, ResultsMode::Local(_)) => not_found(
            "each replica keeps its own (--results local), so another one may have it; share a folder \
             (--results shared=DIR) or keep none (--results stateless)",
        ),
        Ok(None) => not_found("it was removed to make room for newer ones (--keep), or never existed"),
        Err(error) => {
            eprintln!("pdfmagic: cannot read a result: {error}");
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("replica {replica} cannot read its results"))
        }
    }
}
