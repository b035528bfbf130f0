//! Curves over steps or shares: the SVG of a report, in a figure. The page's CSS colours it, for light and
//! dark screens.

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
    pub across: Across,
    pub curves: Vec<Curve>,
    pub marks: &'a [Mark],
    /// Steps that were skipped.
    pub skipped: Vec<usize>,
}

/// The horizontal axis.
#[derive(Clone, Copy)]
pub(super) enum Across {
    /// From the first to the last step of the run, the same for all charts.
    Steps(usize, usize),
    /// From 0 to 1, with its name.
    Share(&'static str),
}

impl Across {
    fn name(self) -> &'static str {
        match self {
            Self::Steps(..) => "step",
            Self::Share(name) => name,
        }
    }

    fn text(self, place: f64) -> String {
        match self {
            Self::Steps(..) => count(place as usize),
            Self::Share(_) => Scale::Share.text(place),
        }
    }

    /// How far a place is from the beginning, of the whole length.
    fn part(self, place: f64) -> f64 {
        match self {
            Self::Steps(first, last) => (place - first as f64) / (last - first).max(1) as f64,
            Self::Share(_) => place,
        }
    }

    fn ticks(self) -> Vec<f64> {
        match self {
            Self::Steps(first, last) => {
                let apart = nice((last - first) as f64 / 5.0).max(1.0) as usize;
                (first.div_ceil(apart)..=last / apart)
                    .map(|i| (i * apart) as f64)
                    .collect()
            }
            Self::Share(_) => (0..=5).map(|fifth| f64::from(fifth) / 5.0).collect(),
        }
    }
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
                        aria-label={ (self.title) " by " (self.across.name()) ", from " (from) " to " (to) } {
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
        html! {
            text x="2" y="13" { (self.unit) }
            @for &value in &axis.ticks {
                @let y = y(axis, value);
                path.grid d={ "M" (LEFT) "," (y) "H" (RIGHT) } {}
                text x=(LEFT - 7.0) y=(y) dy="4" text-anchor="end" { (self.scale.text(value)) }
            }
            @for place in self.across.ticks() {
                @let x = self.x(place);
                path.tick d={ "M" (x) "," (BOTTOM) "v4" } {}
                text x=(x) y=(BOTTOM + 16.0) text-anchor="middle" { (self.across.text(place)) }
            }
            path.tick d={ "M" (LEFT) "," (BOTTOM) "H" (RIGHT) } {}
            text x=(RIGHT) y=(HEIGHT - 2.0) text-anchor="end" { (self.across.name()) }
        }
    }

    /// Bands that show the values of all curves where they are pointed at.
    fn bands(&self) -> Markup {
        let points = self.curves.iter().flat_map(|curve| &curve.points);
        let mut places: Vec<f64> = points.map(|point| point.0).collect();
        places.sort_unstable_by(f64::total_cmp);
        places.dedup();
        let every = places.len().div_ceil(BANDS).max(1);
        let places: Vec<f64> = places.into_iter().step_by(every).collect();
        // A band reaches to the middle between its neighbours.
        let middle = |a: f64, b: f64| (a + b) / 2.0;
        let band = |i: usize| {
            let begin = i
                .checked_sub(1)
                .map(|before| middle(places[before], places[i]));
            let end = places.get(i + 1).map(|&next| middle(places[i], next));
            [begin.unwrap_or(0.0), end.unwrap_or(f64::INFINITY)]
        };
        html! {
            @for (i, &place) in places.iter().enumerate() {
                @let band = band(i);
                @let [left, right] = band.map(|place| self.x(place).clamp(LEFT, RIGHT));
                rect.place x=(left) y=(TOP) width=(tenths(right - left)) height=(BOTTOM - TOP) {
                    title {
                        (self.across.name()) " " (self.across.text(place))
                        @for curve in &self.curves {
                            @if let Some(value) = curve.near(place, band) {
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
        let places = places.map(|&(place, value)| (self.x(place), y(axis, value)));
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

    fn x(&self, place: f64) -> f64 {
        tenths(LEFT + self.across.part(place) * (RIGHT - LEFT))
    }
}

fn y(axis: &Axis, value: f64) -> f64 {
    tenths(BOTTOM - axis.height(value) * (BOTTOM - TOP))
}

/// A length to write, rounded to tenths of a unit.
fn tenths(length: f64) -> f64 {
    (10.0 * length).round() / 10.0
}
