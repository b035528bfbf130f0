use std::cell::Cell;
use std::error::Error;
use std::ops::ControlFlow;

use super::markov::Markov;
use crate::decode::beam::beam_search;
use crate::decode::{
    AllowedAnswers, Control, DecodeError, EarlyStopping, Ending, GenerationConfig, Hypothesis,
    NextToken, generate,
};

const VOCABULARY: usize = 4;
const END: u32 = 3;
const START: u32 = 0;

fn with_tokens(config: GenerationConfig) -> GenerationConfig {
    config
        .with_decoder_start_token_id(START)
        .with_eos_token_id(END)
}

fn markov(seed: u64, batch: usize) -> Markov {
    Markov::new(seed, batch, VOCABULARY, 1.0)
}

fn run(seed: u64, batch: usize, config: &GenerationConfig) -> Vec<Vec<Hypothesis>> {
    generate(&mut markov(seed, batch), batch, config, Control::default()).unwrap()
}

/// Every sequence of at most `longest` tokens that ends with the end token or is as long as allowed, best first.
fn enumerate(seed: u64, longest: usize, length_penalty: f64) -> Vec<(Vec<u32>, f32)> {
    let mut open = vec![(vec![START], 0.0)];
    let mut complete = Vec::new();
    while let Some((tokens, log_probability)) = open.pop() {
        let mut model = markov(seed, 1);
        let scores = tokens
            .iter()
            .fold(Vec::new(), |_, &token| model.next(&[0], &[token]).unwrap());
        let total: f32 = scores.iter().map(|score| score.exp()).sum();
        for token in 0..VOCABULARY as u32 {
            let longer = [tokens.as_slice(), &[token]].concat();
            let log_probability = log_probability + scores[token as usize] - total.ln();
            if token == END || longer.len() == longest {
                let length = (longer.len() - 1) as f32;
                complete.push((longer, log_probability / length.powf(length_penalty as f32)));
            } else {
                open.push((longer, log_probability));
            }
        }
    }
    complete.sort_by(|a, b| b.1.total_cmp(&a.1));
    complete
}

#[test]
fn log_probabilities_are_the_models_own() {
    for config in [
        GenerationConfig::default(),
        GenerationConfig::sampling(5).with_temperature(0.5),
        GenerationConfig::beams(3).with_num_return_sequences(3),
    ] {
        let config = with_tokens(config)
            .with_repetition_penalty(2.0)
            .with_forced_bos_token_id(2)
            .with_min_length(4)
            .with_max_length(8);
        for seed in 0..10 {
            for found in run(seed, 1, &config).remove(0) {
                assert_eq!(found.log_probs.len(), found.tokens.len() - 1);
                let mut model = markov(seed, 1);
                let given = found.tokens[1..].iter().zip(&found.log_probs);
                for (&read, (&next, &log_prob)) in found.tokens.iter().zip(given) {
                    let scores = model.next(&[0], &[read]).unwrap();
                    let total: f32 = scores.iter().map(|score| score.exp()).sum();
                    let expected = scores[next as usize] - total.ln();
                    assert!((log_prob - expected).abs() < 1e-5, "{found:?}");
                }
            }
        }
    }
}

#[test]
fn enough_beams_are_exhaustive() {
    let longest = 5;
    let beams = VOCABULARY.pow(longest as u32 - 1);
    for (seed, length_penalty) in [(1, 0.0), (2, 1.0), (3, 2.0), (4, -1.0)] {
        let expected = enumerate(seed, longest, length_penalty);
        let config = with_tokens(GenerationConfig::beams(beams))
            .with_num_return_sequences(beams)
            .with_max_length(longest)
            .with_length_penalty(length_penalty);
        let found = run(seed, 1, &config).remove(0);
        assert_eq!(found.len(), expected.len());
        for (found, (tokens, score)) in found.iter().zip(&expected) {
            assert!((found.score - score).abs() < 1e-4, "{found:?} {score}");
            assert!(
                found.tokens == *tokens || found.score - score < 1e-6,
                "{found:?} {tokens:?}"
            );
        }
    }
}

#[test]
fn one_beam_is_greedy() {
    for seed in 0..50 {
        let config = with_tokens(GenerationConfig::default())
            .with_length_penalty(0.0)
            .with_max_length(8);
        let greedy = run(seed, 3, &config);
        let beam = beam_search(&mut markov(seed, 3), 3, &config, Control::default()).unwrap();
        for (greedy, beam) in greedy.iter().flatten().zip(beam.iter().flatten()) {
            assert_eq!(greedy.tokens, beam.tokens);
            assert!((greedy.score - beam.score).abs() < 1e-4);
            assert_eq!(greedy.ending, beam.ending);
        }
    }
}

