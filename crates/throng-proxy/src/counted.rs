//! Things that are counted as long as they live, however they end.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// One more in `C` until it is dropped: what is given up or fails half way is not counted for ever.
pub(crate) struct Counted<C: Deref<Target = AtomicUsize>> {
    counter: C,
    /// The count when this one was added, itself included.
    count: usize,
}

impl<C: Deref<Target = AtomicUsize>> Counted<C> {
    pub fn new(counter: C) -> Counted<C> {
        let count = counter.fetch_add(1, SeqCst) + 1;
        Counted { counter, count }
    }

    pub fn count(&self) -> usize {
        self.count
    }
}

impl<C: Deref<Target = AtomicUsize>> Drop for Counted<C> {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, SeqCst);
    }
}
