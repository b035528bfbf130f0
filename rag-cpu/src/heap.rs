//! Memory that the process keeps for the next computation.

/// Lets glibc keep up to 64 MB of freed memory for the rest of the process, instead of giving it back to the system;
/// call it once, at the start of a program that answers, embeds or trains many times. It does nothing elsewhere.
///
/// glibc returns memory at the end of its heap to the system as soon as there is twice as much of it as the largest block
/// that it has seen freed. What a layer computes is then returned, and cleared page by page by the system, once a layer.
/// This frees one block as large as glibc takes note of (32 MB), without touching it. Embedding with all-MiniLM-L6-v2
/// went from 104 to 165 passages a second (2 threads of a Xeon with AVX-512 and AMX, 2026-11-22, `docs/decisions.md`).
///
/// It is not the library's to decide: it changes how much memory the whole process holds.
pub fn keep_freed_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::{hint::black_box, sync::Once};

        const LARGEST_BYTES: usize = (32 << 20) - (64 << 10);
        static DONE: Once = Once::new();
        DONE.call_once(|| drop(black_box(Vec::<u8>::with_capacity(LARGEST_BYTES))));
    }
}
