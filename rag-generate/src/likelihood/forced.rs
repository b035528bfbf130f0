use burn::tensor::{Device, Int, Tensor, TensorData};
use rag_core::{marginal::Targets, padded};

use crate::decode::GenerationConfig;

/// An answer on both sides of the decoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forced {
    /// Tokens that the decoder reads. [`GenerationConfig::PROMPT_END`] at its head is passed on as it is, for the generator to read
    /// its prompt's last token there.
    pub inputs: Vec<u32>,
    /// What it should say after each input.
    pub targets: Vec<u32>,
    /// Whether each target counts: a token that decoding forces has probability 1.
    pub counts: Vec<bool>,
}

impl Forced {
    /// The answer `tokens` (without start and end tokens) as the decoder is trained on it: after the
    /// start token, with the forced first token if there is one, up to the end token: the first of them where there are
    /// several, whichever of them decoding would choose.
    pub fn answer(tokens: &[u32], generation: &GenerationConfig) -> Self {
        let forced = generation.forced_bos_token_id;
        let targets: Vec<u32> = forced
            .into_iter()
            .chain(tokens.iter().copied())
            .chain(generation.eos_token_id.first().copied())
            .collect();
        Self::after_start(generation, targets)
    }

    /// A decoded sequence, from its start token on: with the end token it was decoded with, or the tokens of the stop string
    /// that ended it.
    pub fn decoded(sequence: &[u32], generation: &GenerationConfig) -> Self {
        Self::after_start(generation, sequence[1..].to_vec())
    }

    fn after_start(generation: &GenerationConfig, targets: Vec<u32>) -> Self {
        let start = generation
            .decoder_start_token_id
            .or(generation.bos_token_id);
        let inputs = start
            .into_iter()
            .chain(targets.iter().copied())
            .take(targets.len())
            .collect();
        let forced_first = |i: usize| i == 0 && generation.forced_bos_token_id == Some(targets[0]);
        Self {
            counts: (0..targets.len()).map(|i| !forced_first(i)).collect(),
            inputs,
            targets,
        }
    }

    /// What transformers computes its losses of: the labels are the decoder's input, and the
    /// labels shifted left its target, with `pad` as both padding and what does not count.
    pub fn transformers(labels: &[u32], pad: u32) -> Self {
        let targets: Vec<u32> = labels[1..].iter().copied().chain([pad]).collect();
        Self {
            inputs: labels.to_vec(),
            counts: targets.iter().map(|&target| target != pad).collect(),
            targets,
        }
    }
}

/// Inputs `[rows, length]` and targets `[rows, length]` of several answers.
pub fn batch(answers: &[Forced], pad: u32, device: &Device) -> (Tensor<2, Int>, Targets) {
    let inputs: Vec<_> = answers.iter().map(|answer| &answer.inputs).collect();
    let targets: Vec<_> = answers.iter().map(|answer| &answer.targets).collect();
    let inputs = padded(&inputs, pad, device);
    let [rows, length] = inputs.dims();
    let mask = answers
        .iter()
        .flat_map(|answer| (0..length).map(|i| i64::from(answer.counts.get(i) == Some(&true))))
        .collect::<Vec<_>>();
    let targets = Targets {
        ids: padded(&targets, pad, device),
        mask: Tensor::from_data(TensorData::new(mask, [rows, length]), device),
        exclude_bos_score: false,
    };
    (inputs, targets)
}

#[cfg(test)]
mod tests {
    use rag_core::device;

    use super::*;

    #[test]
    fn an_answer_follows_its_start_and_ends() {
        let generation = GenerationConfig::default()
            .with_decoder_start_token_id(2)
            .with_eos_token_id(1);
        let answer = Forced::answer(&[7, 8], &generation);
        assert_eq!(answer.inputs, [2, 7, 8]);
        assert_eq!(answer.targets, [7, 8, 1]);
        assert_eq!(answer.counts, [true; 3]);
        assert_eq!(answer, Forced::decoded(&[2, 7, 8, 1], &generation));
        let nothing = Forced::answer(&[], &generation);
        assert_eq!((nothing.inputs, nothing.targets), (vec![2], vec![1]));
    }

