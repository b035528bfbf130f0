//! Which thread multiplies which rows with which panel, in tiles that a kernel sums in registers.

use std::{iter::zip, ops::Range};

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::panels::{LANES, Line, Panels};
use crate::processor::Processor;

/// Rows of a task at most: what they are multiplied from and their sums stay in the second-level cache beside a panel.
const MOST_ROWS: usize = 128;

/// Rows of a task at least, where there are as many: below, a panel comes too often from memory.
const LEAST_ROWS: usize = 48;

/// Tasks for each thread, so that threads end at about the same time.
const TASKS_OF_THREAD: usize = 4;

/// Lines that are worth waking another thread for, each counted once for all the rows of a tile: about 10 µs.
const WORTH_A_THREAD: usize = 2048;

/// Rows of activations, as wide as the steps of the weights.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a, X> {
    numbers: &'a [X],
    count: usize,
    /// Numbers from a row to the next.
    stride: usize,
}

impl<'a, X> Rows<'a, X> {
    /// All rows of `numbers`.
    pub fn new(numbers: &'a [X], count: usize, stride: usize) -> Self {
        assert_eq!(numbers.len(), count * stride, "numbers of the rows");
        Self {
            numbers,
            count,
            stride,
        }
    }

    /// Some rows.
    fn part(self, rows: Range<usize>) -> Self {
        Self {
            numbers: &self.numbers[rows.start * self.stride..rows.end * self.stride],
            count: rows.len(),
            ..self
        }
    }

    /// How many rows there are.
    pub fn count(self) -> usize {
        self.count
    }

    /// Numbers from a row to the next.
    pub fn stride(self) -> usize {
        self.stride
    }

    /// All numbers from the first row's first on.
    pub fn numbers(self) -> &'a [X] {
        self.numbers
    }

    /// The first number, from which a kernel may read `width` numbers of each of `count` rows.
    #[inline(always)]
    pub fn checked(self, count: usize, width: usize) -> *const X {
        let before_last = count.saturating_sub(1) * self.stride;
        assert!(self.count == count && self.numbers.len() >= before_last + width);
        self.numbers.as_ptr()
    }
}

/// Adds to `sums`, `[rows, lines of a step]`, the products of rows and of a panel.
pub type Tile<X, G, S> = unsafe fn(x: Rows<'_, X>, weights: &[Line<G>], sums: &mut [Line<S>]);

/// The sums of a tile of so many rows.
#[inline(always)]
pub fn rows_of_sums<S, const ROWS: usize, const WIDTH: usize>(
    sums: &mut [Line<S>],
) -> &mut [[Line<S>; WIDTH]; ROWS] {
    let (rows, _) = sums.as_chunks_mut();
    rows.try_into().expect("lines of sums for each row")
}

/// Calls a function with a number of rows as a constant: `for_rows!(x.count(), [1, 2], |R| tile_of::<R>(x))` is
/// `tile_of::<1>(x)` or `tile_of::<2>(x)`. It is no function with a closure, which would be compiled without vectors.
macro_rules! for_rows {
    ($rows:expr, [$($count:literal),+], |$name:ident| $call:expr) => {
        match $rows {
            $($count => {
                const $name: usize = $count;
                $call
            })+
            rows => unreachable!("{rows} rows"),
        }
    };
}
pub(super) use for_rows;

/// How rows of `X` and groups `G` of weights are multiplied, with sums in `S`.
#[derive(Clone, Copy, Debug)]
pub struct Kernel<X, G, S> {
    /// Rows of a tile at most.
    pub rows: usize,
    /// Lines of a step.
    pub width: usize,
    /// Numbers of a row in a step.
    pub inputs: usize,
    /// Multiplies a tile. It may use vectors that not every processor has: [`super::bf16::choose`] and
    /// [`super::int8::choose`] give a kernel to processors that have them.
    pub tile: Tile<X, G, S>,
}

/// The initial sums, and the function that stores the final ones.
pub trait Sums<S>: Sync {
    /// The initial sums of a panel, in every row.
    fn start(&self, panel: usize, sums: &mut [Line<S>]);

    /// Makes the results `y` of some outputs of a row of the sums. It is compiled for the processor's vectors, into
    /// its caller.
    fn finish(&self, row: usize, outputs: Range<usize>, sums: &[S], y: &mut [f32]);
}

/// `[rows, d_output]`: `sums` of the rows of `x` and `weights`.
pub fn multiply<X, G, S>(
    processor: Processor,
    kernel: &Kernel<X, G, S>,
    weights: &Panels<G>,
    x: Rows<'_, X>,
    sums: &impl Sums<S>,
) -> Vec<f32>
where
    X: Copy + Sync,
    G: Copy + Default + Send + Sync,
    S: Copy + Default + Send,
{
    let (d_output, steps, width) = (weights.d_output(), weights.steps(), weights.width());
    assert_eq!(width, kernel.width, "weights are packed for another kernel");
    assert_eq!(x.stride, steps * kernel.inputs, "numbers of a row");
    let count = x.count * d_output;
    let mut y = Vec::with_capacity(count);
    if count > 0 {
        let output = Output(y.as_mut_ptr());
        let panels = d_output.div_ceil(weights.outputs());
        let of_task = rows_of_task(x.count, panels).next_multiple_of(kernel.rows);
        let parts = x.count.div_ceil(of_task);
        let lines = steps * width * of_task.min(x.count).div_ceil(kernel.rows);
        let together = WORTH_A_THREAD / lines.max(1);
        let tasks = (0..panels * parts).into_par_iter();
        let tasks = tasks.with_min_len(together.max(1));
        tasks.for_each_init(Vec::new, |memory, i| {
            let (panel, part) = (i / parts, i % parts);
            let task = Task {
                processor,
                kernel,
                weights,
                x,
                sums,
                panel,
                rows: part * of_task..x.count.min((part + 1) * of_task),
            };
            // SAFETY: `y` has room for all rows, and no other task has these rows and this panel.
            unsafe { task.run(memory, output) };
        });
    }
    // SAFETY: there is room for so many numbers, and the tasks have written all of them: every row of every panel.
    unsafe { y.set_len(count) };
    y
}

/// Rows of a task, so that there are enough tasks for all threads.
fn rows_of_task(rows: usize, panels: usize) -> usize {
    let wanted = (TASKS_OF_THREAD * rayon::current_num_threads()).div_ceil(panels);
    let parts = wanted.min(rows / LEAST_ROWS).max(rows.div_ceil(MOST_ROWS));
    rows.div_ceil(parts.max(1))
}

/// The first of all results, to which each task writes its own.
#[derive(Clone, Copy)]
struct Output(*mut f32);

// SAFETY: tasks write to different results.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

/// Some rows times a panel.
struct Task<'a, X, G, S, M> {
    processor: Processor,
    kernel: &'a Kernel<X, G, S>,
    weights: &'a Panels<G>,
    x: Rows<'a, X>,
    sums: &'a M,
    panel: usize,
    rows: Range<usize>,
}

