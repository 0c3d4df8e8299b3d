//! Replicas whose traffic need not be read, for what they are behind has carried nothing.
//!
//! An interface behind a parent gets frames from outside, which the parent has received and counted, and from the others
//! behind it; and what it sends leaves by the parent, which counts it, or goes to the others. To send anything takes a
//! program that runs, or a frame to which the kernel answers. So where the parent's counters stand still and no replica
//! behind it has used CPU time, none of theirs has moved.
//!
//! One thing escapes that: what the kernel sends by a timer of its own, from one of them straight to another one, a
//! keepalive of a connection on which nothing happens, say. So the traffic of each is read now and then all the same.

use crate::traffic::{Interface, Traffic};
use std::collections::HashMap;

/// Readings in which all behind a parent are read once something has moved there. What was on its way at the first one,
/// in a queue or for a timer of less than a second, has arrived at the second.
const STIRRED_FOR: u8 = 2;

/// Starts that there have been and replicas that live: no replica comes or goes without changing either.
pub type Lives = (u64, usize);

/// Received and sent.
type Bytes = (u64, u64);

/// The parents as they were at the last reading.
#[derive(Debug, Default)]
pub struct Parents {
    known: HashMap<u32, Parent>,
    lives: Lives,
}

#[derive(Debug, Default)]
struct Parent {
    carried: Option<Bytes>,
    /// Readings that it is not quiet for.
    stirred: u8,
}

impl Parents {
    /// Asks the parents, each with whether a replica behind it has used CPU time since the last reading. Must come after
    /// that has been found out of all that live, and before the traffic of any is read.
    pub fn look(&mut self, traffic: &mut Traffic, lives: Lives, behind: &HashMap<u32, bool>) {
        let indices: Vec<u32> = behind.keys().copied().collect();
        let own = |index: &u32| Interface { namespace: None, index: *index };
        let interfaces: Vec<Interface> = indices.iter().map(own).collect();
        let mut carried = vec![None; indices.len()];
        if let Err(error) = traffic.read(&interfaces, |place, told| carried[place] = told) {
            // Those are not quiet then.
            tracing::debug!("parents are not asked: {error}");
        }
        let now = indices.into_iter().zip(carried).map(|(index, told)| (index, told, behind[&index]));
        self.take(lives, now);
    }

    /// What each parent has carried, if it has told, and whether a replica behind it has run.
    fn take(&mut self, lives: Lives, now: impl IntoIterator<Item = (u32, Option<Bytes>, bool)>) {
        let changed = std::mem::replace(&mut self.lives, lives) != lives;
        let mut known = HashMap::new();
        for (index, carried, ran) in now {
            let before = self.known.remove(&index).unwrap_or_default();
            let still = carried.is_some() && before.carried == carried && !ran && !changed;
            let stirred = if still { before.stirred.saturating_sub(1) } else { STIRRED_FOR };
            known.insert(index, Parent { carried, stirred });
        }
        self.known = known;
    }

    /// Whether nothing that is behind these has sent or received anything since the reading before the last one.
    pub fn are_quiet(&self, parents: &[u32]) -> bool {
        parents.iter().all(|index| self.known.get(index).is_some_and(|parent| parent.stirred == 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_quiet_once_nothing_has_moved_twice() {
        let (mut parents, lives) = (Parents::default(), (10, 5));
        let quiet = |parents: &mut Parents, lives, carried, ran| {
            parents.take(lives, [(7, carried, ran), (8, Some((0, 0)), false)]);
            parents.are_quiet(&[7])
        };
        assert!(!parents.are_quiet(&[7]), "nobody has asked yet");
        let (some, more) = (Some((5, 5)), Some((5, 6)));
        for (lives, carried, ran, expected) in [
            (lives, some, false, false),
            (lives, some, false, false),
            (lives, some, false, true),
            (lives, some, false, true),
            // It has sent something.
            (lives, more, false, false),
            (lives, more, false, false),
            (lives, more, false, true),
            // A replica has run.
            (lives, more, true, false),
            (lives, more, false, false),
            (lives, more, false, true),
            // One has ended, and another one has started and ended.
            ((10, 4), more, false, false),
            ((11, 4), more, false, false),
            ((11, 4), more, false, false),
            ((11, 4), more, false, true),
            // It does not answer.
            ((11, 4), None, false, false),
            ((11, 4), None, false, false),
        ] {
            assert_eq!(quiet(&mut parents, lives, carried, ran), expected, "{lives:?} {carried:?} {ran}");
        }
        assert!(parents.are_quiet(&[8]) && !parents.are_quiet(&[8, 7]), "each by itself");
        assert!(!parents.are_quiet(&[8, 9]), "one that nobody has asked");
    }
}
