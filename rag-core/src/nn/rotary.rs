//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864) with the halves of a head as pairs, as checkpoints in the
//! Hugging Face layout store queries and keys. Burn's own pairs neighbours, and has one start for all rows.

use std::f64::consts::PI;

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How frequencies are stretched beyond the length that a model was first trained on: `rope_scaling` of `config.json`, or
/// `rope_parameters` as transformers 5 writes it. Fields that a kind does not use are `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RopeParameters {
    /// `default`, `linear`, `llama3`, `yarn` or `longrope`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_type: Option<String>,
    /// `rope_type` as older files call it.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub older_type: Option<String>,
    /// The base of the frequencies, in transformers 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// By how much the longest text grew. It decides, whatever the ratio of the lengths is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// llama3: wavelengths above `original_max_position_embeddings` / this are divided by `factor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low_freq_factor: Option<f64>,
    /// llama3: wavelengths below `original_max_position_embeddings` / this stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high_freq_factor: Option<f64>,
    /// The longest text of the first training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_max_position_embeddings: Option<usize>,
    /// yarn: frequencies of more turns over the original length stay. Default 32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_fast: Option<f64>,
    /// yarn: frequencies of fewer turns are divided by `factor`. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_slow: Option<f64>,
    /// yarn, longrope: the factor of cosine and sine. Default `0.1 ln factor + 1` in yarn; in longrope it follows from how much
    /// longer the longest text became.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_factor: Option<f64>,
    /// yarn: with `mscale_all_dim`, another way to give `attention_factor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mscale: Option<f64>,
    /// See `mscale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mscale_all_dim: Option<f64>,
    /// longrope: the divisor of each frequency, `[d_head / 2]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub short_factor: Option<Vec<f64>>,
    /// longrope: the same in texts beyond the original length. Only factors that do not change there are supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub long_factor: Option<Vec<f64>>,
    /// yarn: whether the bounds of the ramp are rounded to whole dimensions. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncate: Option<bool>,
}

/// Configuration of a [`Rotary`].
#[derive(Clone, Debug, PartialEq)]
pub struct RotaryConfig<'a> {
    /// Size of a head.
    pub d_head: usize,
    /// The base of the frequencies, where `scaling` names none.
    pub theta: f64,
    /// How frequencies are stretched.
    pub scaling: Option<&'a RopeParameters>,
    /// The longest text.
    pub max_positions: usize,
}

/// The frequencies by which queries and keys are rotated.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// Radians by position, `[d_head / 2]`.
    frequencies: Vec<f32>,
    /// The factor of cosine and sine.
    magnitude: f32,
}

/// Cosines and sines of some positions, each `[rows | 1, length, 1, d_head / 2]`.
#[derive(Clone, Debug)]
pub struct Rotation {
    cosines: Tensor<4>,
    sines: Tensor<4>,
}

impl RotaryConfig<'_> {
    /// The frequencies.
    ///
    /// # Errors
    /// [`Error::Config`] for a kind of scaling that is not known or lacks a number, and for heads of odd size.
    pub fn init(&self) -> Result<Rotary> {
        if self.d_head == 0 || !self.d_head.is_multiple_of(2) {
            return Err(wrong("head_dim", self.d_head, "an even number above 0"));
        }
        let plain = RopeParameters::default();
        let scaling = self.scaling.unwrap_or(&plain);
        let theta = scaling.rope_theta.unwrap_or(self.theta);
        if theta <= 0.0 || !theta.is_finite() {
            return Err(wrong("rope_theta", theta, "a number above 0"));
        }
        let inverse = |i: usize| theta.powf(-(2.0 * i as f64) / self.d_head as f64);
        let plain: Vec<f64> = (0..self.d_head / 2).map(inverse).collect();
        let kind = (scaling.rope_type.as_deref()).or(scaling.older_type.as_deref());
        let (frequencies, magnitude) = match kind.unwrap_or("default") {
            "default" => (plain, 1.0),
            "linear" => {
                let factor = scaling.factor()?;
                (plain.into_iter().map(|f| f / factor).collect(), 1.0)
            }
            "llama3" => (scaling.llama3(plain)?, 1.0),
            "yarn" => scaling.yarn(plain, theta, self)?,
            "longrope" => scaling.longrope(plain, self)?,
            other => {
                let expected = "default, linear, llama3, yarn or longrope";
                return Err(wrong("rope_scaling.rope_type", other, expected));
            }
        };
        Ok(Rotary {
            frequencies: frequencies.into_iter().map(|f| f as f32).collect(),
            magnitude: magnitude as f32,
        })
    }
}

