//! Curves over steps, as SVG in a figure.

use std::fmt::{self, Display};

use rag_generate::html::{Escaped, Hue};

use super::{
    axis::{Axis, Scale, nice},
    number::{count, short},
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

/// Steps, rising, with a value each.
pub(super) type Points = Vec<(usize, f64)>;

/// Values over steps.
#[derive(Clone)]
pub(super) struct Curve {
    name: String,
    hue: usize,
    /// From 0 to 1: how much it stands out.
    strength: f64,
    /// Whether the key names it.
    named: bool,
    points: Points,
}

/// Something that happened at a step: a numbered warning, or else a refresh of the index.
pub(super) struct Mark {
    pub step: usize,
    pub number: Option<usize>,
    pub text: String,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 626.0;
const TOP: f64 = 38.0;
const BOTTOM: f64 = 228.0;

/// Most points of a curve.
const POINTS: usize = 600;

/// Most places of a chart that show their values where pointed at.
const PLACES: usize = 120;

/// Most points of a curve that are shown one by one.
const DOTS: usize = 60;

impl Display for Chart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let curves: Vec<Curve> = self.curves.iter().map(|curve| self.drawn(curve)).collect();
        let values = || {
            curves
                .iter()
                .flat_map(|curve| curve.points.iter().map(|p| p.1))
        };
        let title = Escaped(self.title);
        write!(f, "<figure>\n<figcaption><h3>{title}</h3>")?;
        self.key(f)?;
        writeln!(f, "</figcaption>")?;
        let Some(smallest) = values().reduce(f64::min) else {
            return writeln!(
                f,
                "<p class=\"soft empty\">Not measured in this run.</p>\n</figure>"
            );
        };
        let largest = values().fold(smallest, f64::max);
        let axis = Axis::new(self.scale, smallest, largest);
        writeln!(
            f,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title} over steps, from {} to {}\">",
            Escaped(&self.value(smallest)),
            Escaped(&self.value(largest)),
        )?;
        self.axes(f, &axis)?;
        self.places(f, &curves)?;
        for curve in &curves {
            self.curve(f, curve, &axis)?;
        }
        self.skipped(f)?;
        self.marks(f)?;
        writeln!(f, "</svg>\n</figure>")
    }
}

impl Curve {
    pub fn new(name: impl Into<String>, hue: usize, points: Points) -> Self {
        Self {
            name: name.into(),
            hue,
            strength: 1.0,
            named: true,
            points,
        }
    }

    pub fn faint(self, strength: f64) -> Self {
        Self { strength, ..self }
    }

    /// The values of single steps, behind their mean.
    pub fn behind(self) -> Self {
        Self {
            strength: 0.35,
            named: false,
            ..self
        }
    }
}