impl<X, G, S, M> Task<'_, X, G, S, M>
where
    X: Copy,
    G: Copy + Default + Send + Sync,
    S: Copy + Default,
    M: Sums<S>,
{
    /// Writes all results of the task, in `memory` of earlier tasks.
    ///
    /// # Safety
    ///
    /// `output` has room for all rows of all outputs, and nobody else uses those of this task meanwhile.
    unsafe fn run(&self, memory: &mut Vec<Line<S>>, output: Output) {
        let (d_output, width) = (self.weights.d_output(), self.weights.width());
        memory.resize(self.rows.len() * width, Line::default());
        let (first, others) = memory.split_at_mut(width);
        self.sums.start(self.panel, first);
        for row in others.chunks_exact_mut(width) {
            row.copy_from_slice(first);
        }
        let lines = self.weights.panel(self.panel);
        for tile in even_parts(self.rows.len(), self.kernel.rows) {
            let rows = self.rows.start + tile.start..self.rows.start + tile.end;
            let sums = &mut memory[tile.start * width..tile.end * width];
            // SAFETY: `choose` gives a kernel only to processors that have its vectors.
            unsafe { (self.kernel.tile)(self.x.part(rows), lines, sums) };
        }
        let first = self.panel * width * LANES;
        let outputs = first..d_output.min(first + width * LANES);
        for (row, lines) in zip(self.rows.clone(), memory.chunks_exact(width)) {
            // SAFETY: the caller gives room for all rows, and these results to this task alone.
            let y = unsafe {
                let y = output.0.add(row * d_output + outputs.start);
                // Of numbers that nobody has written yet, a slice may not be made.
                y.write_bytes(0, outputs.len());
                std::slice::from_raw_parts_mut(y, outputs.len())
            };
            self.processor.run(Finish {
                sums: self.sums,
                row,
                outputs: outputs.clone(),
                lines,
                y,
            });
        }
    }
}

/// So few parts of `count` that each has `most` at most, and all are as long or one shorter.
fn even_parts(count: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let parts = count.div_ceil(most);
    (0..parts).map(move |i| i * count / parts..(i + 1) * count / parts)
}

/// The results of a row. (A closure of this size is not inlined, and then compiled without the processor's vectors.)
struct Finish<'a, S, M> {
    sums: &'a M,
    row: usize,
    outputs: Range<usize>,
    lines: &'a [Line<S>],
    y: &'a mut [f32],
}

impl<S: Copy, M: Sums<S>> WithSimd for Finish<'_, S, M> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) {
        let mut first = self.outputs.start;
        for (line, y) in zip(self.lines, self.y.chunks_mut(LANES)) {
            let outputs = first..first + y.len();
            first = outputs.end;
            self.sums.finish(self.row, outputs, &line.0[..y.len()], y);
        }
    }
}
