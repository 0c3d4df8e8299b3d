//! A supervisor as what experiments run on.

use super::{Client, ClientError, tail};
use crate::protocol::RefusalKind;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use throng_model::app::App;
use throng_model::fault::{ReplicaFault, Victims};
use throng_model::node::{NodeChange, NodeChoice};
use throng_model::status::Status;
use throng_runtime::cluster::{Cluster, ClusterError, ClusterErrorKind, FeedStream, Progress};

#[async_trait]
impl Cluster for Client {
    async fn apply(&self, app: &App) -> std::result::Result<(), ClusterError> {
        Ok(Client::apply(self, app, &[]).await?)
    }

    async fn scale(&self, replicas: BTreeMap<String, u32>) -> std::result::Result<(), ClusterError> {
        Ok(Client::scale(self, replicas).await?)
    }

    async fn wait(
        &self,
        services: &[String],
        timeout: Duration,
        progress: Progress<'_>,
    ) -> std::result::Result<(), ClusterError> {
        Ok(Client::wait(self, services, timeout, progress).await?)
    }

    async fn status(&self) -> std::result::Result<Status, ClusterError> {
        Ok(Client::status(self).await?)
    }

    async fn change_nodes(
        &self,
        choice: &NodeChoice,
        change: &NodeChange,
        lasts: Option<Duration>,
    ) -> std::result::Result<(), ClusterError> {
        Ok(Client::change_nodes(self, choice.clone(), change.clone(), lasts).await?)
    }

    async fn befall(
        &self,
        victims: &Victims,
        fault: &ReplicaFault,
        lasts: Option<Duration>,
    ) -> std::result::Result<Vec<String>, ClusterError> {
        Ok(Client::befall(self, victims.clone(), fault.clone(), lasts).await?)
    }

    async fn endpoint(
        &self,
        service: &str,
        port: Option<u16>,
    ) -> std::result::Result<SocketAddr, ClusterError> {
        Ok(Client::endpoint(self, service, port).await?)
    }

    async fn log_tails(
        &self,
        service: &str,
        most: u64,
    ) -> std::result::Result<Vec<(String, Vec<u8>)>, ClusterError> {
        let files = self.log_files(&[service.to_owned()]).await?;
        let tails =
            files.into_iter().filter_map(|(name, paths)| Some((name, tail(paths.last()?, most).ok()?)));
        Ok(tails.collect())
    }

    async fn watch(&self) -> std::result::Result<Box<dyn FeedStream>, ClusterError> {
        Ok(Box::new(Client::watch(self).await?))
    }

    async fn down(&self, volumes: bool, progress: Progress<'_>) -> std::result::Result<(), ClusterError> {
        Ok(Client::down(self, volumes, None, progress).await?)
    }
}

impl From<ClientError> for ClusterError {
    fn from(error: ClientError) -> ClusterError {
        let kind = match &error {
            ClientError::NotUp(_) => ClusterErrorKind::NotFound,
            ClientError::Elsewhere { .. } => ClusterErrorKind::Invalid,
            ClientError::NotStarted { .. } | ClientError::Lost { .. } => ClusterErrorKind::Host,
            ClientError::Refused(refusal) => match refusal.kind {
                RefusalKind::NotFound => ClusterErrorKind::NotFound,
                RefusalKind::Invalid => ClusterErrorKind::Invalid,
                RefusalKind::App => ClusterErrorKind::App,
                RefusalKind::Image => ClusterErrorKind::Image,
                RefusalKind::Host => ClusterErrorKind::Host,
            },
        };
        let log = match &error {
            ClientError::Refused(refusal) => refusal.log.clone(),
            _ => Vec::new(),
        };
        ClusterError { kind, message: error.to_string(), hint: error.hint(), log }
    }
}
