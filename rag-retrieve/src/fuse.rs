//! Several rankings to one, and a ranking to one that does not say the same twice.

use std::collections::HashMap;

use ndarray::{ArrayView1, ArrayView2};

use crate::index::Hit;

/// How passages that vectors and words found are put in one order by a retriever without
/// [weights](crate::PriorWeights) of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fusion {
    /// By weights that are learnt from the passages: words count half their BM25, vectors half of what makes passages
    /// likely that a run of their own words asks for. P(z|x) is made with them.
    ///
    /// The first search embeds up to 128 such runs, of some six words each, as questions.
    #[default]
    Weights,
    /// By [reciprocal ranks](reciprocal_rank_fusion). It asks nothing of the scores, and cannot know which side is the
    /// better; P(z|x) is that of inner products alone.
    Ranks,
}

/// The constant of reciprocal rank fusion, as in its paper: how little the first places differ.
const K: f32 = 60.0;

/// Reciprocal rank fusion (Cormack, Clarke and Büttcher 2009): the score of a passage is the sum of
/// `1 / (60 + rank)` over the rankings that hold it, ranks counted from 1. It needs no scores that
/// compare. Best first, among equals the lower position.
///
/// ```
/// use rag_retrieve::{Hit, reciprocal_rank_fusion};
///
/// let hits = |positions: [usize; 2]| positions.map(|position| Hit { position, score: 0.0 }).to_vec();
/// let fused = reciprocal_rank_fusion(&[hits([7, 3]), hits([3, 9])]);
/// let positions: Vec<_> = fused.iter().map(|hit| hit.position).collect();
/// assert_eq!(positions, [3, 7, 9]);
/// ```
pub fn reciprocal_rank_fusion(rankings: &[Vec<Hit>]) -> Vec<Hit> {
    let mut scores: HashMap<usize, f32> = HashMap::new();
    for ranking in rankings {
        for (rank, hit) in ranking.iter().enumerate() {
            *scores.entry(hit.position).or_default() += 1.0 / (K + rank as f32 + 1.0);
        }
    }
    let mut fused: Vec<Hit> = scores
        .into_iter()
        .map(|(position, score)| Hit { position, score })
        .collect();
    fused.sort_unstable_by(Hit::rank);
    fused
}

/// Maximal marginal relevance (Carbonell and Goldstein 1998): the places of `k` passages, each the one
/// with the most of `λ · relevance - (1 - λ) · likeness` that is left, where likeness is the largest
/// cosine of its vector with one that was chosen before. `relevance` `[passages]` is spread over 0 to 1
/// first, so that any scores do; `vectors` are `[passages, dimension]`. λ = 1 is the order of relevance,
/// among equals the first.
///
/// ```
/// use ndarray::array;
/// use rag_retrieve::maximal_marginal_relevance;
///
/// let vectors = array![[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]];
/// let chosen = maximal_marginal_relevance(&[3.0, 2.9, 2.0], vectors.view(), 0.5, 2);
/// assert_eq!(chosen, [0, 2]); // 1 says what 0 says
/// ```
///
/// # Panics
/// If there are not as many vectors as scores.
pub fn maximal_marginal_relevance(
    relevance: &[f32],
    vectors: ArrayView2<f32>,
    lambda: f32,
    k: usize,
) -> Vec<usize> {
    assert_eq!(relevance.len(), vectors.nrows(), "a vector for each score");
    let least = relevance.iter().copied().fold(f32::INFINITY, f32::min);
    let most = relevance.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let range = if most > least { most - least } else { 1.0 };
    let length = |vector: ArrayView1<f32>| vector.dot(&vector).sqrt().max(f32::MIN_POSITIVE);
    let cosine = |a: usize, b: usize| {
        let (a, b) = (vectors.row(a), vectors.row(b));
        a.dot(&b) / (length(a) * length(b))
    };

    let mut left: Vec<usize> = (0..relevance.len()).collect();
    let mut likeness = vec![f32::NEG_INFINITY; relevance.len()];
    let mut chosen: Vec<usize> = Vec::new();
    while chosen.len() < k && !left.is_empty() {
        let worth = |place: usize| {
            let new = if chosen.is_empty() {
                0.0
            } else {
                likeness[place]
            };
            lambda * (relevance[place] - least) / range - (1.0 - lambda) * new
        };
        let mut best = 0;
        for at in 1..left.len() {
            if worth(left[at]) > worth(left[best]) {
                best = at;
            }
        }
        let next = left.remove(best);
        for &place in &left {
            likeness[place] = likeness[place].max(cosine(place, next));
        }
        chosen.push(next);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    fn hits(positions: &[usize]) -> Vec<Hit> {
        let hit = |&position| Hit {
            position,
            score: 0.0,
        };
        positions.iter().map(hit).collect()
    }

    #[test]
    fn ranks_are_summed_and_equals_stand_by_position() {
        let fused = reciprocal_rank_fusion(&[hits(&[4, 2, 8]), hits(&[8, 1]), hits(&[])]);
        let expected = [
            (8, 1.0 / 63.0 + 1.0 / 61.0),
            (4, 1.0 / 61.0),
            (1, 1.0 / 62.0),
            (2, 1.0 / 62.0),
        ];
        assert_eq!(fused.len(), expected.len());
        for (hit, (position, score)) in fused.iter().zip(expected) {
            assert_eq!(hit.position, position);
            assert!((hit.score - score).abs() < 1e-7);
        }
        assert!(reciprocal_rank_fusion(&[]).is_empty());
    }

    #[test]
    fn relevance_alone_is_its_order_and_likeness_alone_spreads() {
        let vectors = array![[2.0, 0.0], [1.0, 0.1], [0.0, 3.0], [1.0, 1.0]];
        let chosen =
            |lambda| maximal_marginal_relevance(&[1.0, 4.0, 2.0, 3.0], vectors.view(), lambda, 9);
        assert_eq!(chosen(1.0), [1, 3, 2, 0]);
        assert_eq!(chosen(0.0)[..2], [0, 2]);
        assert_eq!(chosen(0.5)[..2], [1, 2]);
    }

    #[test]
    fn equal_scores_and_zero_vectors_are_no_trouble() {
        let vectors = Array2::zeros((3, 2));
        let chosen = maximal_marginal_relevance(&[5.0; 3], vectors.view(), 0.5, 2);
        assert_eq!(chosen, [0, 1]);
        let none = maximal_marginal_relevance(&[], Array2::zeros((0, 2)).view(), 0.5, 2);
        assert!(none.is_empty());
    }
}
