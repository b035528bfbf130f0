//! Which instructions the kernels use: what the processor has, capped by `RAG_CPU`.

use std::{cell::Cell, env, fmt, str::FromStr, sync::LazyLock};

use pulp::{Scalar, Simd, WithSimd};

#[cfg(target_arch = "x86_64")]
use crate::amx;

/// The environment variable that caps the instructions.
const VARIABLE: &str = "RAG_CPU";

/// A set of instructions. On x86-64 each includes those before it; `Neon` is aarch64's.
///
/// An operation asks once, on the thread that calls it, for [`Processor::current`], and hands it to its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Processor {
    /// Plain Rust, compiled for the target's baseline.
    Portable,
    /// Vectors of 128 bits on aarch64.
    Neon,
    /// Vectors of 256 bits and FMA.
    Avx2,
    /// Vectors of 512 bits.
    Avx512,
    /// Matrix units for bf16, beside AVX-512.
    Amx,
}

/// `RAG_CPU` names no instructions that this processor has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("RAG_CPU is {found:?}; expected one of {expected} on this processor")]
pub struct UnknownProcessor {
    /// The variable's value.
    pub found: String,
    /// The values that it can have on this processor.
    pub expected: String,
}

thread_local! {
    /// Instructions that this thread uses in place of those that are allowed.
    static FORCED: Cell<Option<Processor>> = const { Cell::new(None) };
}

impl Processor {
    const ALL: [Self; 5] = [
        Self::Portable,
        Self::Neon,
        Self::Avx2,
        Self::Avx512,
        Self::Amx,
    ];

    /// The best that this processor has and the system lets a program use.
    pub fn detected() -> Self {
        static DETECTED: LazyLock<Processor> = LazyLock::new(|| {
            let best = Processor::ALL.into_iter().rev().find(|it| it.is_present());
            best.unwrap_or(Processor::Portable)
        });
        *DETECTED
    }

    /// All that this processor has, the plainest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|it| it.is_available())
    }

    /// The best that this processor has, or what the environment variable `RAG_CPU` says (`portable`, `neon`, `avx2`,
    /// `avx512` or `amx`), which is read once.
    ///
    /// # Errors
    /// [`UnknownProcessor`] where the variable names nothing that this processor has.
    pub fn allowed() -> Result<Self, UnknownProcessor> {
        static ALLOWED: LazyLock<Result<Processor, UnknownProcessor>> =
            LazyLock::new(|| match env::var_os(VARIABLE) {
                Some(name) => name.to_string_lossy().parse(),
                None => Ok(Processor::detected()),
            });
        ALLOWED.clone()
    }

    /// Instructions that the operations of this thread use.
    ///
    /// # Panics
    /// If `RAG_CPU` names nothing that this processor has: see [`Processor::allowed`].
    pub fn current() -> Self {
        let allowed = || Self::allowed().unwrap_or_else(|error| panic!("{error}"));
        FORCED.get().unwrap_or_else(allowed)
    }

    /// Runs a closure compiled for these instructions, with all that is inlined into it. One that is not
    /// `#[inline(always)]`, or is too large, is compiled as a function of its own, without vectors: such a kernel is better a
    /// [`WithSimd`], for [`Processor::run`].
    #[inline(always)]
    pub(crate) fn vectorise<R>(self, kernel: impl FnMut() -> R) -> R {
        /// Calls the closure by reference. pulp calls it by value, through a function that the compiler makes and may leave
        /// without vectors: log-softmax then calls a function for each multiplication, and takes five times as long.
        struct ByReference<F>(F);

        impl<R, F: FnMut() -> R> WithSimd for ByReference<F> {
            type Output = R;

            #[inline(always)]
            fn with_simd<S: Simd>(mut self, _: S) -> R {
                (self.0)()
            }
        }

        self.run(ByReference(kernel))
    }

    /// Runs a kernel compiled for these instructions.
    #[inline(always)]
    pub(crate) fn run<K: WithSimd>(self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        {
            use pulp::x86::{V3, V4};
            if self >= Self::Avx512
                && let Some(simd) = V4::try_new()
            {
                return Simd::vectorize(simd, kernel);
            }
            if self >= Self::Avx2
                && let Some(simd) = V3::try_new()
            {
                return Simd::vectorize(simd, kernel);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if self == Self::Neon
            && let Some(simd) = pulp::aarch64::Neon::try_new()
        {
            return Simd::vectorize(simd, kernel);
        }
        Simd::vectorize(Scalar, kernel)
    }

    fn is_available(self) -> bool {
        self <= Self::detected() && self.is_of_this_architecture()
    }

    fn is_of_this_architecture(self) -> bool {
        match self {
            Self::Portable => true,
            Self::Neon => cfg!(target_arch = "aarch64"),
            Self::Avx2 | Self::Avx512 | Self::Amx => cfg!(target_arch = "x86_64"),
        }
    }

    fn is_present(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => pulp::aarch64::Neon::try_new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => pulp::x86::V3::try_new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => pulp::x86::V4::try_new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Amx => pulp::x86::V4::try_new().is_some() && amx::available(),
            _ => false,
        }
    }
}

impl fmt::Display for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        })
    }
}

impl FromStr for Processor {
    type Err = UnknownProcessor;

    /// One that this processor has, by its name in lower case.
    fn from_str(name: &str) -> Result<Self, UnknownProcessor> {
        let named = Self::available().find(|it| it.to_string() == name);
        named.ok_or_else(|| UnknownProcessor {
            found: name.into(),
            expected: Self::available()
                .map(|it| it.to_string())
                .collect::<Vec<_>>()
                .join(", "),
        })
    }
}

/// Runs a computation whose operations use these instructions, for tests that compare them.
///
/// # Panics
/// If this processor does not have them.
#[doc(hidden)]
pub fn with_processor<R>(processor: Processor, compute: impl FnOnce() -> R) -> R {
    assert!(
        processor.is_available(),
        "this processor has no {processor}"
    );
    with_forced(Some(processor), compute)
}

/// Instructions that this thread is forced to use, if any.
pub(crate) fn forced() -> Option<Processor> {
    FORCED.get()
}

/// Runs a computation that is forced as another thread is.
pub(crate) fn with_forced<R>(processor: Option<Processor>, compute: impl FnOnce() -> R) -> R {
    struct Restore(Option<Processor>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORCED.set(self.0);
        }
    }
    let _restore = Restore(FORCED.replace(processor));
    compute()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_are_those_of_what_the_processor_has() {
        let names: Vec<_> = Processor::available().map(|it| it.to_string()).collect();
        // `.ci/run` reads this line.
        println!("processors: {}", names.join(" "));
        for (processor, name) in Processor::available().zip(names) {
            assert_eq!(name.parse(), Ok(processor));
        }
        let error = "sse9".parse::<Processor>().unwrap_err();
        assert_eq!(error.found, "sse9");
        assert!(error.expected.starts_with("portable"), "{error}");
        #[cfg(target_arch = "x86_64")]
        assert!("neon".parse::<Processor>().is_err());
    }

    #[test]
    fn what_is_forced_is_forced_on_this_thread_and_within() {
        let before = Processor::current();
        with_processor(Processor::Portable, || {
            assert_eq!(Processor::current(), Processor::Portable);
            with_processor(Processor::detected(), || {
                assert_eq!(Processor::current(), Processor::detected());
            });
            assert_eq!(Processor::current(), Processor::Portable);
            let elsewhere = std::thread::spawn(Processor::current).join().unwrap();
            assert_eq!(elsewhere, before);
        });
        assert_eq!(Processor::current(), before);
    }
}
