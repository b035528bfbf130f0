use rand::Rng;
use rand::distr::Open01;
use rand::rngs::StdRng;

use super::scores::top_k;

/// Draws up to `count` places without replacement, with the probabilities softmax(scores), in the order drawn. Places
/// scored -inf are never drawn.
pub(super) fn draw(
    scores: impl IntoIterator<Item = f32>,
    count: usize,
    random: &mut StdRng,
) -> Vec<usize> {
    top_k(disturbed(scores, random), count)
        .into_iter()
        .map(|(place, _)| place)
        .collect()
}

/// The scores with Gumbel noise. To take the highest is to draw from the softmax of the scores without computing it (Kool
/// et al. 2019, arXiv 1903.06059).
pub(super) fn disturbed(
    scores: impl IntoIterator<Item = f32>,
    random: &mut StdRng,
) -> impl Iterator<Item = f32> {
    scores.into_iter().map(move |score| match score {
        f32::NEG_INFINITY => score,
        _ => (f64::from(score) + gumbel(random)) as f32,
    })
}

fn gumbel(random: &mut StdRng) -> f64 {
    let uniform: f64 = random.sample(Open01);
    -(-uniform.ln()).ln()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const DRAWS: usize = 20_000;

    #[test]
    fn draws_with_the_probabilities_of_the_softmax() {
        let probabilities = [0.5_f32, 0.3, 0.0, 0.2];
        let mut random = StdRng::seed_from_u64(1);
        let mut counts = [0; 4];
        for _ in 0..DRAWS {
            counts[draw(probabilities.map(f32::ln), 1, &mut random)[0]] += 1;
        }
        for (count, probability) in counts.into_iter().zip(probabilities) {
            assert!(
                (count as f32 / DRAWS as f32 - probability).abs() < 0.015,
                "{counts:?}"
            );
        }
    }

    #[test]
    fn draws_without_replacement_in_order() {
        let probabilities = [0.6_f32, 0.3, 0.1];
        let mut random = StdRng::seed_from_u64(2);
        let first_then_second = (0..DRAWS)
            .filter(|_| draw(probabilities.map(f32::ln), 2, &mut random) == [1, 0])
            .count();
        let expected = 0.3 * 0.6 / 0.7;
        assert!((first_then_second as f32 / DRAWS as f32 - expected).abs() < 0.015);
    }

    #[test]
    fn draws_no_more_than_there_are() {
        let mut random = StdRng::seed_from_u64(3);
        assert_eq!(draw([f32::NEG_INFINITY, 0.0], 2, &mut random), [1]);
        assert!(draw([f32::NEG_INFINITY; 2], 1, &mut random).is_empty());
    }
}
