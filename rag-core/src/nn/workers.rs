//! Computations of many small steps, each of which the CPU's cores share.

use burn::tensor::Device;

/// Runs a computation of a device on one of the threads that share the CPU's work, so that none of its many small
/// steps waits for them to wake up. The others look for work as long as it lasts.
///
/// With glibc, the process keeps up to 64 MB that are given back from then on, for what is computed next.
pub fn among_workers<R: Send>(device: &Device, compute: impl FnOnce() -> R + Send) -> R {
    #[cfg(feature = "flex")]
    if super::fuses(device) && !device.is_autodiff() {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        keep_pages();
        return rayon::scope(|_| {
            let _awake = flex::Awake::new();
            compute()
        });
    }
    let _ = device;
    compute()
}

/// Lets glibc keep pages for what is computed next. It gives memory at the end of its heap back to the system as soon as
/// there is twice as much as the largest block that it has seen freed, and what a layer makes is cleared by the system
/// page by page, and given back, once a layer. A block as large as it takes note of (32 MB), freed without being touched,
/// spares both.
#[cfg(all(feature = "flex", target_os = "linux", target_env = "gnu"))]
fn keep_pages() {
    use std::{hint::black_box, sync::Once};

    const LARGEST: usize = (32 << 20) - (64 << 10);
    static DONE: Once = Once::new();
    DONE.call_once(|| drop(black_box(Vec::<u8>::with_capacity(LARGEST))));
}

#[cfg(feature = "flex")]
mod flex {
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

    /// How long a thread looks for work in vain. Without an end, threads that look on behalf of two computations, each
    /// on top of a step that the other waits for, would look for ever.
    const PATIENCE: Duration = Duration::from_micros(200);

    /// While it lives, the other threads do not sleep, as they would by themselves between two steps. To wake one up
    /// takes longer than many a step.
    pub struct Awake(Arc<AtomicBool>);

    impl Awake {
        pub fn new() -> Self {
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
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::thread;

    use rayon::prelude::*;

    use super::*;
    use crate::device;

    fn shared(step: usize) -> usize {
        (0..64_usize).into_par_iter().map(|i| i + step).sum()
    }

    #[test]
    fn computations_within_each_other_and_at_once_end() {
        let device = device("cpu").unwrap();
        let sum = || (0..200).map(shared).sum::<usize>();
        let expected = sum();
        thread::scope(|scope| {
            let within = || among_workers(&device, || among_workers(&device, sum));
            let askers: Vec<_> = (0..8).map(|_| scope.spawn(within)).collect();
            for asker in askers {
                assert_eq!(asker.join().unwrap(), expected);
            }
        });
    }

    #[test]
    fn one_computation_after_the_other_leaves_nothing_behind() {
        let device = device("cpu").unwrap();
        for step in 0..50_000 {
            let found = among_workers(&device, || shared(step));
            assert_eq!(found, 64 * 63 / 2 + 64 * step);
        }
    }
}
