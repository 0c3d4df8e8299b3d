//! One decision of a horizontal autoscaler, made as Kubernetes 1.34 makes it.
//!
//! A [`Case`] is all that a controller sees when it looks at one target: the autoscaler's spec, replica counts, pods and
//! metrics, and what it remembers. [`decide`] turns it into an [`Answer`]: the count, and the conditions that say why.
//! Nothing here reads a clock or does I/O. Times are ages, counted back from the one instant of the decision.
//!
//! The order of the work is the controller's: group the pods ([`pods`]), let every metric propose a count
//! ([`proposal`]), take the largest, stabilise it against earlier recommendations ([`stabilize`]), and hold it within
//! what the policies and the bounds allow ([`policies`]).
//!
//! [`vertical`] says how much a replica should request rather than how many there should be.
//!
//! A [`History`] is what a controller carries from one look to the next. [`simulate`] makes hours of such decisions in a
//! world that it simulates.
//!
//! Where Kubernetes' arithmetic depends on the processor (a float that does not fit an integer), it is that of amd64,
//! because that is where most clusters run: see `number.rs`.

mod answer;
mod case;
mod decide;
mod explain;
mod history;
mod number;
pub mod pods;
pub mod policies;
pub mod proposal;
pub mod quantity;
pub mod selector;
pub mod simulate;
pub mod spec;
pub mod stabilize;
pub mod vertical;

pub use answer::{Answer, Condition, MetricAnswer};
pub use case::{
    Age, Case, CaseError, Container, Controller, Phase, Pod, PodMetrics, Recommendation, ScaleEvent,
    ScaleEvents,
};
pub use decide::decide;
pub use history::History;
pub use quantity::Quantity;
pub use spec::Spec;
