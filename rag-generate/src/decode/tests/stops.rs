//! Answers that a stop ends, several end tokens, and starts at a prompt's end.

use std::collections::HashSet;
use std::error::Error;
use std::ops::ControlFlow;
use std::sync::Mutex;

use super::markov::Markov;
use crate::decode::{
    AllowedAnswers, Control, DecodeError, EarlyStopping, Ending, GenerationConfig, Hypothesis,
    NextToken, StopTokens, generate,
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
    Markov::new(seed, batch, VOCABULARY, 0.0)
}

fn run(
    seed: u64,
    batch: usize,
    config: &GenerationConfig,
    stop: &StopTokens<'_>,
) -> Vec<Vec<Hypothesis>> {
    let control = Control::default().with_stop(stop);
    generate(&mut markov(seed, batch), batch, config, control).unwrap()
}

/// Greedy, beams, samples and sampled beams.
fn kinds() -> [GenerationConfig; 4] {
    [
        GenerationConfig::default(),
        GenerationConfig::beams(3).with_num_return_sequences(3),
        GenerationConfig::sampling(5).with_num_return_sequences(2),
        GenerationConfig::sampling(5)
            .with_num_beams(2)
            .with_num_return_sequences(2),
    ]
    .map(|config| with_tokens(config).with_max_length(9))
}

/// Two tokens in a row, as a stop string that spans them.
fn one_then_two(answer: &[u32]) -> bool {
    answer.ends_with(&[1, 2])
}

/// Every sequence that ends with the end token, at a stop or at `longest` tokens, with its log-probability, best first.
fn enumerate(seed: u64, longest: usize, stop: &StopTokens<'_>) -> Vec<(Vec<u32>, f32, Ending)> {
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
            if token == END {
                complete.push((longer, log_probability, Ending::EndOfSequence));
            } else if stop(&longer[1..]) {
                complete.push((longer, log_probability, Ending::Stop));
            } else if longer.len() == longest {
                complete.push((longer, log_probability, Ending::Length));
            } else {
                open.push((longer, log_probability));
            }
        }
    }
    complete.sort_by(|a, b| b.1.total_cmp(&a.1));
    complete
}

#[test]
fn enough_beams_find_every_answer_that_ends_or_stops() {
    let longest = 5;
    let beams = VOCABULARY.pow(longest as u32 - 1);
    let stops: [&StopTokens<'_>; 4] = [
        &one_then_two,
        &|answer| answer.len() == 2,
        &|answer| answer.ends_with(&[0]),
        &|_| true,
    ];
    for (seed, stop) in (0..).zip(stops) {
        let expected = enumerate(seed, longest, stop);
        assert!(expected.iter().any(|answer| answer.2 == Ending::Stop));
        let config = with_tokens(GenerationConfig::beams(beams))
            .with_num_return_sequences(beams)
            .with_max_length(longest)
            .with_length_penalty(0.0);
        let found = run(seed, 1, &config, stop).remove(0);
        assert_eq!(found.len(), expected.len());
        for (found, (_, score, _)) in found.iter().zip(&expected) {
            assert!((found.score - score).abs() < 1e-4, "{found:?} {score}");
        }
        let found: HashSet<_> = found
            .into_iter()
            .map(|found| (found.tokens, format!("{:?}", found.ending)))
            .collect();
        for (tokens, _, ending) in expected {
            assert!(found.contains(&(tokens, format!("{ending:?}"))));
        }
    }
}

/// However many beams it takes to have enough that go on.
#[test]
fn a_stop_at_a_token_is_an_end_token() {
    for beams in [1, 2, 3, 5] {
        for early_stopping in [
            EarlyStopping::WhenFull,
            EarlyStopping::Heuristic,
            EarlyStopping::Never,
        ] {
            for seed in 0..20 {
                for others in [&[2][..], &[1, 2], &[0, 1, 2]] {
                    let config = with_tokens(GenerationConfig::beams(beams))
                        .with_num_return_sequences(beams)
                        .with_early_stopping(early_stopping)
                        .with_max_length(8);
                    let ends = GenerationConfig {
                        eos_token_id: [&[END][..], others].concat(),
                        ..config.clone()
                    };
                    let stop =
                        |answer: &[u32]| answer.last().is_some_and(|token| others.contains(token));
                    let stopped = run(seed, 3, &config, &stop);
                    let ended = run(seed, 3, &ends, &|_| false);
                    assert_eq!(stopped.len(), ended.len());
                    for (stopped, ended) in stopped.iter().flatten().zip(ended.iter().flatten()) {
                        assert_eq!(stopped.tokens, ended.tokens);
                        assert_eq!(stopped.score, ended.score);
                        assert_eq!(stopped.log_probs, ended.log_probs);
                        let last = stopped.tokens[stopped.tokens.len() - 1];
                        let expected = match last {
                            _ if others.contains(&last) => Ending::Stop,
                            _ => ended.ending,
                        };
                        assert_eq!(stopped.ending, expected);
                    }
                    assert!(stopped.iter().zip(&ended).all(|(a, b)| a.len() == b.len()));
                }
            }
        }
    }
}