impl RopeParameters {
    fn factor(&self) -> Result<f64> {
        needed("factor", self.factor)
    }

    fn original_length(&self) -> Result<f64> {
        let length = self.original_max_position_embeddings;
        needed(
            "original_max_position_embeddings",
            length.map(|length| length as f64),
        )
    }

    /// Divides the frequencies of long waves, and leaves those of short ones, as Llama 3.1 does.
    fn llama3(&self, plain: Vec<f64>) -> Result<Vec<f64>> {
        let (factor, original) = (self.factor()?, self.original_length()?);
        let low = needed("low_freq_factor", self.low_freq_factor)?;
        let high = needed("high_freq_factor", self.high_freq_factor)?;
        if high <= low {
            let expected = "more than low_freq_factor";
            return Err(wrong("rope_scaling.high_freq_factor", high, expected));
        }
        let scaled = |frequency: f64| {
            let wavelength = 2.0 * PI / frequency;
            if wavelength < original / high {
                return frequency;
            }
            if wavelength > original / low {
                return frequency / factor;
            }
            let smooth = (original / wavelength - low) / (high - low);
            (1.0 - smooth) * frequency / factor + smooth * frequency
        };
        Ok(plain.into_iter().map(scaled).collect())
    }

    /// Ding et al. 2024 (arXiv 2402.13753), with the magnitude, where short and long texts have the same factors.
    fn longrope(&self, plain: Vec<f64>, config: &RotaryConfig<'_>) -> Result<(Vec<f64>, f64)> {
        let factors = match (&self.short_factor, &self.long_factor) {
            (Some(short), Some(long)) if short == long && short.len() == plain.len() => short,
            _ => {
                let found = "other factors for long texts, or not one for each frequency";
                let expected = "the same factor of each frequency in short_factor and long_factor";
                return Err(wrong("rope_scaling", found, expected));
            }
        };
        let longest = config.max_positions as f64;
        let original = self.original_max_position_embeddings;
        let own = match original.map(|original| (longest / original as f64, original as f64)) {
            Some((scale, original)) if scale > 1.0 => (1.0 + scale.ln() / original.ln()).sqrt(),
            _ => 1.0,
        };
        let frequencies = plain
            .iter()
            .zip(factors)
            .map(|(plain, factor)| plain / factor);
        Ok((frequencies.collect(), self.attention_factor.unwrap_or(own)))
    }