#[test]
fn searches_do_not_touch_each_other() {
    for config in [
        GenerationConfig::default(),
        GenerationConfig::beams(3).with_num_return_sequences(3),
        GenerationConfig::sampling(5).with_num_return_sequences(2),
        GenerationConfig::sampling(5).with_num_beams(2),
    ] {
        let config = with_tokens(config).with_max_length(9);
        let together = run(11, 4, &config);
        for batch in 1..4 {
            assert_eq!(run(11, batch, &config), together[..batch]);
        }
    }
}

#[test]
fn rows_shrink_as_searches_end() {
    let mut model = markov(0, 6);
    let config = with_tokens(GenerationConfig::default()).with_max_length(12);
    let answers = generate(&mut model, 6, &config, Control::default()).unwrap();
    let alive = |step: usize| {
        answers
            .iter()
            .filter(|answer| answer[0].tokens.len() > step + 1)
            .count()
    };
    assert_eq!(model.calls[0], 6);
    for (step, &rows) in model.calls.iter().enumerate() {
        assert_eq!(rows, alive(step), "step {step}");
    }
    assert!(model.calls.last() < model.calls.first());
}

#[test]
fn a_seed_repeats_and_another_differs() {
    for beams in [1, 3] {
        let sampling = |seed| {
            with_tokens(GenerationConfig::sampling(seed))
                .with_num_beams(beams)
                .with_max_length(15)
        };
        assert_eq!(run(1, 5, &sampling(7)), run(1, 5, &sampling(7)));
        assert_ne!(run(1, 5, &sampling(7)), run(1, 5, &sampling(8)));
    }
}

#[test]
fn samples_have_the_probabilities_of_the_model() {
    const SAMPLES: usize = 20_000;
    let config = with_tokens(GenerationConfig::sampling(3))
        .with_top_k(0)
        .with_max_length(3)
        .with_num_return_sequences(SAMPLES);
    let samples = run(9, 1, &config).remove(0);
    assert!(samples.is_sorted_by(|a, b| a.score >= b.score));
    for (tokens, log_probability) in enumerate(9, 3, 0.0) {
        let drawn: Vec<&Hypothesis> = samples
            .iter()
            .filter(|sample| sample.tokens == tokens)
            .collect();
        let frequency = drawn.len() as f32 / SAMPLES as f32;
        assert!(
            (frequency - log_probability.exp()).abs() < 0.015,
            "{tokens:?}: {frequency}"
        );
        assert!(
            drawn
                .iter()
                .all(|sample| (sample.score - log_probability).abs() < 1e-4)
        );
    }
}

#[test]
fn one_likeliest_token_leaves_nothing_to_chance() {
    let sampling = with_tokens(GenerationConfig::sampling(1)).with_top_k(1);
    assert_eq!(
        run(4, 3, &sampling),
        run(4, 3, &with_tokens(GenerationConfig::default()))
    );
}

#[test]
fn tokens_are_streamed_as_they_are_decided() {
    let mut streamed = vec![vec![START]; 3];
    let mut on_token = |search: usize, token: u32| {
        streamed[search].push(token);
        ControlFlow::Continue(())
    };
    let control = Control::default().with_on_token(&mut on_token);
    let config = with_tokens(GenerationConfig::default());
    let answers = generate(&mut markov(2, 3), 3, &config, control).unwrap();
    let tokens: Vec<Vec<u32>> = answers
        .into_iter()
        .map(|mut answer| answer.remove(0).tokens)
        .collect();
    assert_eq!(streamed, tokens);
}

