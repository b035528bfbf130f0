use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// One question's ranking, and what was judged about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranking {
    /// The relevance of each passage that was found, best rank first; 0 for one that nobody judged.
    pub ranked: Vec<u32>,
    /// The relevance of every judged passage, found or not, in any order.
    pub judged: Vec<u32>,
}

/// Means over questions, each 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RankingScores {
    /// How many of the best passages were looked at.
    pub k: usize,
    /// [`precision_at`].
    pub precision: f64,
    /// [`recall_at`].
    pub recall: f64,
    /// Mean reciprocal rank: of [`reciprocal_rank`].
    pub mrr: f64,
    /// [`ndcg`].
    pub ndcg: f64,
    /// Share of questions with a relevant passage among the best k.
    pub hits: f64,
    /// Questions that were asked.
    pub questions: usize,
}

/// Scores of many questions' rankings among their best `k`.
///
/// # Errors
/// [`Error::NoExamples`].
pub fn rankings(rankings: &[Ranking], k: usize) -> Result<RankingScores> {
    if rankings.is_empty() {
        return Err(Error::NoExamples);
    }
    let mean = |score: &dyn Fn(&Ranking) -> f64| {
        rankings.iter().map(score).sum::<f64>() / rankings.len() as f64
    };
    Ok(RankingScores {
        k,
        precision: mean(&|of| precision_at(&of.ranked, k)),
        recall: mean(&|of| recall_at(&of.ranked, &of.judged, k)),
        mrr: mean(&|of| reciprocal_rank(&of.ranked, k)),
        ndcg: mean(&|of| ndcg(&of.ranked, &of.judged, k)),
        hits: mean(&|of| f64::from(u8::from(relevant(&of.ranked, k) > 0))),
        questions: rankings.len(),
    })
}

/// Precision@k: the share of the best `k` places that a relevant passage took, 0 to 1. Places that
/// nothing took count as well.
pub fn precision_at(ranked: &[u32], k: usize) -> f64 {
    relevant(ranked, k) as f64 / k.max(1) as f64
}

/// Recall@k: the share of the relevant passages, found or not, among the best `k`, 0 to 1. It is 0
/// where no passage is relevant. `ranked` and `judged` as in [`Ranking`].
pub fn recall_at(ranked: &[u32], judged: &[u32], k: usize) -> f64 {
    relevant(ranked, k) as f64 / relevant(judged, judged.len()).max(1) as f64
}

/// One over the rank of the first relevant passage, 0 where none is among the best `k`. Its mean over
/// questions is MRR@k.
pub fn reciprocal_rank(ranked: &[u32], k: usize) -> f64 {
    let first = ranked.iter().take(k).position(|&relevance| relevance > 0);
    first.map_or(0.0, |i| 1.0 / (i + 1) as f64)
}

fn relevant(relevances: &[u32], k: usize) -> usize {
    let best = relevances.iter().take(k);
    best.filter(|&&relevance| relevance > 0).count()
}

/// Normalised discounted cumulative gain of one question's ranking among its best `k`, 0 to 1.
///
/// `ranked` and `judged` as in [`Ranking`]. The gain is the relevance itself, divided by log₂(rank + 1),
/// as in trec_eval and BEIR:
///
/// DCG@k = Σ_{i=1..k} rel_i / log₂(i + 1), nDCG@k = DCG@k / (DCG@k of the best ranking there could be).
///
/// It is 0 where no passage is relevant. Järvelin and Kekäläinen 2002.
///
/// ```
/// use rag_train::evaluate::ndcg;
///
/// // The only relevant passage stands third.
/// assert_eq!(ndcg(&[0, 0, 1], &[1], 10), 0.5);
/// ```
pub fn ndcg(ranked: &[u32], judged: &[u32], k: usize) -> f64 {
    let mut ideal = judged.to_vec();
    ideal.sort_unstable_by(|a, b| b.cmp(a));
    match discounted(&ideal, k) {
        0.0 => 0.0,
        best => discounted(ranked, k) / best,
    }
}

fn discounted(relevances: &[u32], k: usize) -> f64 {
    let gains = relevances.iter().take(k).enumerate();
    gains
        .map(|(i, &relevance)| f64::from(relevance) / (i as f64 + 2.0).log2())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gains_count_less_further_down() {
        // Found at ranks 1 and 4, a third never found: (1 + 1/log2 5) / (1 + 1/log2 3 + 1/2).
        let by_hand = (1.0 + 1.0 / 5f64.log2()) / (1.0 + 1.0 / 3f64.log2() + 0.5);
        assert!((ndcg(&[1, 0, 0, 1], &[1, 1, 1], 10) - by_hand).abs() < 1e-12);
    }

    #[test]
    fn the_best_ranking_is_1_and_swapping_grades_is_less() {
        assert_eq!(ndcg(&[3, 2, 1, 0], &[1, 0, 3, 2], 10), 1.0);
        assert!(ndcg(&[2, 3, 1], &[1, 3, 2], 10) < 1.0);
    }

    #[test]
    fn only_the_first_k_count_on_both_sides() {
        assert_eq!(ndcg(&[1, 1, 0], &[1, 1, 1], 2), 1.0);
        assert_eq!(ndcg(&[0, 0, 1], &[1], 2), 0.0);
        assert_eq!(ndcg(&[0, 0], &[0], 2), 0.0);
        assert_eq!(ndcg(&[], &[1], 2), 0.0);
    }

    #[test]
    fn means_over_questions_by_hand() {
        let judged = vec![1, 2, 0, 1];
        let asked = [
            Ranking {
                ranked: vec![0, 2, 0, 1, 1],
                judged: judged.clone(),
            },
            Ranking {
                ranked: vec![1],
                judged: vec![1],
            },
            Ranking {
                ranked: vec![0, 0, 0, 1],
                judged,
            },
            Ranking::default(),
        ];
        let scores = rankings(&asked, 3).unwrap();
        assert_eq!((scores.k, scores.questions), (3, 4));
        assert_eq!(scores.precision, (1.0 / 3.0 + 1.0 / 3.0) / 4.0);
        assert_eq!(scores.recall, (1.0 / 3.0 + 1.0) / 4.0);
        assert_eq!(scores.mrr, (0.5 + 1.0) / 4.0);
        assert_eq!(scores.hits, 0.5);
        // The best ranking of the first is 2, 1, 1.
        let first = (2.0 / 3f64.log2()) / (2.0 + 1.0 / 3f64.log2() + 0.5);
        assert!((scores.ndcg - (first + 1.0) / 4.0).abs() < 1e-12);
        assert!(matches!(rankings(&[], 3), Err(Error::NoExamples)));
    }

    #[test]
    fn deeper_is_never_less_but_for_precision() {
        let (ranked, judged) = ([0, 1, 0, 0, 3, 1], [1, 3, 1, 2]);
        for k in 0..8 {
            assert!(recall_at(&ranked, &judged, k) <= recall_at(&ranked, &judged, k + 1));
            assert!(reciprocal_rank(&ranked, k) <= reciprocal_rank(&ranked, k + 1));
        }
        assert_eq!(precision_at(&ranked, 2), 0.5);
        assert_eq!(precision_at(&ranked, 10), 0.3);
        assert_eq!(precision_at(&ranked, 0), 0.0);
        assert_eq!(recall_at(&ranked, &judged, 10), 0.75);
    }
}
