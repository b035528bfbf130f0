//! A curve of a chart: values over steps or shares, smoothed, thinned out where there are too many.

use rag_generate::html::hue;

use super::axis::Scale;

/// Places on the horizontal axis, rising, with a value each.
pub(super) type Points = Vec<(f64, f64)>;

/// Values over places on the horizontal axis.
#[derive(Clone)]
pub(super) struct Curve {
    pub name: String,
    /// See [`hue`].
    hue: usize,
    /// Opacity, from 0 to 1.
    opacity: f64,
    /// Whether the key names it.
    pub named: bool,
    pub points: Points,
}

/// Most points of a curve that are drawn.
const POINTS: usize = 600;

impl Curve {
    pub fn new(name: impl Into<String>, hue: usize, points: Points) -> Self {
        Self {
            name: name.into(),
            hue,
            opacity: 1.0,
            named: true,
            points,
        }
    }

    /// Values of single steps and their smoothed `mean`: two curves, of which the first is faint and the
    /// key names the second alone.
    pub fn with_mean(name: &str, mean: Self, points: Points) -> Vec<Self> {
        let steps = Self {
            named: false,
            ..Self::new(name, mean.hue, points).with_opacity(0.35)
        };
        vec![steps, mean]
    }

    #[must_use]
    pub fn with_opacity(self, opacity: f64) -> Self {
        Self { opacity, ..self }
    }

    /// Keeps the points that `scale` can show: finite, on a logarithmic scale positive, and not more than
    /// a screen can show.
    pub fn prepare(&mut self, scale: Scale) {
        let fits = |value: f64| value.is_finite() && (scale != Scale::Log || value > 0.0);
        self.points.retain(|point| fits(point.1));
        self.points = downsample(&self.points, POINTS);
    }

    /// CSS of its colour and opacity.
    pub fn style(&self) -> String {
        format!("{};opacity:{}", hue(self.hue), self.opacity)
    }

    /// The value at the place nearest to `place`, among those from `begin` to below `end`.
    pub fn near(&self, place: f64, [begin, end]: [f64; 2]) -> Option<f64> {
        let inside = |point: &&(f64, f64)| (begin..end).contains(&point.0);
        let points = self.points.iter().filter(inside);
        let distance = |point: &(f64, f64)| (point.0 - place).abs();
        let nearest = points.min_by(|a, b| distance(a).total_cmp(&distance(b)));
        nearest.map(|point| point.1)
    }
}

/// Exponential moving average over a fiftieth of the steps, at least five.
pub(super) fn smoothed(points: &[(f64, f64)]) -> Points {
    let width = (points.len() / 50).max(5);
    let keep = 1.0 - 1.0 / width as f64;
    let (mut sum, mut weight) = (0.0, 0.0);
    let finite = points.iter().filter(|point| point.1.is_finite());
    finite
        .map(|&(step, value)| {
            sum = keep * sum + value;
            // The first steps have nothing before them: the weights do not yet sum to the width.
            weight = keep * weight + 1.0;
            (step, sum / weight)
        })
        .collect()
}

/// At most `longest` points of a curve that keep its peaks: the lowest and the highest of each stretch.
fn downsample(points: &[(f64, f64)], longest: usize) -> Points {
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
        let mut points: Points = (0..10_000).map(|i| (f64::from(i), 1.0)).collect();
        points[5_001].1 = 9.0;
        points[5_002].1 = -9.0;
        let drawn = downsample(&points, POINTS);
        assert!(drawn.len() <= POINTS);
        assert!(drawn.contains(&(5_001.0, 9.0)) && drawn.contains(&(5_002.0, -9.0)));
        assert!(drawn.is_sorted_by_key(|point| point.0));
    }

    #[test]
    fn a_smoothed_curve_is_a_mean_from_the_first_step_on() {
        // Over five steps each weighs 0.8 of its successor: (0.8 * 2 + 4) / 1.8.
        let smoothed = smoothed(&[(0.0, 2.0), (1.0, f64::NAN), (2.0, 4.0)]);
        assert_eq!(smoothed.len(), 2);
        assert_eq!(smoothed[0], (0.0, 2.0));
        assert_eq!(smoothed[1].0, 2.0);
        assert!((smoothed[1].1 - 5.6 / 1.8).abs() < 1e-12);
    }
}
