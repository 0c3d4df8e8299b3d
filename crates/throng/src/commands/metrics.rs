//! `throng metrics`: the app's figures for Prometheus, printed once or served together with the addresses of replicas.
//!
//! The server is this command, not the supervisor: it holds no state, so it may be started, stopped and killed at any
//! time, and it goes on across supervisors. Each request asks the supervisor over its socket.

use crate::cli::MetricsArguments;
use crate::failure::{Failure, Kind, Result, io};
use crate::project::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use throng_model::autoscale::{PATH_LABEL, PORT_LABEL};
use throng_supervisor::client::{Client, ClientError};
use throng_supervisor::metrics::exposition;
use throng_supervisor::protocol::{RefusalKind, Target};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections served at once; more wait. Prometheus needs one or two.
const CONNECTIONS_MOST: usize = 32;
/// How long a request may take to say what it wants.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// A listener that cannot accept for want of descriptors, say, tries again after this time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A label of a Compose service that says whether it is to be scraped, as many Compose files have it already.
const SCRAPE_LABEL: &str = "prometheus.io/scrape";
const DEFAULT_PATH: &str = "/metrics";

pub async fn run(context: &Context, arguments: MetricsArguments) -> Result<()> {
    let client = context.running().await?;
    let Some(address) = arguments.listen else {
        out!("{}", client.metrics(arguments.replicas).await?);
        return Ok(());
    };
    if !address.ip().is_loopback() {
        let message =
            format!("{address} can be reached from other hosts, and what is served there has no password");
        return Err(Failure::new(Kind::Input, message)
            .hint("listen on 127.0.0.1 and let a reverse proxy or `ssh -L` carry it further"));
    }
    let interrupted = super::interrupted()?;
    let listener =
        TcpListener::bind(address).await.map_err(|error| io(format!("listen on {address}"), &error))?;
    let address = listener.local_addr().map_err(|error| io("find the address", &error))?;
    eprintln!("metrics at http://{address}/metrics, replicas for Prometheus at http://{address}/sd");
    // From now on this app is meant, whatever else comes up.
    let mut context = context.clone();
    context.project.project_name = Some(client.project().to_owned());
    let served = Arc::new(Served { context, replicas: arguments.replicas });
    tokio::select! {
        () = accept(listener, served) => Ok(()),
        () = interrupted.cancelled() => Ok(()),
    }
}

struct Served {
    context: Context,
    replicas: usize,
}

async fn accept(listener: TcpListener, served: Arc<Served>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MOST));
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let served = served.clone();
                tokio::spawn(async move {
                    let _place = place;
                    connection(stream, served).await;
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn connection(stream: TcpStream, served: Arc<Served>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let served = served.clone();
        async move { Ok::<_, Infallible>(served.answer(&request).await) }
    });
    // A peer that breaks off has had what it wanted.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_WITHIN)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl Served {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "only GET");
        }
        let answer = match request.uri().path() {
            "/metrics" => self.metrics().await,
            "/sd" => self.targets(request.uri().query().unwrap_or_default()).await,
            "/" => Ok(respond(StatusCode::OK, "text/plain", "/metrics\n/sd\n".into())),
            path => Err((StatusCode::NOT_FOUND, format!("no {path} here, only /metrics and /sd"))),
        };
        answer.unwrap_or_else(|(status, message)| refuse(status, &message))
    }

    /// An app that is not up is nothing to scrape; one that comes up again is found again.
    async fn client(&self) -> Refusable<Client> {
        self.context.running().await.map_err(|failure| (StatusCode::SERVICE_UNAVAILABLE, failure.message))
    }

    async fn metrics(&self) -> Refusable<Response<Full<Bytes>>> {
        let text = self.client().await?.metrics(self.replicas).await.map_err(refusal)?;
        Ok(respond(StatusCode::OK, exposition::CONTENT_TYPE, text))
    }

    async fn targets(&self, query: &str) -> Refusable<Response<Full<Bytes>>> {
        let query = Query::parse(query).map_err(|message| (StatusCode::BAD_REQUEST, message))?;
        let client = self.client().await?;
        let targets = client.targets(query.service.as_deref()).await.map_err(refusal)?;
        let project = client.project();
        let groups =
            groups(project, targets, &query).map_err(|message| (StatusCode::BAD_REQUEST, message))?;
        let text = serde_json::to_string(&groups)
            .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        Ok(respond(StatusCode::OK, "application/json", text))
    }
}

type Refusable<T> = std::result::Result<T, (StatusCode, String)>;

fn refusal(error: ClientError) -> (StatusCode, String) {
    let status = match &error {
        ClientError::Refused(refusal) if refusal.kind == RefusalKind::NotFound => StatusCode::NOT_FOUND,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, error.to_string())
}

fn refuse(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", format!("{message}\n"))
}

fn respond(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

/// What the asker wants to scrape, where the Compose file does not say it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    service: Option<String>,
    port: Option<u16>,
    path: Option<String>,
}

