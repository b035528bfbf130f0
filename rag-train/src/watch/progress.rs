use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two lines where there is no terminal to draw a bar on.
const EVERY: Duration = Duration::from_secs(30);

/// How far a run is: a bar on a terminal, a line now and then elsewhere.
pub(crate) struct Bar {
    bar: ProgressBar,
    begun: Instant,
    /// Steps that were done before.
    before: usize,
    said: Cell<Instant>,
}

impl Bar {
    /// A run that has done `step` of `steps`.
    pub(crate) fn new(step: usize, steps: usize) -> Self {
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} steps  {msg}  {eta} left")
            .expect("the template is constant");
        let bar = ProgressBar::new(steps as u64).with_style(style);
        bar.set_position(step as u64);
        bar.enable_steady_tick(Duration::from_millis(500));
        Self {
            bar,
            begun: Instant::now(),
            before: step,
            said: Cell::new(Instant::now()),
        }
    }

    /// One step more; `message` says how it went.
    pub(crate) fn step(&self, message: String) {
        self.bar.inc(1);
        if self.bar.is_hidden() && self.said.get().elapsed() >= EVERY {
            self.said.set(Instant::now());
            let (step, steps) = (self.bar.position(), self.bar.length().unwrap_or(0));
            let done = step - self.before as u64;
            let left = self.begun.elapsed().as_secs_f64() / done as f64 * (steps - step) as f64;
            eprintln!("{step}/{steps} steps  {message}  {left:.0} s left");
        }
        self.bar.set_message(message);
    }

    /// A line above the bar, or a plain line where there is none.
    pub(crate) fn say(&self, line: &str) {
        if self.bar.is_hidden() {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }
}

/// A run that fails clears its bar, too.
impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