impl Chart<'_> {
    /// A curve as it can be drawn: finite, positive on a scale of sizes, and not too long.
    fn drawn(&self, curve: &Curve) -> Curve {
        let fits = |value: f64| value.is_finite() && (self.scale != Scale::Log || value > 0.0);
        let points = curve.points.iter().copied().filter(|p| fits(p.1));
        Curve {
            name: curve.name.clone(),
            points: downsample(&points.collect::<Vec<_>>(), POINTS),
            ..*curve
        }
    }

    /// Which colour is which curve, where there are several.
    fn key(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<&Curve> = self.curves.iter().filter(|curve| curve.named).collect();
        if named.len() < 2 {
            return Ok(());
        }
        f.write_str("<span class=\"key\">")?;
        for curve in named {
            write!(
                f,
                "<span><i style=\"{};opacity:{}\"></i>{}</span>",
                Hue(curve.hue),
                curve.strength,
                Escaped(&curve.name)
            )?;
        }
        f.write_str("</span>")
    }

    fn axes(&self, f: &mut fmt::Formatter<'_>, axis: &Axis) -> fmt::Result {
        writeln!(f, "<text x=\"2\" y=\"13\">{}</text>", Escaped(self.unit))?;
        for &tick in &axis.ticks {
            let y = y(axis, tick);
            writeln!(
                f,
                "<path class=\"grid\" d=\"M{LEFT},{y:.1}H{RIGHT}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 7.0,
                y + 4.0,
                Escaped(&self.value(tick))
            )?;
        }
        let (first, last) = self.steps;
        let step = nice((last - first) as f64 / 5.0).max(1.0) as usize;
        let ticks = (first.div_ceil(step)..=last / step).map(|i| i * step);
        for tick in ticks {
            let x = self.x(tick);
            writeln!(
                f,
                "<path class=\"tick\" d=\"M{x:.1},{BOTTOM}v4\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                BOTTOM + 16.0,
                count(tick)
            )?;
        }
        writeln!(
            f,
            "<path class=\"tick\" d=\"M{LEFT},{BOTTOM}H{RIGHT}\"/><text x=\"{RIGHT}\" y=\"{}\" text-anchor=\"end\">step</text>",
            HEIGHT - 2.0
        )
    }

    /// Bands that show the values of all curves where they are pointed at.
    fn places(&self, f: &mut fmt::Formatter<'_>, curves: &[Curve]) -> fmt::Result {
        let mut steps: Vec<usize> = curves
            .iter()
            .flat_map(|curve| curve.points.iter().map(|p| p.0))
            .collect();
        steps.sort_unstable();
        steps.dedup();
        let every = steps.len().div_ceil(PLACES).max(1);
        let steps: Vec<usize> = steps.into_iter().step_by(every).collect();
        for (i, &step) in steps.iter().enumerate() {
            // A band reaches to the middle between its neighbours.
            let begin = i.checked_sub(1).map_or(0.0, |i| middle(steps[i], step));
            let end = steps
                .get(i + 1)
                .map_or(f64::INFINITY, |&next| middle(step, next));
            let (left, right) = (self.clamped(begin), self.clamped(end));
            write!(
                f,
                "<rect class=\"place\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{}\"><title>step {}",
                right - left,
                BOTTOM - TOP,
                count(step)
            )?;
            for curve in curves {
                let inside = |p: &&(usize, f64)| (begin..end).contains(&(p.0 as f64));
                let points = curve.points.iter().filter(inside);
                if let Some(point) = points.min_by_key(|p| p.0.abs_diff(step)) {
                    write!(
                        f,
                        "\n{}: {}",
                        Escaped(&curve.name),
                        Escaped(&self.value(point.1))
                    )?;
                }
            }
            writeln!(f, "</title></rect>")?;
        }
        Ok(())
    }

    fn curve(&self, f: &mut fmt::Formatter<'_>, curve: &Curve, axis: &Axis) -> fmt::Result {
        write!(
            f,
            "<g style=\"{};opacity:{}\"><path class=\"curve\" d=\"",
            Hue(curve.hue),
            curve.strength
        )?;
        for (i, &(step, value)) in curve.points.iter().enumerate() {
            let letter = if i == 0 { 'M' } else { 'L' };
            write!(f, "{letter}{:.1},{:.1}", self.x(step), y(axis, value))?;
        }
        f.write_str("\"/>")?;
        for &(step, value) in curve.points.iter().filter(|_| curve.points.len() <= DOTS) {
            write!(
                f,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\"/>",
                self.x(step),
                y(axis, value)
            )?;
        }
        writeln!(f, "</g>")
    }

    /// Skipped steps as ticks on the horizontal axis, those of one place together.
    fn skipped(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |step: usize| (self.x(step) / 2.0).round();
        for steps in self.skipped.chunk_by(|&a, &b| place(a) == place(b)) {
            let text = match steps {
                [step] => format!("step {} was skipped", count(*step)),
                [first, .., last] => format!(
                    "{} skipped steps, {} to {}",
                    steps.len(),
                    count(*first),
                    count(*last)
                ),
                [] => continue,
            };
            writeln!(
                f,
                "<path class=\"skipped\" d=\"M{:.1},{BOTTOM}v-9\"><title>{text}</title></path>",
                self.x(steps[0])
            )?;
        }
        Ok(())
    }

    fn marks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mark in self.marks {
            let x = self.x(mark.step);
            // Heads of refreshes, which often follow warnings, are lower than theirs.
            let (class, head, sign) = match mark.number {
                Some(number) => ("warning", TOP - 9.0, number.to_string()),
                None => ("refresh", TOP + 9.0, "↻".to_owned()),
            };
            writeln!(
                f,
                "<g class=\"{class}\"><title>step {}: {}</title><path d=\"M{x:.1},{TOP}V{BOTTOM}\"/>\
                 <circle cx=\"{x:.1}\" cy=\"{head}\" r=\"8\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{sign}</text></g>",
                count(mark.step),
                Escaped(&mark.text),
                head + 4.0,
            )?;
        }
        Ok(())
    }

    fn x(&self, step: usize) -> f64 {
        self.place(step as f64)
    }

    fn place(&self, step: f64) -> f64 {
        let (first, last) = self.steps;
        let length = (last - first).max(1) as f64;
        LEFT + (step - first as f64) / length * (RIGHT - LEFT)
    }

    fn clamped(&self, step: f64) -> f64 {
        self.place(step).clamp(LEFT, RIGHT)
    }

    /// A value of the vertical axis in words.
    fn value(&self, value: f64) -> String {
        match self.scale {
            Scale::Share => format!("{} %", short((1e4 * value).round() / 100.0)),
            _ => short(value),
        }
    }
}

fn y(axis: &Axis, value: f64) -> f64 {
    BOTTOM - axis.height(value) * (BOTTOM - TOP)
}

fn middle(a: usize, b: usize) -> f64 {
    (a + b) as f64 / 2.0
}

/// At most `longest` points of a curve that keep its peaks: the lowest and the highest of each stretch.
fn downsample(points: &[(usize, f64)], longest: usize) -> Points {
    if points.len() <= longest {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(longest / 2);
    points
        .chunks(stretch)
        .flat_map(|stretch| {
            let by_value = |&a: &usize, &b: &usize| stretch[a].1.total_cmp(&stretch[b].1);
            let lowest = (0..stretch.len()).min_by(by_value).unwrap_or(0);
            let highest = (0..stretch.len()).max_by(by_value).unwrap_or(0);
            [lowest.min(highest), lowest.max(highest)].map(|i| stretch[i])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_survive_downsampling() {
        let mut points: Points = (0..10_000).map(|i| (i, 1.0)).collect();
        points[5_001].1 = 9.0;
        points[5_002].1 = -9.0;
        let drawn = downsample(&points, POINTS);
        assert!(drawn.len() <= POINTS);
        assert!(drawn.contains(&(5_001, 9.0)) && drawn.contains(&(5_002, -9.0)));
        assert!(drawn.is_sorted_by_key(|point| point.0));
    }
}
