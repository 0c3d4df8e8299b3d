//! Stabilisation: earlier recommendations hold back what would otherwise swing to and fro.

use crate::case::{Age, Recommendation};
use crate::spec::Behavior;

/// With behavior: the count is raised no further than to the smallest recommendation of the window for scaling up, and
/// lowered no further than to the largest of the window for scaling down. A recommendation as old as a window is out of
/// it.
pub fn with_behavior(
    desired: i32,
    current: i32,
    earlier: &[Recommendation],
    behavior: &Behavior,
    downscale_stabilization: Age,
) -> i32 {
    let window = |seconds: Option<i32>| {
        // The controller's option is cut to whole seconds here, and only here.
        Age::from_seconds(i64::from(seconds.unwrap_or_else(|| downscale_stabilization.whole_seconds())))
    };
    let within = |window: Age| earlier.iter().filter(move |one| one.age < window).map(|one| one.replicas);
    let lowest = within(window(behavior.scale_up.window_seconds)).fold(desired, i32::min);
    let highest = within(window(behavior.scale_down.window_seconds)).fold(desired, i32::max);
    current.max(lowest).min(highest)
}

/// Without behavior: the largest recommendation of the window. One as old as the window is still in it.
pub fn without_behavior(desired: i32, earlier: &[Recommendation], downscale_stabilization: Age) -> i32 {
    let within = earlier.iter().filter(|one| one.age <= downscale_stabilization);
    within.map(|one| one.replicas).fold(desired, i32::max)
}