#[test]
fn a_break_returns_what_was_decided() {
    let config = with_tokens(GenerationConfig::default()).with_min_length(9);
    let whole = run(2, 2, &config);
    let mut left = 5;
    let mut on_token = |_: usize, _: u32| {
        left -= 1;
        if left == 0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let control = Control::default().with_on_token(&mut on_token);
    let part = generate(&mut markov(2, 2), 2, &config, control).unwrap();
    assert_eq!(part[0][0].tokens, whole[0][0].tokens[..4]);
    assert_eq!(part[1][0].tokens, whole[1][0].tokens[..3]);
    assert_eq!(part[0][0].ending, Ending::Cancelled);
}

#[test]
fn cancellation_between_steps_returns_the_beams() {
    let config = with_tokens(GenerationConfig::beams(3))
        .with_num_return_sequences(3)
        .with_min_length(9)
        .with_length_penalty(0.0);
    for steps in [0, 4] {
        let asked = Cell::new(0);
        let cancelled = || asked.replace(asked.get() + 1) == steps;
        let mut model = markov(2, 2);
        let answers = generate(
            &mut model,
            2,
            &config,
            Control::default().with_cancelled(&cancelled),
        )
        .unwrap();
        assert_eq!(model.calls.len(), steps);
        for answer in answers.iter().flatten() {
            assert_eq!(
                (answer.tokens.len(), answer.ending),
                (steps + 1, Ending::Cancelled)
            );
        }
        assert_eq!(answers[0].len(), if steps == 0 { 1 } else { 3 });
    }
}

#[test]
fn a_list_of_answers_gives_these_alone() {
    let listed = [vec![1, 2, 1], vec![2], vec![1, 1]];
    let answers = AllowedAnswers::new(&listed, END).with_bos(2);
    let allowed = answers.callback();
    for early_stopping in [
        EarlyStopping::WhenFull,
        EarlyStopping::Heuristic,
        EarlyStopping::Never,
    ] {
        for beams in [1, 2, 3, 5] {
            let config = with_tokens(GenerationConfig::beams(beams))
                .with_num_return_sequences(beams)
                .with_early_stopping(early_stopping)
                .with_forced_bos_token_id(2)
                .with_max_new_tokens(answers.longest());
            let control = Control::default().with_allowed(&allowed);
            let found = generate(&mut markov(6, 2), 2, &config, control).unwrap();
            for hypotheses in found {
                assert_eq!(hypotheses.len(), beams.min(listed.len()));
                for Hypothesis { tokens, .. } in hypotheses {
                    let (body, frame) = (
                        &tokens[2..tokens.len() - 1],
                        (tokens[1], tokens[tokens.len() - 1]),
                    );
                    assert!(listed.iter().any(|answer| answer == body), "{tokens:?}");
                    assert_eq!(frame, (2, END));
                }
            }
        }
    }
}

#[test]
fn no_way_on_is_an_error() {
    let everything = (0..VOCABULARY as u32 - 1).map(|token| vec![token]);
    for beams in [1, 2] {
        let config = with_tokens(GenerationConfig::beams(beams))
            .with_bad_words_ids(everything.clone())
            .with_min_length(5);
        let error = generate(&mut markov(0, 2), 2, &config, Control::default()).unwrap_err();
        assert!(
            matches!(error, DecodeError::DeadEnd { batch: 0 }),
            "{error}"
        );
    }
}

#[test]
fn no_searches_need_no_model() {
    let mut model = markov(0, 0);
    for config in [GenerationConfig::default(), GenerationConfig::beams(2)] {
        assert!(
            generate(&mut model, 0, &with_tokens(config), Control::default())
                .unwrap()
                .is_empty()
        );
    }
    assert!(model.calls.is_empty());
}

/// Answers every call with the same.
struct Fixed(Result<Vec<f32>, &'static str>);

impl NextToken for Fixed {
    fn vocabulary(&self) -> usize {
        VOCABULARY
    }

    fn next(&mut self, _: &[usize], _: &[u32]) -> Result<Vec<f32>, Box<dyn Error + Send + Sync>> {
        self.0.clone().map_err(Into::into)
    }
}

#[test]
fn what_the_model_gives_is_checked() {
    let cases = [
        (
            Ok(vec![0.0, 0.0, f32::NAN, 0.0]),
            "the model scored token 2 of row 0 with NaN",
        ),
        (
            Ok(vec![0.0, f32::INFINITY, 0.0, 0.0]),
            "the model scored token 1 of row 0 with inf",
        ),
        (
            Ok(vec![0.0; 3]),
            "the model gave 3 scores, but 1 rows of 4 tokens were asked of it",
        ),
        (
            Err("out of memory"),
            "the model failed at the next token: out of memory",
        ),
    ];
    for (given, message) in cases {
        for beams in [1, 2] {
            let config = with_tokens(GenerationConfig::beams(beams));
            let error =
                generate(&mut Fixed(given.clone()), 1, &config, Control::default()).unwrap_err();
            let found = format!("{error:?}");
            assert!(found.starts_with(message), "{found}");
        }
    }
}

#[test]
fn ties_go_to_the_lower_token() {
    let flat = || Fixed(Ok(vec![0.0; VOCABULARY]));
    let config = with_tokens(GenerationConfig::default()).with_max_length(4);
    assert_eq!(
        generate(&mut flat(), 1, &config, Control::default()).unwrap()[0][0].tokens,
        [START, 0, 0, 0]
    );
}
