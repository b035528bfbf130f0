//! Computations of many small steps that the CPU's cores share.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rayon::Yield;

use crate::processor::{forced, with_forced};

/// How long a thread looks for work in vain. Without an end, threads that look on behalf of two computations, each
/// on top of a step that the other waits for, would look for ever.
const PATIENCE: Duration = Duration::from_micros(200);

/// Runs a computation on one of rayon's threads, so that none of its many small steps waits for them to wake up. The
/// others look for work as long as it lasts.
pub fn among_workers<R: Send>(compute: impl FnOnce() -> R + Send) -> R {
    let forced = forced();
    rayon::scope(|_| {
        let _awake = Awake::new();
        with_forced(forced, compute)
    })
}

/// While it lives, the other threads do not sleep, as they would by themselves between two steps. To wake one up
/// takes longer than many a step.
struct Awake(Arc<AtomicBool>);

impl Awake {
    fn new() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let here = rayon::current_thread_index();
        let awake = Self(over.clone());
        rayon::spawn_broadcast(move |thread| {
            if here != Some(thread.index()) {
                look_for_work(&over);
            }
        });
        awake
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn look_for_work(over: &AtomicBool) {
    thread_local! {
        /// Whether this thread looks already: what it finds may be another computation, which asks it to.
        static LOOKS: Cell<bool> = const { Cell::new(false) };
    }
    if LOOKS.replace(true) {
        return;
    }
    let mut last = Instant::now();
    while !over.load(Ordering::Relaxed) && last.elapsed() < PATIENCE {
        match rayon::yield_now() {
            Some(Yield::Executed) => last = Instant::now(),
            _ => thread::yield_now(),
        }
    }
    LOOKS.set(false);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::thread;

    use rayon::prelude::*;

    use super::*;

    fn shared(step: usize) -> usize {
        (0..64_usize).into_par_iter().map(|i| i + step).sum()
    }

    #[test]
    fn computations_within_each_other_and_at_once_end() {
        let sum = || (0..200).map(shared).sum::<usize>();
        let expected = sum();
        thread::scope(|scope| {
            let within = || among_workers(|| among_workers(sum));
            let askers: Vec<_> = (0..8).map(|_| scope.spawn(within)).collect();
            for asker in askers {
                assert_eq!(asker.join().unwrap(), expected);
            }
        });
    }

    #[test]
    fn one_computation_after_the_other_leaves_nothing_behind() {
        for step in 0..50_000 {
            let found = among_workers(|| shared(step));
            assert_eq!(found, 64 * 63 / 2 + 64 * step);
        }
    }
}
