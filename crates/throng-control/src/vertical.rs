//! What of a recommendation a replica is given, as the admission of Kubernetes' vertical autoscaler decides it: the
//! target within its bounds becomes the request, and limits keep their proportion to it.

use throng_model::app::Resources;
use throng_model::autoscale::{ControlledValues, Vertical};

/// What a replica gets whose definition asks for `resources`, with a recommendation of so many thousandths of a core and
/// bytes.
pub fn given(policy: &Vertical, (millicores, bytes): (u64, u64), resources: &Resources) -> Resources {
    let mut given = *resources;
    let values = policy.controlled_values;
    if policy.controlled_resources.cpu {
        let target = within(millicores, policy.min_allowed.cpu, policy.max_allowed.cpu);
        let (request, limit) = (resources.cpu_request().map(milli), resources.cpus.map(milli));
        let (request, limit) = proportional(target, request, limit, values);
        given.cpu_reservation = Some(cores(request));
        given.cpus = limit.map(cores);
    }
    if policy.controlled_resources.memory {
        let target = within(bytes, policy.min_allowed.memory, policy.max_allowed.memory);
        let (request, limit) = proportional(target, resources.memory_request(), resources.memory, values);
        given.memory_reservation = Some(request);
        given.memory = limit;
    }
    given
}

pub(crate) fn within(target: u64, least: Option<u64>, most: Option<u64>) -> u64 {
    target.max(least.unwrap_or(0)).min(most.unwrap_or(u64::MAX))
}

/// The new request and limit. A limit without a request is one, so both stay equal; no limit remains none.
fn proportional(
    target: u64,
    request: Option<u64>,
    limit: Option<u64>,
    values: ControlledValues,
) -> (u64, Option<u64>) {
    let Some(limit) = limit else { return (target, None) };
    if values == ControlledValues::RequestsOnly {
        return (target.min(limit), Some(limit));
    }
    let scaled = match request {
        Some(request) if request > 0 && request != limit => {
            let scaled = u128::from(target) * u128::from(limit) / u128::from(request);
            u64::try_from(scaled).unwrap_or(u64::MAX)
        }
        _ => target,
    };
    (target, Some(scaled.max(target)))
}

/// Rounded to the nearest: what is written as 0.3 is no less than 300.
pub(crate) fn milli(cores: f64) -> u64 {
    (cores * 1_000.0).round() as u64
}

fn cores(milli: u64) -> f64 {
    milli as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use throng_model::autoscale::{Allowed, Controlled};

    fn asked(
        cpu_reservation: Option<f64>,
        cpus: Option<f64>,
        memory_reservation: Option<u64>,
        memory: Option<u64>,
    ) -> Resources {
        Resources { cpu_reservation, cpus, memory_reservation, memory, pids: Some(7), ..Resources::default() }
    }

    #[test]
    fn limits_keep_their_proportion_to_requests() {
        let policy = Vertical::default();
        for (resources, expected) in [
            // Twice the request was the limit.
            (
                asked(Some(0.5), Some(1.0), Some(100), Some(300)),
                asked(Some(0.25), Some(0.5), Some(200), Some(600)),
            ),
            // A limit alone is the request as well.
            (asked(None, Some(1.0), None, Some(300)), asked(Some(0.25), Some(0.25), Some(200), Some(200))),
            // No limit stays none.
            (asked(Some(0.5), None, None, None), asked(Some(0.25), None, Some(200), None)),
            // Nothing was requested below a limit.
            (asked(Some(0.0), Some(2.0), None, None), asked(Some(0.25), Some(0.25), Some(200), None)),
        ] {
            assert_eq!(given(&policy, (250, 200), &resources), expected, "{resources:?}");
        }
    }

    #[test]
    fn bounds_and_what_is_controlled_are_kept() {
        let resources = asked(Some(0.5), Some(1.0), Some(100), Some(300));
        let cpu = |cpu| Allowed { cpu: Some(cpu), memory: None };
        for (policy, expected) in [
            (
                Vertical { max_allowed: cpu(100), ..Vertical::default() },
                asked(Some(0.1), Some(0.2), Some(200), Some(600)),
            ),
            (
                Vertical { min_allowed: cpu(400), ..Vertical::default() },
                asked(Some(0.4), Some(0.8), Some(200), Some(600)),
            ),
            (
                Vertical {
                    controlled_resources: Controlled { cpu: false, memory: true },
                    ..Vertical::default()
                },
                asked(Some(0.5), Some(1.0), Some(200), Some(600)),
            ),
            (
                Vertical {
                    controlled_resources: Controlled { cpu: true, memory: false },
                    ..Vertical::default()
                },
                asked(Some(0.25), Some(0.5), Some(100), Some(300)),
            ),
        ] {
            assert_eq!(given(&policy, (250, 200), &resources), expected, "{policy:?}");
        }
        let only = Vertical { controlled_values: ControlledValues::RequestsOnly, ..Vertical::default() };
        let capped = asked(Some(1.0), Some(1.0), Some(300), Some(300));
        assert_eq!(given(&only, (2_000, 500), &resources), capped, "no more than the limit");
    }

    proptest! {
        /// No limit is below its request, bounds hold whatever is recommended, and nothing else changes.
        #[test]
        fn what_is_given_holds(
            millicores: u64, bytes: u64, request in prop::option::of(0.0f64..64.0), limit in prop::option::of(0.0f64..64.0),
            least in 0u64..2_000, more in 0u64..2_000,
        ) {
            let most = least + more;
            let policy = Vertical {
                min_allowed: Allowed { cpu: Some(least), memory: Some(least) },
                max_allowed: Allowed { cpu: Some(most), memory: Some(most) },
                ..Vertical::default()
            };
            let resources = asked(request, limit, None, Some(1_000));
            let given = given(&policy, (millicores, bytes), &resources);
            let request = given.cpu_reservation.expect("controlled");
            prop_assert!((cores(least)..=cores(most)).contains(&request));
            prop_assert!(given.cpus.is_none_or(|limit| limit >= request));
            prop_assert_eq!(given.cpus.is_some(), resources.cpus.is_some());
            prop_assert!((least..=most).contains(&given.memory_reservation.expect("controlled")));
            prop_assert_eq!(given.pids, resources.pids);
        }
    }
}
