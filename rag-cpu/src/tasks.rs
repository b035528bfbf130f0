//! Kernels over the rows of a tensor, shared by all cores.

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use crate::{
    flex::{contiguous, exclusive, of_elements, slice},
    processor::Processor,
};

/// Elements of a task: what fits the second-level cache twice over.
pub(crate) const ELEMENTS_PER_TASK: usize = 16 * 1024;

/// Columns of a task that sums rows up.
const COLUMNS_PER_TASK: usize = 512;

/// Applies `kernel` to tasks of whole rows of `x`, each with the index of its first element; in place where nobody else
/// holds the tensor.
pub(crate) fn each_task(
    processor: Processor,
    x: FlexTensor,
    width: usize,
    kernel: impl Fn(usize, &mut [f32]) + Sync,
) -> FlexTensor {
    let mut x = contiguous(x);
    let (several, task) = tasks(x.layout().num_elements(), width);
    let kernel = |(i, x): (usize, &mut [f32])| {
        processor.vectorise(
            #[inline(always)]
            || kernel(i * task, x),
        )
    };
    if let Some(elements) = exclusive(&mut x) {
        match several {
            true => elements.par_chunks_mut(task).enumerate().for_each(kernel),
            false => kernel((0, elements)),
        }
        return x;
    }
    let elements = slice(&x);
    let mut y = vec![0.0; elements.len()];
    let copied = |(i, (y, x)): (usize, (&mut [f32], &[f32]))| {
        y.copy_from_slice(x);
        kernel((i, y));
    };
    match several {
        true => y
            .par_chunks_mut(task)
            .zip(elements.par_chunks(task))
            .enumerate()
            .for_each(copied),
        false => copied((0, (&mut y, elements))),
    }
    of_elements(y, x.layout().shape().clone())
}

/// Like [`each_task`], beside another tensor of the same shape.
pub(crate) fn each_task_with(
    processor: Processor,
    x: FlexTensor,
    other: &FlexTensor,
    width: usize,
    kernel: impl Fn(&mut [f32], &[f32]) + Sync,
) -> FlexTensor {
    let other = other.to_contiguous();
    let other = slice(&other);
    each_task(
        processor,
        x,
        width,
        #[inline(always)]
        |first, x| {
            kernel(x, &other[first..first + x.len()]);
        },
    )
}

/// The tensor, or a copy where others hold it too.
pub(crate) fn owned(processor: Processor, x: FlexTensor) -> FlexTensor {
    each_task(processor, x, 1, |_, _| {})
}

/// Whether so many elements are several tasks, and the elements of one: whole rows.
pub(crate) fn tasks(elements: usize, width: usize) -> (bool, usize) {
    let task = width.max(1) * (ELEMENTS_PER_TASK / width.max(1)).max(1);
    (elements > task, task)
}

/// Adds rows of as many elements as there are sums.
pub(crate) fn add_rows(rows: &[f32], sums: &mut [f32]) {
    let columns = sums.len();
    let tasks = sums.par_chunks_mut(COLUMNS_PER_TASK).enumerate();
    tasks.for_each(|(i, sums)| {
        for row in rows.chunks_exact(columns) {
            let row = &row[i * COLUMNS_PER_TASK..][..sums.len()];
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
    });
}
