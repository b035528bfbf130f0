/// Normalised discounted cumulative gain of one question's ranking among its best `k`, 0 to 1.
///
/// `ranked` holds the relevance of each passage that was found, best rank first, 0 for one that nobody
/// judged; `judged` holds the relevance of every judged passage, found or not, in any order. The gain
/// is the relevance itself, divided by log₂(rank + 1), as in trec_eval and BEIR:
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
}
