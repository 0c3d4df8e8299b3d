//! Which replicas a metric counts: the ready ones with a value, and apart from them those that are unready, those that
//! have no value, and those that are on their way out.

use crate::case::{Age, Controller, Phase, Pod, PodMetrics};

/// A replica's value of one metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Thousandths.
    pub value: i64,
    /// The end of the time that was measured, and its length.
    pub age: Age,
    pub window: Age,
}

/// How a metric looks at a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Counted,
    /// Assumed to use nothing when scaling up, left out otherwise.
    Unready,
    /// Assumed to be at its request or target when scaling down, and to use nothing when scaling up.
    Missing,
    /// Failed or being deleted.
    Ignored,
}

/// Indices of pods, by how a metric looks at them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups {
    /// With their values in thousandths.
    pub counted: Vec<(usize, i64)>,
    pub unready: Vec<usize>,
    pub missing: Vec<usize>,
}

/// Groups pods by their samples, one for each pod or none. `cpu`: whether the metric is of CPU, whose first minutes tell
/// about starting rather than about load.
pub fn group(pods: &[Pod], samples: &[Option<Sample>], cpu: bool, controller: &Controller) -> Groups {
    let mut groups = Groups::default();
    for (index, (pod, sample)) in pods.iter().zip(samples).enumerate() {
        match (standing(pod, sample.as_ref(), cpu, controller), sample) {
            (Standing::Counted, Some(sample)) => groups.counted.push((index, sample.value)),
            (Standing::Unready, _) => groups.unready.push(index),
            (Standing::Missing, _) | (Standing::Counted, None) => groups.missing.push(index),
            (Standing::Ignored, _) => {}
        }
    }
    groups
}

/// How a metric with this sample of a pod looks at it.
pub fn standing(pod: &Pod, sample: Option<&Sample>, cpu: bool, controller: &Controller) -> Standing {
    if pod.deleted || pod.phase == Phase::Failed {
        return Standing::Ignored;
    }
    if pod.phase == Phase::Pending {
        return Standing::Unready;
    }
    match sample {
        None => Standing::Missing,
        Some(sample) if cpu && starting(pod, sample, controller) => Standing::Unready,
        Some(_) => Standing::Counted,
    }
}

/// Whether a pod's CPU usage may still be that of its start. A pod without a Ready condition or a start time has hardly
/// begun.
fn starting(pod: &Pod, sample: &Sample, controller: &Controller) -> bool {
    let (Some(ready), Some(changed), Some(started)) = (pod.ready, pod.ready_changed, pod.started) else {
        return true;
    };
    if started < controller.cpu_initialization_period {
        // The window must lie wholly after the pod became ready. Older means a greater age.
        !ready || sample.age + sample.window > changed
    } else {
        // Readiness that was lost within the delay after the start was never more than a flicker.
        !ready && changed + controller.initial_readiness_delay > started
    }
}

/// Samples of a resource, one for each pod, of all its containers together or of one. `Err` if the metrics API has
/// nothing for any pod.
pub fn resource_samples(
    pods: &[Pod],
    resource: &str,
    container: Option<&str>,
) -> Result<Vec<Option<Sample>>, String> {
    if pods.iter().all(|pod| pod.metrics.is_none()) {
        return Err("the resource metrics API has nothing for any pod".into());
    }
    let sample = |metrics: &PodMetrics| {
        let value = match container {
            Some(container) => metrics.containers.get(container)?.get(resource)?.milli(),
            None if metrics.containers.is_empty() => return None,
            None => {
                let mut usages = metrics.containers.values().map(|usage| Some(usage.get(resource)?.milli()));
                // A sum that overflows wraps, as the controller's does.
                usages.try_fold(0i64, |sum, usage| Some(sum.wrapping_add(usage?)))?
            }
        };
        Some(Sample { value, age: metrics.age, window: metrics.window })
    };
    Ok(pods.iter().map(|pod| pod.metrics.as_ref().and_then(sample)).collect())
}

/// Samples of a Pods metric, one for each pod. `Err` if no pod has one.
pub fn custom_samples(pods: &[Pod], name: &str) -> Result<Vec<Option<Sample>>, String> {
    let sample = |pod: &Pod| {
        let value = pod.custom.get(name)?.milli();
        Some(Sample { value, age: Age::default(), window: Age::default() })
    };
    let samples: Vec<Option<Sample>> = pods.iter().map(sample).collect();
    if samples.iter().all(Option::is_none) {
        return Err(format!("the custom metrics API has no {name} for any pod"));
    }
    Ok(samples)
}

/// What each pod requests of a resource, in thousandths: all its containers, or one. A request that is missing anywhere,
/// be it of a pod that counts for nothing else, is an error.
pub fn requests(pods: &[Pod], resource: &str, container: Option<&str>) -> Result<Vec<i64>, String> {
    pods.iter().map(|pod| request(pod, resource, container)).collect()
}

fn request(pod: &Pod, resource: &str, container: Option<&str>) -> Result<i64, String> {
    let mut sum = 0i64;
    let mut found = false;
    for own in pod.containers.iter().filter(|own| container.is_none_or(|name| name == own.name)) {
        let Some(request) = own.requests.get(resource) else {
            return Err(format!("container {} of pod {} requests no {resource}", own.name, pod.name));
        };
        sum = sum.wrapping_add(request.milli());
        found = true;
    }
    match container {
        Some(container) if !found => Err(format!("pod {} has no container {container}", pod.name)),
        _ => Ok(sum),
    }
}

/// Running pods that are ready now: what an Object or External value is multiplied with.
pub fn ready_count(pods: &[Pod]) -> i64 {
    let ready = pods.iter().filter(|pod| pod.phase == Phase::Running && pod.ready == Some(true));
    ready.map(Pod::replicas).sum()
}

/// How many replicas these entries stand for.
pub fn count(pods: &[Pod], entries: &[(usize, i64)]) -> i64 {
    entries.iter().map(|(index, _)| pods[*index].replicas()).sum()
}

/// The sum of a value of each of these entries, over all replicas that they stand for. It wraps, as the controller's does.
pub fn sum(pods: &[Pod], entries: &[(usize, i64)], value: impl Fn(&(usize, i64)) -> i64) -> i64 {
    let each = entries.iter().map(|entry| value(entry).wrapping_mul(pods[entry.0].replicas()));
    each.fold(0, i64::wrapping_add)
}