impl Query {
    fn parse(text: &str) -> std::result::Result<Query, String> {
        let mut query = Query::default();
        for (key, value) in url::form_urlencoded::parse(text.as_bytes()) {
            match &*key {
                "service" => query.service = Some(value.into_owned()),
                "port" => query.port = Some(port(&value)?),
                "path" => query.path = Some(value.into_owned()),
                _ => return Err(format!("unknown parameter {key}: there are service, port and path")),
            }
        }
        match query.service.is_none() && (query.port.is_some() || query.path.is_some()) {
            true => Err("say which service has that port or path: /sd?service=NAME&port=…&path=…".into()),
            false => Ok(query),
        }
    }
}

fn port(text: &str) -> std::result::Result<u16, String> {
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("{text:?} is no port: 1 to 65535"))
}

/// One scrape target as Prometheus' HTTP service discovery wants it.
#[derive(Debug, Serialize, PartialEq, Eq)]
struct Group {
    targets: [String; 1],
    labels: BTreeMap<&'static str, String>,
}

/// The replicas to scrape. Of all services, those that say so by a label; of a service that was asked for by name, on the
/// port that was asked for, else that of its label, else the first one that the Compose file names.
fn groups(project: &str, targets: Vec<Target>, query: &Query) -> std::result::Result<Vec<Group>, String> {
    let mut groups = Vec::new();
    for target in targets {
        let label = |name: &str| target.labels.get(name).map(String::as_str);
        let labelled = label(PORT_LABEL).map(port).transpose();
        let labelled =
            labelled.map_err(|error| format!("label {PORT_LABEL} of {}: {error}", target.service))?;
        let asked = query.service.is_some();
        let first = target.ports.first().copied();
        let wanted = match label(SCRAPE_LABEL) {
            Some("false") if !asked => continue,
            Some("true") => query.port.or(labelled).or(first),
            _ if asked => query.port.or(labelled).or(first),
            _ => labelled,
        };
        let Some(port) = wanted else {
            if asked || label(SCRAPE_LABEL) == Some("true") {
                let service = &target.service;
                return Err(format!("{service} names no port: add &port=… or the label {PORT_LABEL}"));
            }
            continue;
        };
        let path = query.path.as_deref().or(label(PATH_LABEL)).unwrap_or(DEFAULT_PATH);
        let group = |(ordinal, address): &(u32, Ipv4Addr)| Group {
            targets: [SocketAddr::from((*address, port)).to_string()],
            labels: BTreeMap::from([
                ("__metrics_path__", path.to_owned()),
                ("project", project.to_owned()),
                ("service", target.service.clone()),
                ("replica", format!("{}-{ordinal}", target.service)),
            ]),
        };
        groups.extend(target.replicas.iter().map(group));
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(service: &str, labels: &[(&str, &str)], ports: &[u16]) -> Target {
        Target {
            service: service.into(),
            labels: labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            ports: ports.to_vec(),
            replicas: vec![(1, [10, 0, 0, 2].into()), (2, [10, 0, 0, 3].into())],
        }
    }

    fn found(targets: Vec<Target>, query: &str) -> std::result::Result<Vec<String>, String> {
        let groups = groups("shop", targets, &Query::parse(query)?)?;
        Ok(groups
            .into_iter()
            .map(|group| {
                let [target] = group.targets;
                format!("{} {target}{}", group.labels["replica"], group.labels["__metrics_path__"])
            })
            .collect())
    }

    #[test]
    fn labels_say_what_is_scraped() {
        let web = || target("web", &[("prometheus.io/port", "9090"), ("prometheus.io/path", "/m")], &[80]);
        let both = ["web-1 10.0.0.2:9090/m", "web-2 10.0.0.3:9090/m"];
        assert_eq!(found(vec![web(), target("db", &[], &[5432])], "").expect("targets"), both);
        let first = target("web", &[("prometheus.io/scrape", "true")], &[80, 81]);
        assert_eq!(found(vec![first], "").expect("targets")[0], "web-1 10.0.0.2:80/metrics");
        let not = target("web", &[("prometheus.io/port", "9090"), ("prometheus.io/scrape", "false")], &[]);
        assert!(found(vec![not], "").expect("none").is_empty());
    }

    #[test]
    fn the_asker_may_say_it_instead() {
        let db = || vec![target("db", &[], &[5432])];
        assert_eq!(found(db(), "service=db").expect("targets")[0], "db-1 10.0.0.2:5432/metrics");
        let chosen = found(db(), "service=db&port=9187&path=%2Fprobe").expect("targets");
        assert_eq!(chosen[1], "db-2 10.0.0.3:9187/probe");
        for (query, word) in
            [("port=80", "which service"), ("service=db&port=0", "no port"), ("x=1", "unknown parameter x")]
        {
            let error = found(db(), query).expect_err(query);
            assert!(error.contains(word), "{error}");
        }
        let error = found(vec![target("db", &[], &[])], "service=db").expect_err("no port");
        assert!(error.contains("prometheus.io/port"), "{error}");
        let error =
            found(vec![target("db", &[("prometheus.io/port", "x")], &[])], "").expect_err("no number");
        assert!(error.contains("label prometheus.io/port of db"), "{error}");
    }
}
