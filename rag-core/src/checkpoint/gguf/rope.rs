//! Scaling of the rotary frequencies to contexts beyond the trained one: metadata and a tensor in GGUF,
//! `rope_scaling` in `config.json`.

use serde_json::{Value, json};

use super::{blocks::dequantize, container::Container, error::GgufError, keys::Keys};

type Result<T> = std::result::Result<T, GgufError>;

/// The tensor with the factors of [`factors`]. Transformers computes them from the configuration.
pub(super) const FACTORS: &str = "rope_freqs.weight";

/// By how much to divide each of the `head_dim / 2` rotary frequencies.
pub(super) fn factors(container: &Container) -> Result<Option<Vec<f32>>> {
    let Some(found) = container.description(FACTORS)? else {
        return Ok(None);
    };
    let mut factors = vec![0.0; found.shape.iter().product()];
    dequantize(found.kind, &container.tensor_bytes(&found), &mut factors);
    if !factors
        .iter()
        .all(|factor| factor.is_finite() && *factor > 0.0)
    {
        return Err(GgufError::damaged(format!(
            "{FACTORS} holds a number that is not positive"
        )));
    }
    Ok(Some(factors))
}

/// The value of `rope_scaling` in `config.json`, null where positions are not scaled. `theta` is the base of the
/// frequencies.
pub(super) fn scaling(
    container: &Container,
    keys: &Keys<'_>,
    head_dim: usize,
    theta: f64,
) -> Result<Value> {
    let kind = keys.text("rope.scaling.type")?;
    let factor = match keys.number("rope.scaling.factor")? {
        Some(factor) => factor,
        // Files of 2023 have the inverse.
        None => keys.number("rope.scale_linear")?.unwrap_or(1.0),
    };
    if factor.is_nan() || factor < 0.0 {
        return Err(keys.wrong("rope.scaling.factor", "a factor", factor));
    }
    let scaled = factor != 0.0 && factor != 1.0;
    let context = keys.count("rope.scaling.original_context_length")?;
    let frequencies = factors(container)?;
    if let Some(factors) = frequencies {
        if factors.len() != head_dim / 2 || scaled {
            return Err(GgufError::Unsupported {
                key: FACTORS.into(),
                found: format!("{} factors, scaled by {factor} besides", factors.len()),
                expected: format!("{} factors alone", head_dim / 2),
            });
        }
        return Ok(llama3(&factors, head_dim, theta).unwrap_or_else(|| {
            // Transformers can list factors in longrope alone: here the same for short and for long texts.
            json!({
                "rope_type": "longrope", "short_factor": factors, "long_factor": factors,
                "attention_factor": 1.0,
            })
        }));
    }
    match kind {
        Some("yarn") if scaled => {
            let mut yarn = json!({ "rope_type": "yarn", "factor": factor });
            if let Some(context) = context {
                yarn["original_max_position_embeddings"] = context.into();
            }
            for (key, name) in [("beta_fast", "beta_fast"), ("beta_slow", "beta_slow")] {
                if let Some(value) = keys.number(&format!("rope.scaling.yarn_{key}"))? {
                    yarn[name] = value.into();
                }
            }
            // llama.cpp multiplies the default attention factor, transformers replaces it.
            if let Some(own) = keys.number("rope.scaling.attn_factor")?
                && own != 1.0
            {
                yarn["attention_factor"] = (own * (0.1 * factor.ln() + 1.0)).into();
            }
            if let Some(own) = keys.number("rope.scaling.yarn_log_multiplier")?
                && own != 0.0
            {
                return Err(keys.unsupported("rope.scaling.yarn_log_multiplier", own, "none"));
            }
            Ok(yarn)
        }
        None | Some("linear") if scaled => Ok(json!({ "rope_type": "linear", "factor": factor })),
        None | Some("none" | "linear" | "yarn") => Ok(Value::Null),
        Some(other) => Err(keys.unsupported("rope.scaling.type", other, "none, linear or yarn")),
    }
}

/// The parameters of Llama 3's rule, if the rule gives `factors`. The converter writes the factors and not the
/// rule's parameters; published models differ in the largest factor alone.
fn llama3(factors: &[f32], head_dim: usize, theta: f64) -> Option<Value> {
    let (low, high, context) = (1.0, 4.0, 8192.0);
    let factor = f64::from(factors.iter().copied().fold(0.0, f32::max));
    let rule = |i: usize| {
        let wavelength = std::f64::consts::TAU * theta.powf(2.0 * i as f64 / head_dim as f64);
        let smooth = (context / wavelength - low) / (high - low);
        1.0 / ((1.0 - smooth.clamp(0.0, 1.0)) / factor + smooth.clamp(0.0, 1.0))
    };
    let same = |(i, own): (usize, &f32)| (f64::from(*own) / rule(i) - 1.0).abs() < 1e-4;
    factors.iter().enumerate().all(same).then(|| {
        json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
            "original_max_position_embeddings": context as usize,
        })
    })
}
