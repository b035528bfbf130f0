use burn::tensor::{Bool, Int, Tensor, activation::log_softmax};
use rag_core::nn::MASKED;

/// Inner products `[batch, passages]` of the vectors of questions `[batch, dimension]` and passages
/// `[passages, dimension]`, divided by `temperature`.
pub fn in_batch_scores(questions: Tensor<2>, passages: Tensor<2>, temperature: f64) -> Tensor<2> {
    questions.matmul(passages.transpose()) / temperature
}

/// Takes passages that are a question's own once more out of its negatives: two questions of a batch
/// may have one passage for both, and a miner may have found a question's own.
///
/// The first `batch` passages of `scores` `[batch, passages]` are the questions' own, in their order;
/// equal numbers in `identities` `[passages]` mean the same passage.
pub fn mask_duplicates(scores: Tensor<2>, identities: Tensor<1, Int>) -> Tensor<2> {
    let shape @ [batch, passages] = scores.dims();
    let own = identities.clone().narrow(0, 0, batch);
    let own = own.reshape([batch, 1]).expand(shape);
    let all = identities.reshape([1, passages]).expand(shape);
    let elsewhere = Tensor::<2, Bool>::diag_mask(shape, 0, &scores.device());
    scores.mask_fill(own.equal(all).bool_and(elsewhere), MASKED)
}

/// -log P of each question's own passage among those of the batch, `[batch]`, in nats: equation 2 of
/// DPR (Karpukhin et al. 2020, arXiv 2004.04906) of `scores` `[batch, passages]`.
///
/// Passage i is question i's own; all others, the own ones of other questions (in-batch negatives)
/// and what follows them (hard negatives of anyone), are negatives.
pub fn in_batch_loss(scores: Tensor<2>) -> Tensor<1> {
    let [batch, _] = scores.dims();
    -own(log_softmax(scores, 1)).reshape([batch])
}

/// Whether each question's own passage scores higher than all others of the batch, `[batch]`.
pub fn ranks_first(scores: Tensor<2>) -> Tensor<1, Bool> {
    let [batch, _] = scores.dims();
    let elsewhere = Tensor::<2, Bool>::diag_mask(scores.dims(), 0, &scores.device());
    let best_other = scores
        .clone()
        .mask_fill(elsewhere.bool_not(), MASKED)
        .max_dim(1);
    own(scores).greater(best_other).reshape([batch])
}

/// Column i of row i, `[batch, 1]`.
fn own(scores: Tensor<2>) -> Tensor<2> {
    let [batch, _] = scores.dims();
    let places = Tensor::<1, Int>::arange(0..batch as i64, &scores.device());
    scores.gather(1, places.reshape([batch, 1]))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn cpu() -> Device {
        rag_core::device("cpu").unwrap()
    }

    /// Two questions, their passages, and one hard negative.
    fn scores(temperature: f64) -> Tensor<2> {
        let questions = Tensor::from_data([[1.0, 0.0], [0.5, -1.0]], &cpu());
        let passages = Tensor::from_data([[2.0, 1.0], [3.0, -1.0], [0.0, 4.0]], &cpu());
        in_batch_scores(questions, passages, temperature)
    }

    fn loss(scores: Tensor<2>) -> Vec<f32> {
        in_batch_loss(scores).try_into_vec_as().unwrap()
    }

    fn first(scores: Tensor<2>) -> Vec<bool> {
        ranks_first(scores).try_into_vec_as().unwrap()
    }

    fn assert_close(found: &[f32], expected: &[f64]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6);
        }
        assert_eq!(found.len(), expected.len());
    }

    /// ⟨q, p⟩ by hand: 2, 3, 0 for the first question, 0, 2.5, -4 for the second.
    #[test]
    fn all_other_passages_of_the_batch_are_negatives() {
        for temperature in [1.0, 0.05] {
            let e = |score: f64| (score / temperature).exp();
            let expected = [
                -(e(2.0) / (e(2.0) + e(3.0) + e(0.0))).ln(),
                -(e(2.5) / (e(0.0) + e(2.5) + e(-4.0))).ln(),
            ];
            assert_close(&loss(scores(temperature)), &expected);
        }
        assert_eq!(first(scores(1.0)), [false, true]);
    }

    /// The hard negative is the first question's own passage: the second question keeps it.
    #[test]
    fn a_question_is_not_told_from_its_own_passage() {
        let identities = Tensor::from_data([7, 3, 7], &cpu());
        let masked = mask_duplicates(scores(1.0), identities);
        let expected = [
            -(2_f64.exp() / (2_f64.exp() + 3_f64.exp())).ln(),
            -(2.5_f64.exp() / (1.0 + 2.5_f64.exp() + (-4_f64).exp())).ln(),
        ];
        assert_close(&loss(masked), &expected);

        let all_one = mask_duplicates(scores(1.0), Tensor::from_data([0, 0, 0], &cpu()));
        assert_eq!(loss(all_one.clone()), [0.0, 0.0]);
        assert_eq!(first(all_one), [true, true]);
    }

    #[test]
    fn a_tie_is_not_first() {
        let scores = Tensor::from_data([[1.0, 1.0], [0.0, 1.0]], &cpu());
        assert_eq!(first(scores), [false, true]);
    }
}
