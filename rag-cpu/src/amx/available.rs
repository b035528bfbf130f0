//! Whether the processor has matrix units, and the system lets this process use them.

use std::{
    arch::x86_64::{__cpuid, __cpuid_count, _xgetbv},
    sync::LazyLock,
};

/// Whether instructions on tile registers can be used (in tests, or emulated), and AVX-512 beside them.
pub(crate) fn available() -> bool {
    static AVAILABLE: LazyLock<bool> = LazyLock::new(|| vectors() && (units() || cfg!(test)));
    *AVAILABLE
}

/// Whether the matrix units, which are [`available`], multiply int8 too.
pub(crate) fn int8_available() -> bool {
    available() && (!units() || has(AMX_INT8))
}

/// Whether the instructions on tile registers are emulated.
#[cfg(test)]
pub(super) fn emulated() -> bool {
    !units()
}

/// The vectors that numbers are packed with.
fn vectors() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
}

/// Whether the processor has tile registers for bf16, the system saves them, and lends them to this process.
fn units() -> bool {
    static UNITS: LazyLock<bool> = LazyLock::new(|| has(AMX_TILE | AMX_BF16) && saved() && lent());
    *UNITS
}

/// Bits of CPUID's leaf 7, EDX.
const AMX_BF16: u32 = 1 << 22;
const AMX_TILE: u32 = 1 << 24;
const AMX_INT8: u32 = 1 << 25;

/// Whether CPUID's leaf 7 has all these bits in EDX.
#[allow(unused_unsafe)]
fn has(bits: u32) -> bool {
    // SAFETY: every x86-64 has CPUID, and leaf 0 says whether it has leaf 7.
    unsafe { __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & bits == bits }
}

/// Whether the system saves tile registers when threads take turns: bits `XTILECFG` and `XTILEDATA` of XCR0.
#[allow(unused_unsafe)]
fn saved() -> bool {
    #[target_feature(enable = "xsave")]
    fn enabled() -> u64 {
        // SAFETY: the caller has found OSXSAVE, with which XGETBV and its register 0 exist.
        unsafe { _xgetbv(0) }
    }
    const OSXSAVE: u32 = 1 << 27;
    const TILES: u64 = 0b11 << 17;
    // SAFETY: every x86-64 has CPUID and its leaf 1.
    let os_saves = unsafe { __cpuid(1).ecx & OSXSAVE != 0 };
    // SAFETY: OSXSAVE says that the processor has XSAVE, and that the system has enabled XGETBV.
    os_saves && unsafe { enabled() } & TILES == TILES
}

/// Asks Linux to lend the tile registers to the whole process (`arch_prctl`, `ARCH_REQ_XCOMP_PERM`, 18 for `XTILEDATA`).
/// Other systems lend them without being asked.
fn lent() -> bool {
    #[cfg(target_os = "linux")]
    {
        const ARCH_PRCTL: isize = 158;
        let error: isize;
        // SAFETY: the system call reads and writes no memory of the program's; RAX, RCX and R11, which it overwrites, are
        // declared.
        unsafe {
            std::arch::asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => error,
                in("rdi") 0x1023,
                in("rsi") 18,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        error == 0
    }
    #[cfg(not(target_os = "linux"))]
    true
}
