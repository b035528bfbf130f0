//! The order of packed weights in memory.
//!
//! A *group* is the weights of one output for some consecutive inputs: 2 of bf16 or 4 of int8, 32 bits. A *line* is the
//! groups of 16 outputs for the same inputs, 64 bytes. A *step* is some lines, one for each 16 outputs of a panel. A
//! *panel* is all steps of its outputs, so that a kernel reads it from its first byte to its last. Outputs that are
//! missing in the last panel have weights of 0.

use rayon::prelude::*;

/// Outputs of a line.
pub const LANES: usize = 16;

/// 64 bytes of weights or sums, aligned as the processor's caches are.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Line<G>(pub [G; LANES]);

/// Weights `[d_output, steps]`, in groups.
#[derive(Clone, Debug)]
pub struct Panels<G> {
    lines: Vec<Line<G>>,
    d_output: usize,
    steps: usize,
    /// Lines of a step.
    width: usize,
}

impl<G: Copy + Default + Send + Sync> Panels<G> {
    /// Packs groups, which are in rows of `steps`, in panels of `width` lines a step.
    pub fn new(groups: &[G], d_output: usize, steps: usize, width: usize) -> Self {
        assert_eq!(groups.len(), d_output * steps, "groups of the weight");
        let outputs = width * LANES;
        let mut lines = vec![Line::default(); d_output.div_ceil(outputs) * steps * width];
        if steps > 0 {
            let panels = lines.par_chunks_mut(steps * width);
            let rows = groups.par_chunks(outputs * steps);
            panels.zip(rows).for_each(|(lines, rows)| {
                for (output, row) in rows.chunks(steps).enumerate() {
                    let lines = lines[output / LANES..].iter_mut().step_by(width);
                    for (line, group) in lines.zip(row) {
                        line.0[output % LANES] = *group;
                    }
                }
            });
        }
        Self {
            lines,
            d_output,
            steps,
            width,
        }
    }

    /// The groups in rows, as they were packed.
    pub fn unpacked(&self) -> Vec<G> {
        let mut groups = vec![G::default(); self.d_output * self.steps];
        if !groups.is_empty() {
            let panels = self.lines.par_chunks(self.steps * self.width);
            let rows = groups.par_chunks_mut(self.outputs() * self.steps);
            panels.zip(rows).for_each(|(lines, rows)| {
                for (output, row) in rows.chunks_mut(self.steps).enumerate() {
                    let lines = lines[output / LANES..].iter().step_by(self.width);
                    for (line, group) in lines.zip(row) {
                        *group = line.0[output % LANES];
                    }
                }
            });
        }
        groups
    }

    /// The lines of a panel, step after step.
    #[inline]
    pub fn panel(&self, panel: usize) -> &[Line<G>] {
        let lines = self.steps * self.width;
        &self.lines[panel * lines..(panel + 1) * lines]
    }

    /// Outputs of the weight, without those that fill the last panel.
    pub fn d_output(&self) -> usize {
        self.d_output
    }

    /// Steps of a panel.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Lines of a step.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Outputs of a panel.
    pub fn outputs(&self) -> usize {
        self.width * LANES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_hold_the_weight_in_order() {
        for (d_output, steps, width) in [(1, 1, 1), (16, 3, 1), (17, 3, 4), (200, 7, 2), (3, 0, 4)]
        {
            let groups: Vec<u32> = (1..).take(d_output * steps).collect();
            let panels = Panels::new(&groups, d_output, steps, width);
            assert_eq!(panels.unpacked(), groups);
            for output in 0..d_output.next_multiple_of(panels.outputs()) {
                for step in 0..steps {
                    let lines = panels.panel(output / panels.outputs());
                    let within = output % panels.outputs();
                    let found = lines[step * width + within / LANES].0[within % LANES];
                    let expected = groups
                        .get(output * steps + step)
                        .filter(|_| output < d_output);
                    assert_eq!(found, expected.copied().unwrap_or_default());
                }
            }
        }
    }
}