#[test]
fn nothing_follows_a_stop_and_nothing_stops_before_it() {
    let mut stops = 0;
    for config in kinds() {
        for seed in 0..30 {
            for answer in run(seed, 2, &config, &one_then_two).into_iter().flatten() {
                let tokens = &answer.tokens[1..];
                let stop = (1..=tokens.len()).find(|&length| one_then_two(&tokens[..length]));
                assert_eq!(answer.log_probs.len(), tokens.len());
                if answer.ending == Ending::Stop {
                    stops += 1;
                    assert_eq!(stop, Some(tokens.len()), "{answer:?}");
                } else {
                    assert_eq!(stop, None, "{answer:?}");
                }
            }
        }
    }
    assert!(stops > 50, "{stops}");
}

#[test]
fn a_stop_that_never_comes_changes_nothing() {
    for config in kinds() {
        for seed in 0..10 {
            let plain = generate(&mut markov(seed, 3), 3, &config, Control::default()).unwrap();
            assert_eq!(run(seed, 3, &config, &|_| false), plain);
        }
    }
}

#[test]
fn searches_that_stop_do_not_touch_each_other() {
    for config in kinds() {
        let together = run(11, 4, &config, &one_then_two);
        for batch in 1..4 {
            assert_eq!(run(11, batch, &config, &one_then_two), together[..batch]);
        }
    }
}

#[test]
fn the_token_that_stops_is_streamed_and_none_after_it() {
    for config in [
        GenerationConfig::default(),
        GenerationConfig::sampling(4).with_num_return_sequences(2),
    ] {
        let config = with_tokens(config).with_max_length(9);
        let mut stops = 0;
        for seed in 0..20 {
            let samples = config.num_return_sequences;
            let mut streamed = vec![vec![START]; 3 * samples];
            let mut on_token = |place: usize, token: u32| {
                streamed[place].push(token);
                ControlFlow::Continue(())
            };
            let control = Control::default()
                .with_on_token(&mut on_token)
                .with_stop(&one_then_two);
            let mut model = markov(seed, 3);
            let answers = generate(&mut model, 3, &config, control).unwrap();
            let longest = streamed.iter().map(Vec::len).max();
            assert_eq!(Some(model.calls.len() + 1), longest);
            for (streamed, answers) in streamed.chunks_mut(samples).zip(answers) {
                stops += answers
                    .iter()
                    .filter(|answer| answer.ending == Ending::Stop)
                    .count();
                let mut answers: Vec<_> = answers.into_iter().map(|answer| answer.tokens).collect();
                answers.sort();
                streamed.sort();
                assert_eq!(streamed, answers);
            }
        }
        assert!(stops > 5, "{stops}");
    }
}

#[test]
fn a_stop_is_asked_once_of_each_token_without_the_start() {
    let asked = Mutex::new(Vec::new());
    let stop = |answer: &[u32]| {
        asked.lock().unwrap().push(answer.to_vec());
        answer.len() == 3
    };
    let config = with_tokens(GenerationConfig::default()).with_max_length(9);
    let answer = run(3, 1, &config, &stop).remove(0).remove(0);
    let tokens = &answer.tokens[1..];
    let asked = asked.into_inner().unwrap();
    assert_eq!(answer.ending, Ending::Stop);
    assert_eq!(
        asked,
        (1..=3)
            .map(|length| tokens[..length].to_vec())
            .collect::<Vec<_>>()
    );
}

#[test]
fn an_end_token_goes_before_a_stop_and_a_stop_before_the_length() {
    for beams in [1, 4] {
        let config = with_tokens(GenerationConfig::beams(beams))
            .with_num_return_sequences(beams)
            .with_max_length(2);
        for answer in run(5, 1, &config, &|_| true).remove(0) {
            let expected = match answer.tokens[1] {
                END => Ending::EndOfSequence,
                _ => Ending::Stop,
            };
            assert_eq!(answer.ending, expected);
        }
    }
}

#[test]
fn minimum_lengths_hold_up_end_tokens_alone() {
    for beams in [1, 3] {
        for seed in 0..10 {
            let config = with_tokens(GenerationConfig::beams(beams))
                .with_min_length(9)
                .with_min_new_tokens(4)
                .with_max_length(9);
            let plain = generate(&mut markov(seed, 2), 2, &config, Control::default()).unwrap();
            for answer in plain.iter().flatten() {
                let end = answer.tokens[1..].iter().position(|&token| token == END);
                assert!(end.is_none_or(|place| place >= 4), "{answer:?}");
            }
            for answer in run(seed, 2, &config, &|answer| answer.len() == 2).concat() {
                assert_eq!((answer.tokens.len(), answer.ending), (3, Ending::Stop));
            }
        }
    }
    let config = with_tokens(GenerationConfig::beams(3))
        .with_max_length(9)
        .with_length_penalty(-1.0);
    let shortest = |config: &GenerationConfig| {
        let searches = (0..20).flat_map(|seed| run(seed, 2, config, &|_| false).concat());
        searches.map(|answer| answer.tokens.len() - 1).min()
    };
    assert_eq!(shortest(&config.clone().with_min_new_tokens(3)), Some(4));
    assert!(shortest(&config) < Some(4));
}