    /// Peng et al. 2023 (arXiv 2309.00071), with the magnitude.
    fn yarn(
        &self,
        plain: Vec<f64>,
        theta: f64,
        config: &RotaryConfig<'_>,
    ) -> Result<(Vec<f64>, f64)> {
        let factor = self.factor()?;
        let original = match self.original_max_position_embeddings {
            Some(_) => self.original_length()?,
            None => config.max_positions as f64,
        };
        let magnitude = |scale: f64| match factor > 1.0 {
            true => 0.1 * scale * factor.ln() + 1.0,
            false => 1.0,
        };
        let own = match (self.mscale, self.mscale_all_dim) {
            (Some(one), Some(all)) if one != 0.0 && all != 0.0 => magnitude(one) / magnitude(all),
            _ => magnitude(1.0),
        };
        let d_head = config.d_head as f64;
        // The dimension whose frequency makes so many turns over the original length.
        let dimension =
            |turns: f64| d_head * (original / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
        let (mut first, mut last) = (
            dimension(self.beta_fast.unwrap_or(32.0)),
            dimension(self.beta_slow.unwrap_or(1.0)),
        );
        if self.truncate.unwrap_or(true) {
            (first, last) = (first.floor(), last.ceil());
        }
        (first, last) = (first.max(0.0), last.min(d_head - 1.0));
        if first == last {
            last += 0.001;
        }
        let scaled = |(i, frequency): (usize, f64)| {
            let ramp = ((i as f64 - first) / (last - first)).clamp(0.0, 1.0);
            frequency / factor * ramp + frequency * (1.0 - ramp)
        };
        let frequencies = plain.into_iter().enumerate().map(scaled).collect();
        Ok((frequencies, self.attention_factor.unwrap_or(own)))
    }
}

impl Rotary {
    /// The rotation of tokens at `positions`, row-major `[rows | 1, length]`.
    ///
    /// # Panics
    /// If there are not as many positions.
    pub fn at(&self, positions: &[usize], [rows, length]: [usize; 2], device: &Device) -> Rotation {
        let half = self.frequencies.len();
        let mut cosines = Vec::with_capacity(positions.len() * half);
        let mut sines = Vec::with_capacity(positions.len() * half);
        for &position in positions {
            for frequency in &self.frequencies {
                let (sine, cosine) = (position as f32 * frequency).sin_cos();
                cosines.push(cosine * self.magnitude);
                sines.push(sine * self.magnitude);
            }
        }
        let tensor =
            |numbers| Tensor::from_data(TensorData::new(numbers, [rows, length, 1, half]), device);
        Rotation {
            cosines: tensor(cosines),
            sines: tensor(sines),
        }
    }
}

impl Rotation {
    /// Rotates the heads `[rows, length, heads, d_head]`. The result is in the same format; angles are f32.
    pub fn apply(&self, heads: Tensor<4>) -> Tensor<4> {
        let dtype = heads.dtype();
        let half = heads.dims()[3] / 2;
        let heads = match dtype {
            DType::F32 => heads,
            _ => heads.cast(FloatDType::F32),
        };
        let first = heads.clone().narrow(3, 0, half);
        let second = heads.narrow(3, half, half);
        let turned = Tensor::cat(
            vec![
                first.clone() * self.cosines.clone() - second.clone() * self.sines.clone(),
                second * self.cosines.clone() + first * self.sines.clone(),
            ],
            3,
        );
        match dtype {
            DType::F32 => turned,
            _ => turned.cast(dtype),
        }
    }
}

fn needed(name: &str, value: Option<f64>) -> Result<f64> {
    match value {
        Some(value) if value > 0.0 && value.is_finite() => Ok(value),
        Some(value) => Err(wrong(
            &format!("rope_scaling.{name}"),
            value,
            "a number above 0",
        )),
        None => Err(wrong(
            &format!("rope_scaling.{name}"),
            "nothing",
            "a number above 0",
        )),
    }
}

fn wrong(field: &str, found: impl ToString, expected: &str) -> Error {
    Error::Config {
        field: field.into(),
        found: found.to_string(),
        expected: expected.into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn rotary(json: serde_json::Value) -> Result<Rotary> {
        let scaling: RopeParameters = serde_json::from_value(json).unwrap();
        let config = RotaryConfig {
            d_head: 8,
            theta: 10_000.0,
            scaling: Some(&scaling),
            max_positions: 64,
        };
        config.init()
    }

    fn close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            let difference = (found - expected).abs();
            assert!(
                difference <= 1e-6 * expected.abs().max(1e-3),
                "{found} {expected}"
            );
        }
    }

    #[test]
    fn frequencies_fall_with_the_dimension() {
        let plain = rotary(serde_json::json!({})).unwrap();
        close(&plain.frequencies, &[1.0, 0.1, 0.01, 0.001]);
        let linear = rotary(serde_json::json!({"type": "linear", "factor": 4.0})).unwrap();
        close(&linear.frequencies, &[0.25, 0.025, 0.0025, 0.00025]);
    }