    #[test]
    fn a_given_answer_ends_with_the_first_end_token_and_a_decoded_one_as_it_did() {
        let generation = GenerationConfig {
            eos_token_id: vec![1, 4],
            ..GenerationConfig::default().with_decoder_start_token_id(2)
        };
        assert_eq!(Forced::answer(&[7], &generation).targets, [7, 1]);
        for sequence in [&[2, 7, 4][..], &[2, 7, 9]] {
            let decoded = Forced::decoded(sequence, &generation);
            assert_eq!(decoded.targets, sequence[1..]);
            assert_eq!(decoded.counts, [true; 2]);
        }
    }

    #[test]
    fn the_prompts_end_is_an_input_like_another() {
        const START: u32 = GenerationConfig::PROMPT_END;
        let generation = GenerationConfig::default()
            .with_decoder_start_token_id(START)
            .with_bos_token_id(5)
            .with_eos_token_id(1);
        let answers = [&[7, 8][..], &[]].map(|tokens| Forced::answer(tokens, &generation));
        assert_eq!(answers[0].inputs, [START, 7, 8]);
        assert_eq!(answers[0].targets, [7, 8, 1]);
        assert_eq!(answers[0], Forced::decoded(&[START, 7, 8, 1], &generation));
        let (inputs, _) = batch(&answers, 9, &device("cpu").unwrap());
        let inputs: Vec<i64> = inputs.into_data().iter().collect();
        let start = i64::from(START);
        assert_eq!(inputs, [start, 7, 8, start, 9, 9]);
    }

    #[test]
    fn what_decoding_forces_does_not_count() {
        let generation = GenerationConfig::default()
            .with_decoder_start_token_id(2)
            .with_eos_token_id(2)
            .with_forced_bos_token_id(0);
        let answer = Forced::answer(&[7], &generation);
        assert_eq!(answer.inputs, [2, 0, 7]);
        assert_eq!(answer.targets, [0, 7, 2]);
        assert_eq!(answer.counts, [false, true, true]);
        assert_eq!(answer, Forced::decoded(&[2, 0, 7, 2], &generation));
        assert_eq!(
            Forced::decoded(&[2, 5, 0, 2], &generation).counts,
            [true; 3]
        );
    }

    #[test]
    fn a_start_of_text_starts_where_nothing_else_does() {
        let generation = GenerationConfig::default()
            .with_bos_token_id(5)
            .with_eos_token_id(1);
        assert_eq!(Forced::answer(&[7], &generation).inputs, [5, 7]);
    }

    #[test]
    fn transformers_shifts_labels_and_drops_padding() {
        let forced = Forced::transformers(&[0, 7, 8, 2, 1, 1], 1);
        assert_eq!(forced.inputs, [0, 7, 8, 2, 1, 1]);
        assert_eq!(forced.targets, [7, 8, 2, 1, 1, 1]);
        assert_eq!(forced.counts, [true, true, true, false, false, false]);
    }

    #[test]
    fn a_batch_is_padded_and_masked() {
        let generation = GenerationConfig::default()
            .with_decoder_start_token_id(2)
            .with_eos_token_id(1);
        let answers = [&[7, 8][..], &[]].map(|tokens| Forced::answer(tokens, &generation));
        let (inputs, targets) = batch(&answers, 9, &device("cpu").unwrap());
        let ints = |tensor: Tensor<2, Int>| tensor.into_data().iter::<i64>().collect::<Vec<_>>();
        assert_eq!(ints(inputs), [2, 7, 8, 2, 9, 9]);
        assert_eq!(ints(targets.ids), [7, 8, 1, 1, 9, 9]);
        assert_eq!(ints(targets.mask), [1, 1, 1, 1, 0, 0]);
    }
}