#[test]
fn any_of_several_end_tokens_ends_an_answer() {
    let mut endings = HashSet::new();
    for config in kinds() {
        let config = GenerationConfig {
            eos_token_id: vec![END, 1],
            ..config
        };
        for seed in 0..10 {
            let control = Control::default();
            for answer in generate(&mut markov(seed, 2), 2, &config, control)
                .unwrap()
                .concat()
            {
                let is_end = |token: &u32| [END, 1].contains(token);
                let first = answer.tokens[1..].iter().position(is_end);
                let last = answer.tokens.len() - 2;
                assert_eq!(
                    first,
                    (answer.ending == Ending::EndOfSequence).then_some(last)
                );
                endings.insert(answer.tokens[last + 1]);
            }
        }
    }
    assert!(endings.contains(&END) && endings.contains(&1));
}

/// Reads a token in the place of the start.
struct AfterPrompt {
    markov: Markov,
    last: u32,
}

impl NextToken for AfterPrompt {
    fn vocabulary(&self) -> usize {
        self.markov.vocabulary()
    }

    fn next(
        &mut self,
        parents: &[usize],
        tokens: &[u32],
    ) -> Result<Vec<f32>, Box<dyn Error + Send + Sync>> {
        let at_start = self.markov.calls.is_empty();
        let read = |&token: &u32| {
            assert_eq!(token == GenerationConfig::PROMPT_END, at_start);
            if at_start { self.last } else { token }
        };
        let tokens: Vec<u32> = tokens.iter().map(read).collect();
        self.markov.next(parents, &tokens)
    }
}

#[test]
fn a_search_may_start_at_the_prompts_end() {
    let allowed = AllowedAnswers::new([vec![1, 2, 1], vec![2], vec![1, 1]], END);
    let allowed = allowed.callback();
    for config in kinds() {
        let at_prompt = config
            .clone()
            .with_decoder_start_token_id(GenerationConfig::PROMPT_END);
        for seed in 0..10 {
            for constrained in [false, true] {
                let control = || match constrained {
                    true => Control::default().with_allowed(&allowed),
                    false => Control::default(),
                };
                let mut model = AfterPrompt {
                    markov: markov(seed, 2),
                    last: START,
                };
                let found = generate(&mut model, 2, &at_prompt, control()).unwrap();
                let expected = generate(&mut markov(seed, 2), 2, &config, control()).unwrap();
                for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                    assert_eq!(found.tokens[0], GenerationConfig::PROMPT_END);
                    assert_eq!(found.tokens[1..], expected.tokens[1..]);
                    assert_eq!(found.log_probs, expected.log_probs);
                    assert_eq!(found.score, expected.score);
                }
            }
        }
    }
}

#[test]
fn penalties_do_not_see_the_prompt() {
    for beams in [1, 3] {
        for seed in 0..10 {
            let config = with_tokens(GenerationConfig::beams(beams))
                .with_decoder_start_token_id(GenerationConfig::PROMPT_END)
                .with_repetition_penalty(1.5)
                .with_no_repeat_ngram_size(1)
                .with_bad_words_ids([vec![0], vec![1, 2]]);
            let mut of_last = (0..VOCABULARY as u32).map(|last| {
                let mut model = AfterPrompt {
                    markov: markov(seed, 1),
                    last,
                };
                generate(&mut model, 1, &config, Control::default()).unwrap()
            });
            assert!(of_last.all(|answers| answers.concat().iter().all(|answer| {
                let tokens = &answer.tokens[1..];
                let distinct: HashSet<_> = tokens.iter().collect();
                let words = tokens.windows(2).all(|pair| pair != [1, 2]);
                distinct.len() == tokens.len() && words && !tokens.contains(&0)
            })));
        }
    }
}

#[test]
fn stop_strings_that_nobody_reads_are_refused() {
    for beams in [1, 2] {
        let config = with_tokens(GenerationConfig::beams(beams));
        let unread = config.clone().with_stop_strings(["\n"]);
        let error = generate(&mut markov(0, 1), 1, &unread, Control::default()).unwrap_err();
        assert!(matches!(error, DecodeError::UnreadStopStrings), "{error}");
        assert_eq!(
            run(0, 1, &unread, &|_| false),
            run(0, 1, &config, &|_| false)
        );

        let empty = config.with_stop_strings(["a", ""]);
        let control = Control::default().with_stop(&one_then_two);
        let error = generate(&mut markov(0, 1), 1, &empty, control).unwrap_err();
        assert!(
            matches!(error, DecodeError::EmptyStopString { index: 1 }),
            "{error}"
        );
    }
}
