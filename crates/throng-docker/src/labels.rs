//! What a container's labels say of its replica: enough for the next supervisor to take it over.

use std::collections::HashMap;
use throng_model::replica::{ReplicaId, ReplicaSpec};

/// Which folder's throng a container, network or volume belongs to.
pub const HOME: &str = "throng.home";
/// Project of a container or network.
pub const PROJECT: &str = "throng.project";
/// Number of a container or volume among the nodes of a project.
pub const NODE: &str = "throng.node";
const SERVICE: &str = "throng.service";
const ORDINAL: &str = "throng.ordinal";
const GENERATION: &str = "throng.generation";
const CONFIG_HASH: &str = "throng.config-hash";
/// The whole specification as JSON; the others are there for people and for filters.
const SPEC: &str = "throng.spec";

pub fn write(home: &str, spec: &ReplicaSpec) -> HashMap<String, String> {
    let ReplicaId { project, service, ordinal } = &spec.id;
    let pairs = [
        (HOME, home.to_owned()),
        (PROJECT, project.clone()),
        (SERVICE, service.clone()),
        (ORDINAL, ordinal.to_string()),
        (GENERATION, spec.generation.to_string()),
        (CONFIG_HASH, spec.config_hash.clone()),
        // A specification is made of strings, numbers and lists, which always become JSON.
        (SPEC, serde_json::to_string(spec).unwrap_or_default()),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Whose container it is, and its specification unless somebody has damaged that.
pub fn read(labels: &HashMap<String, String>) -> Option<(ReplicaId, Option<ReplicaSpec>)> {
    let text = |key: &str| labels.get(key).cloned();
    let id = ReplicaId {
        project: text(PROJECT)?,
        service: text(SERVICE)?,
        ordinal: labels.get(ORDINAL)?.parse().ok()?,
    };
    let spec = labels.get(SPEC).and_then(|text| serde_json::from_str::<ReplicaSpec>(text).ok());
    Some((id.clone(), spec.filter(|spec| spec.id == id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use throng_model::replica::{LogPolicy, Process, RootFs};

    fn spec() -> ReplicaSpec {
        ReplicaSpec {
            id: ReplicaId { project: "shop".into(), service: "web".into(), ordinal: 3 },
            generation: 7,
            config_hash: "x".into(),
            root: RootFs { image: "i".into(), image_id: "d".into(), layers: vec![], read_only: false },
            process: Process::default(),
            hostname: "web-3".into(),
            mounts: vec![],
            networks: vec![],
            resources: Default::default(),
            log: LogPolicy::default(),
            stop_signal: 15,
            stop_grace_period: Duration::from_secs(1),
            sandbox: Default::default(),
            node: None,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let labels = write("/home", &spec());
        assert_eq!(read(&labels), Some((spec().id, Some(spec()))));
        assert_eq!(labels[GENERATION], "7");
    }

    #[test]
    fn damage_is_noticed() {
        let mut labels = write("/home", &spec());
        labels.insert(SPEC.into(), "{".into());
        assert_eq!(read(&labels), Some((spec().id, None)));
        labels.insert(SERVICE.into(), "other".into());
        assert_eq!(read(&labels).expect("still somebody").1, None);
        labels.insert(ORDINAL.into(), "x".into());
        assert_eq!(read(&labels), None);
    }
}
