//! Curves over steps: the SVG of the report, in a figure. The page's CSS colours it, for light and dark
//! screens.

use maud::{Markup, html};

use super::{
    axis::{Axis, Scale, nice},
    curve::Curve,
    number::count,
};

/// A figure with axes, curves and marks.
pub(super) struct Chart<'a> {
    pub title: &'static str,
    pub unit: &'static str,
    pub scale: Scale,
    /// First and last step of the run, the same for all charts.
    pub steps: (usize, usize),
    pub curves: Vec<Curve>,
    pub marks: &'a [Mark],
    /// Steps that were skipped.
    pub skipped: Vec<usize>,
}

/// Something that happened at a step: a numbered warning, or else a refresh of the index.
pub(super) struct Mark {
    pub step: usize,
    pub number: Option<usize>,
    pub text: String,
}

// Lengths are in units of the SVG's `viewBox`.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 626.0;
const TOP: f64 = 38.0;
const BOTTOM: f64 = 228.0;

/// Most bands of a chart that show their values where pointed at.
const BANDS: usize = 120;

/// Most points of a curve that are drawn as dots too.
const DOTS: usize = 60;

impl Chart<'_> {
    /// The figure, with a title, a key and the SVG.
    pub fn figure(mut self) -> Markup {
        for curve in &mut self.curves {
            curve.prepare(self.scale);
        }
        let values = || self.curves.iter().flat_map(|curve| &curve.points);
        let smallest = values().map(|point| point.1).reduce(f64::min);
        let largest = values().map(|point| point.1).reduce(f64::max);
        html! {
            figure {
                figcaption { h3 { (self.title) } (self.key()) }
                @if let (Some(smallest), Some(largest)) = (smallest, largest) {
                    @let axis = Axis::new(self.scale, smallest, largest);
                    @let [from, to] = [smallest, largest].map(|value| self.scale.text(value));
                    svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img"
                        aria-label={ (self.title) " over steps, from " (from) " to " (to) } {
                        (self.axes(&axis))
                        (self.bands())
                        @for curve in &self.curves { (self.curve(curve, &axis)) }
                        (self.skipped())
                        (self.marks())
                    }
                } @else {
                    p.soft.empty { "Not measured in this run." }
                }
            }
        }
    }

    /// Which colour is which curve, where there are several.
    fn key(&self) -> Markup {
        let named = || self.curves.iter().filter(|curve| curve.named);
        html! {
            @if named().count() > 1 {
                span.key {
                    @for curve in named() { span { i style=(curve.style()) {} (curve.name) } }
                }
            }
        }
    }

    fn axes(&self, axis: &Axis) -> Markup {
        let (first, last) = self.steps;
        let apart = nice((last - first) as f64 / 5.0).max(1.0) as usize;
        let steps = (first.div_ceil(apart)..=last / apart).map(|i| i * apart);
        html! {
            text x="2" y="13" { (self.unit) }
            @for &value in &axis.ticks {
                @let y = y(axis, value);
                path.grid d={ "M" (LEFT) "," (y) "H" (RIGHT) } {}
                text x=(LEFT - 7.0) y=(y) dy="4" text-anchor="end" { (self.scale.text(value)) }
            }
            @for step in steps {
                @let x = self.x(step as f64);
                path.tick d={ "M" (x) "," (BOTTOM) "v4" } {}
                text x=(x) y=(BOTTOM + 16.0) text-anchor="middle" { (count(step)) }
            }
            path.tick d={ "M" (LEFT) "," (BOTTOM) "H" (RIGHT) } {}
            text x=(RIGHT) y=(HEIGHT - 2.0) text-anchor="end" { "step" }
        }
    }

    /// Bands that show the values of all curves where they are pointed at.
    fn bands(&self) -> Markup {
        let points = self.curves.iter().flat_map(|curve| &curve.points);
        let mut steps: Vec<usize> = points.map(|point| point.0).collect();
        steps.sort_unstable();
        steps.dedup();
        let every = steps.len().div_ceil(BANDS).max(1);
        let steps: Vec<usize> = steps.into_iter().step_by(every).collect();
        // A band reaches to the middle between its neighbours.
        let middle = |a: usize, b: usize| (a + b) as f64 / 2.0;
        let band = |i: usize| {
            let begin = i
                .checked_sub(1)
                .map(|before| middle(steps[before], steps[i]));
            let end = steps.get(i + 1).map(|&next| middle(steps[i], next));
            [begin.unwrap_or(0.0), end.unwrap_or(f64::INFINITY)]
        };
        html! {
            @for (i, &step) in steps.iter().enumerate() {
                @let band = band(i);
                @let [left, right] = band.map(|step| self.x(step).clamp(LEFT, RIGHT));
                rect.place x=(left) y=(TOP) width=(tenths(right - left)) height=(BOTTOM - TOP) {
                    title {
                        "step " (count(step))
                        @for curve in &self.curves {
                            @if let Some(value) = curve.near(step, band) {
                                "\n" (curve.name) ": " (self.scale.text(value))
                            }
                        }
                    }
                }
            }
        }
    }

    fn curve(&self, curve: &Curve, axis: &Axis) -> Markup {
        let places = curve.points.iter();
        let places = places.map(|&(step, value)| (self.x(step as f64), y(axis, value)));
        html! {
            g style=(curve.style()) {
                path.curve d={
                    @for (i, (x, y)) in places.clone().enumerate() {
                        (if i == 0 { "M" } else { "L" }) (x) "," (y)
                    }
                } {}
                @if curve.points.len() <= DOTS {
                    @for (x, y) in places { circle cx=(x) cy=(y) r="2.5" {} }
                }
            }
        }
    }

    /// Skipped steps as ticks on the horizontal axis, those of one place together.
    fn skipped(&self) -> Markup {
        let place = |step: usize| (self.x(step as f64) / 2.0).round();
        let groups = self.skipped.chunk_by(|&a, &b| place(a) == place(b));
        html! {
            @for steps in groups {
                path.skipped d={ "M" (self.x(steps[0] as f64)) "," (BOTTOM) "v-9" } {
                    title {
                        @if let [first, .., last] = steps {
                            (steps.len()) " skipped steps, " (count(*first)) " to " (count(*last))
                        } @else {
                            "step " (count(steps[0])) " was skipped"
                        }
                    }
                }
            }
        }
    }

    fn marks(&self) -> Markup {
        html! {
            @for mark in self.marks {
                @let x = self.x(mark.step as f64);
                // Heads of refreshes, which often follow warnings, are lower than theirs.
                @let (class, head) = match mark.number {
                    Some(_) => ("warning", TOP - 9.0),
                    None => ("refresh", TOP + 9.0),
                };
                g class=(class) {
                    title { "step " (count(mark.step)) ": " (mark.text) }
                    path d={ "M" (x) "," (TOP) "V" (BOTTOM) } {}
                    circle cx=(x) cy=(head) r="8" {}
                    text x=(x) y=(head + 4.0) text-anchor="middle" {
                        @if let Some(number) = mark.number { (number) } @else { "↻" }
                    }
                }
            }
        }
    }

    fn x(&self, step: f64) -> f64 {
        let (first, last) = self.steps;
        let length = (last - first).max(1) as f64;
        tenths(LEFT + (step - first as f64) / length * (RIGHT - LEFT))
    }
}

fn y(axis: &Axis, value: f64) -> f64 {
    tenths(BOTTOM - axis.height(value) * (BOTTOM - TOP))
}

/// A length to write, rounded to tenths of a unit.
fn tenths(length: f64) -> f64 {
    (10.0 * length).round() / 10.0
}
