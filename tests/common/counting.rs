//! The memory that a computation takes, counted by the allocator.

// A global allocator that counts is an unsafe trait; there is no other way to measure the peak of one computation.
#![allow(unsafe_code, dead_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use burn_rag::burn::tensor::{Device, Tensor};

/// The system's allocator, counting bytes.
struct Counting {
    now: AtomicU64,
    peak: AtomicU64,
}

impl Counting {
    fn add(&self, bytes: usize) {
        let now = self.now.fetch_add(bytes as u64, Relaxed) + bytes as u64;
        self.peak.fetch_max(now, Relaxed);
    }

    fn subtract(&self, bytes: usize) {
        self.now.fetch_sub(bytes as u64, Relaxed);
    }
}

// Every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.add(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.add(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.subtract(layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.add(size);
        self.subtract(layout.size());
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting {
    now: AtomicU64::new(0),
    peak: AtomicU64::new(0),
};

/// All tests of a process count in one allocator, and so run one after the other.
///
/// Threads that multiply matrices keep a buffer each, as large as the processor's second-level cache. They are
/// no part of a step, and there before it is measured.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let guard = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let multiply = || {
        let ones = Tensor::<2>::ones([128, 128], &Device::flex());
        drop(ones.clone().matmul(ones));
    };
    multiply();
    rayon::broadcast(|_| multiply());
    guard
}

/// The most bytes that were allocated at once beyond what was before.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> u64 {
    peak_and_kept(work).0
}

/// The most bytes that were allocated at once while `work` ran, and those that its result keeps, beyond what was before.
pub fn peak_and_kept<T>(work: impl FnOnce() -> T) -> (u64, u64, T) {
    let before = ALLOCATOR.now.load(Relaxed);
    ALLOCATOR.peak.store(before, Relaxed);
    let result = work();
    let [peak, now] = [&ALLOCATOR.peak, &ALLOCATOR.now].map(|bytes| bytes.load(Relaxed));
    (peak - before, now.saturating_sub(before), result)
}