    /// A file may name a factor without the longest text that goes with it.
    #[test]
    fn the_factor_of_yarn_is_the_one_that_is_named() {
        let of = |original: usize| {
            let json = serde_json::json!({
                "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": original,
            });
            rotary(json).unwrap()
        };
        for original in [16, 32, 64] {
            let stretched = of(original);
            // The first frequency turns fastest and stays; the last is the slowest.
            close(&stretched.frequencies[..1], &[1.0]);
            close(&stretched.frequencies[3..], &[0.00025]);
            close(&[stretched.magnitude], &[0.1 * 4.0_f32.ln() + 1.0]);
        }
    }

    #[test]
    fn each_frequency_may_have_a_factor_of_its_own() {
        let factors = [1.0, 2.0, 4.0, 8.0];
        let found = rotary(serde_json::json!({
            "rope_type": "longrope", "short_factor": factors, "long_factor": factors, "attention_factor": 2.0,
        }));
        let found = found.unwrap();
        close(&found.frequencies, &[1.0, 0.05, 0.0025, 0.000_125]);
        close(&[found.magnitude], &[2.0]);
    }

    #[test]
    fn the_base_of_transformers_5_stands_among_the_parameters() {
        let found =
            rotary(serde_json::json!({"rope_type": "default", "rope_theta": 16.0})).unwrap();
        close(&found.frequencies, &[1.0, 0.5, 0.25, 0.125]);
    }

    #[test]
    fn parameters_that_are_missing_or_unknown_are_named() {
        let message = |json| rotary(json).unwrap_err().to_string();
        let found = message(serde_json::json!({"rope_type": "llama3", "factor": 8.0}));
        assert!(
            found.contains("original_max_position_embeddings"),
            "{found}"
        );
        let found = message(serde_json::json!({"rope_type": "dynamic", "factor": 8.0}));
        assert!(
            found.contains("dynamic") && found.contains("yarn"),
            "{found}"
        );
        let found = message(serde_json::json!({
            "rope_type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1, 1, 1, 2],
        }));
        assert!(found.contains("long_factor"), "{found}");
        let found = message(serde_json::json!({"rope_type": "linear", "factor": 0.0}));
        assert!(found.contains("factor"), "{found}");
    }

    #[test]
    fn a_rotation_turns_pairs_of_halves_and_keeps_their_length() {
        let device = crate::device("cpu").unwrap();
        let rotary = rotary(serde_json::json!({})).unwrap();
        let numbers: Vec<f32> = (0..16).map(|i| i as f32 - 7.5).collect();
        let heads = Tensor::<4>::from_data(TensorData::new(numbers.clone(), [1, 2, 1, 8]), &device);
        let turned = rotary.at(&[0, 3], [1, 2], &device).apply(heads);
        let turned: Vec<f32> = turned.into_data().iter::<f32>().collect();
        // Position 0 stays.
        close(&turned[..8], &numbers[..8]);
        for i in 0..4 {
            let (x, y) = (numbers[8 + i], numbers[12 + i]);
            let (sine, cosine) = (3.0 * rotary.frequencies[i]).sin_cos();
            close(
                &[turned[8 + i], turned[12 + i]],
                &[x * cosine - y * sine, y * cosine + x * sine],
            );
        }
    }

    #[test]
    fn each_row_may_have_its_own_positions() {
        let device = crate::device("cpu").unwrap();
        let rotary = rotary(serde_json::json!({})).unwrap();
        let heads = Tensor::<4>::ones([2, 1, 3, 8], &device);
        let both = rotary.at(&[2, 5], [2, 1], &device).apply(heads.clone());
        for (row, position) in [2, 5].into_iter().enumerate() {
            let alone = rotary
                .at(&[position], [1, 1], &device)
                .apply(heads.clone().narrow(0, row, 1));
            let found: Vec<f32> = both
                .clone()
                .narrow(0, row, 1)
                .into_data()
                .iter::<f32>()
                .collect();
            let alone: Vec<f32> = alone.into_data().iter::<f32>().collect();
            assert_eq!(found, alone);
        }
    }
}
