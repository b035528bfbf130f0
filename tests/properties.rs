//! Properties that hold for all weights.

// Long because: every property runs over the same models and draws, which are made here.

#![allow(clippy::unwrap_used)]

mod common;

use std::{cell::Cell, ops::ControlFlow};

use burn_rag::{
    burn::tensor::{Int, Tensor, TensorData},
    core::{
        TokenBatch,
        marginal::{Compat, RagModel},
        nn::Precision,
    },
    generate::{
        Answer, Outcome, Rag, RankBy, Reader, SequenceDecoding, SequenceSettings, Threshold,
        decode::{Control, GenerationConfig},
        generator::{Cache, Generator, GeneratorConfig, fixtures::Tiny},
        likelihood::{Forced, log_probs},
        rag_sequence, rag_token,
    },
    retrieve::{Embedder, Index, KnowledgeBase, Retrieved},
};
use common::{KINDS, Kind, MODELS, N_DOCS, QUESTIONS, assert_close, cpu, rag};

/// A generator over a dozen tokens, small enough to write down everything that it can say.
struct Dozen {
    config: GeneratorConfig,
    generator: Generator,
    generation: GenerationConfig,
    contexts: TokenBatch,
}

const TOKENS: usize = 12;

/// Longest answer in tokens, the end token included.
const LONGEST: usize = 3;

const SCORES: [f32; 3] = [0.3, -0.5, 1.0];

impl Dozen {
    fn all() -> impl Iterator<Item = Self> {
        KINDS.into_iter().map(|kind| {
            let (config, generator) = kind.generator(Tiny::default(), 5);
            assert_eq!(generator.vocabulary(), TOKENS);
            Self {
                generator,
                generation: config.generation().with_max_new_tokens(LONGEST),
                contexts: TokenBatch::new(
                    &[vec![3, 4, 5, 6], vec![7, 8], vec![9, 10, 11, 3, 5]],
                    config.pad(),
                    &cpu(),
                ),
                config,
            }
        })
    }

    fn reader(&self) -> Reader<'_> {
        let Self {
            generator,
            contexts,
            config,
            ..
        } = self;
        Reader::new(generator, contexts, &SCORES, config, Precision::F32)
    }

    /// All that can be decoded, from the start token on: what ends with the end token within the
    /// longest length, and what does not.
    fn sequences(&self) -> Vec<Vec<u32>> {
        let end = self.generation.eos_token_id[0];
        let mut open = vec![vec![self.generation.start_token().unwrap()]];
        let mut complete = Vec::new();
        for _ in 0..LONGEST {
            let longer = open.iter().flat_map(|prefix| {
                (0..TOKENS as u32).map(move |token| [prefix.as_slice(), &[token]].concat())
            });
            let (ended, going): (Vec<_>, Vec<_>) =
                longer.partition(|sequence| sequence.last() == Some(&end));
            complete.extend(ended);
            open = going;
        }
        complete.extend(open);
        complete
    }

    fn forced(&self) -> Vec<Forced> {
        let sequences = self.sequences().into_iter();
        sequences
            .map(|sequence| Forced::decoded(&sequence, &self.generation))
            .collect()
    }

    /// log P(y_i|x,z,y_<i) as `[answer][document][token]`.
    fn token_log_probs(&self, answers: &[Forced]) -> Vec<Vec<Vec<f64>>> {
        let memory = self.generator.encode(&self.contexts, Precision::F32);
        let mut all = Vec::new();
        for answer in answers {
            let length = answer.inputs.len();
            let inputs: Vec<i64> = answer.inputs.iter().map(|&id| id.into()).collect();
            let inputs = Tensor::<2, Int>::from_data(TensorData::new(inputs, [1, length]), &cpu());
            let log_probs = log_probs(&self.generator, &memory, inputs, Precision::F32);
            let log_probs: Vec<f32> = log_probs.try_into_vec_as().unwrap();
            let of = |z: usize, i: usize| {
                f64::from(log_probs[(z * length + i) * TOKENS + answer.targets[i] as usize])
            };
            let documents = 0..SCORES.len();
            all.push(
                documents
                    .map(|z| (0..length).map(|i| of(z, i)).collect())
                    .collect(),
            );
        }
        all
    }
}

/// P(y|x) by the equations of the paper, of `[document][token]`.
fn marginal(model: RagModel, log_probs: &[Vec<f64>]) -> f64 {
    let weights = SCORES.map(|score| f64::from(score).exp());
    let total: f64 = weights.iter().sum();
    let prior = weights.map(|weight| weight / total);
    let documents = || prior.iter().zip(log_probs);
    match model {
        RagModel::Sequence => documents()
            .map(|(prior, tokens)| prior * tokens.iter().sum::<f64>().exp())
            .sum(),
        RagModel::Token => (0..log_probs[0].len())
            .map(|i| {
                documents()
                    .map(|(prior, tokens)| prior * tokens[i].exp())
                    .sum::<f64>()
            })
            .product(),
    }
}

#[test]
fn the_probabilities_of_all_answers_sum_to_one_and_are_those_of_the_equations() {
    for dozen in Dozen::all() {
        let reader = dozen.reader();
        let answers = dozen.forced();
        let log_probs = dozen.token_log_probs(&answers);
        for model in MODELS {
            let likelihoods = reader.likelihoods(model, &answers).unwrap();
            let mut total = 0.0;
            for (likelihood, log_probs) in likelihoods.iter().zip(&log_probs) {
                let found = f64::from(likelihood.log_likelihood).exp();
                let expected = marginal(model, log_probs);
                assert!(
                    (found - expected).abs() < 1e-4 * expected.max(1e-3),
                    "{found} {expected}"
                );
                total += found;
            }
            assert!((total - 1.0).abs() < 1e-4, "{model:?}: {total}");
        }
    }
}

/// Whether few proposals are shared by documents, or all of them are.
#[test]
fn proposals_are_scored_under_every_document() {
    for dozen in Dozen::all() {
        let reader = dozen.reader();
        for beams in [1, 2, 5, 2 * TOKENS * TOKENS] {
            let generation = dozen
                .generation
                .clone()
                .with_num_beams(beams)
                .with_num_return_sequences(beams)
                .with_repetition_penalty(1.5);
            for deduplicate in [true, false] {
                let settings = SequenceSettings {
                    decoding: SequenceDecoding::Thorough,
                    compat: Compat::Paper,
                    deduplicate,
                };
                let control = Control::default();
                let found = rag_sequence::decode(&reader, &generation, settings, control).unwrap();
                let answers: Vec<_> = (found.iter())
                    .map(|proposal| Forced::decoded(&proposal.tokens, &generation))
                    .collect();
                let expected = reader.likelihoods(RagModel::Sequence, &answers).unwrap();
                for (found, expected) in found.iter().zip(&expected) {
                    let apart = (found.score - expected.log_likelihood).abs();
                    assert!(apart < 1e-4, "{beams} beams: {found:?}, {expected:?}");
                }
            }
        }
    }
}

#[test]
fn the_two_models_differ() {
    let dozen = Dozen::all().next().unwrap();
    let answers = dozen.forced();
    let [sequence, token] = [RagModel::Sequence, RagModel::Token]
        .map(|model| dozen.reader().likelihoods(model, &answers));
    let differences = sequence.unwrap().into_iter().zip(token.unwrap());
    let largest = differences
        .map(|(sequence, token)| (sequence.log_likelihood - token.log_likelihood).abs())
        .fold(0.0, f32::max);
    assert!(largest > 0.1, "{largest}");
}

#[test]
fn beams_enough_find_the_most_probable_answer_of_rag_token() {
    for dozen in Dozen::all() {
        let reader = dozen.reader();
        let sequences = dozen.sequences();
        let likelihoods = reader
            .likelihoods(RagModel::Token, &dozen.forced())
            .unwrap();
        let (best, likelihood) = sequences
            .iter()
            .zip(&likelihoods)
            .max_by(|a, b| a.1.log_likelihood.total_cmp(&b.1.log_likelihood))
            .unwrap();
        let generation = (dozen.generation.clone())
            .with_num_beams((TOKENS - 1) * (TOKENS - 1))
            .with_length_penalty(0.0);
        let found = rag_token::decode(&reader, &generation, Control::default()).unwrap();
        assert_eq!(&found[0][0].tokens, best);
        assert_close(found[0][0].score, likelihood.log_likelihood, 1e-4);
    }
}

#[test]
fn questions_asked_together_are_answered_as_alone() {
    // More than are decoded at once, of different lengths.
    let questions: Vec<&str> = QUESTIONS.into_iter().cycle().take(11).collect();
    for (kind, model) in kinds_and_models() {
        let rag = rag(kind).with_model(model);
        for num_beams in [1, 3] {
            let generation = rag.generation().clone().with_num_beams(num_beams);
            let rag = rag.clone().with_generation(generation);
            let together = rag.ask_many(&questions).unwrap();
            assert_eq!(together.len(), questions.len());
            for (question, found) in questions.iter().zip(together) {
                let alone = rag.ask(question).unwrap();
                assert_eq!(found.question, alone.question);
                assert_eq!(found.text, alone.text);
                assert_close(found.log_likelihood, alone.log_likelihood, 1e-4);
                for (found, alone) in found.evidence.iter().zip(&alone.evidence) {
                    assert_eq!(found.passage, alone.passage);
                    assert_close(found.posterior, alone.posterior, 1e-4);
                }
            }
        }
    }
    assert!(rag(Kind::Bart).ask_many(&[]).unwrap().is_empty());
    assert!(rag(Kind::Bart).ask_many(&["rain", " "]).is_err());
}

#[test]
fn what_is_returned_is_a_distribution() {
    for (kind, model) in kinds_and_models() {
        let rag = rag(kind).with_model(model);
        for question in QUESTIONS {
            let answer = rag.ask(question).unwrap();
            assert_eq!(answer.question, question);
            assert_eq!(answer.evidence.len(), N_DOCS);
            is_consistent(&answer);
            let label = rag
                .score(question, &["rain", "the play", "下雨了", ""])
                .unwrap();
            label.iter().for_each(is_consistent);
        }
    }
}

fn is_consistent(answer: &Answer) {
    let sum = |numbers: Vec<f32>| {
        assert!(
            numbers.iter().all(|number| (0.0..=1.0001).contains(number)),
            "{numbers:?}"
        );
        numbers.iter().sum::<f32>()
    };
    let evidence = || answer.evidence.iter();
    assert_close(sum(evidence().map(|one| one.prior).collect()), 1.0, 1e-5);
    assert_close(
        sum(evidence().map(|one| one.posterior).collect()),
        1.0,
        1e-5,
    );
    assert!(!answer.tokens.is_empty());
    for token in &answer.tokens {
        assert_close(sum(token.shares.clone()), 1.0, 1e-5);
    }
    let by_token: f32 = answer
        .tokens
        .iter()
        .map(|token| token.log_probability)
        .sum();
    assert_close(by_token, answer.log_likelihood, 1e-4);
    let text: String = answer
        .tokens
        .iter()
        .map(|token| token.text.as_str())
        .collect();
    assert_eq!(text.trim(), answer.text.trim());
    let scores: Vec<_> = evidence().map(|one| one.score).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
}

#[test]
fn with_one_document_the_two_models_are_one() {
    for kind in KINDS {
        let generation = |rag: &Rag| {
            (rag.generation().clone())
                .with_num_beams(4)
                .with_num_return_sequences(3)
                .with_length_penalty(0.0)
        };
        let mut rag = rag(kind);
        rag.retriever = rag.retriever.top_k(1).unwrap();
        let rag = rag.clone().with_generation(generation(&rag));
        for question in QUESTIONS {
            let [sequence, token] =
                MODELS.map(|model| rag.clone().with_model(model).ask_several(question).unwrap());
            assert_eq!(sequence.len(), 3);
            for (sequence, token) in sequence.iter().zip(&token) {
                assert_eq!(sequence.text, token.text);
                assert_close(sequence.log_likelihood, token.log_likelihood, 1e-5);
                assert_eq!(sequence.evidence[0].posterior, 1.0);
                assert_eq!(token.evidence[0].posterior, 1.0);
            }
        }
    }
}

#[test]
fn decoding_step_by_step_is_teacher_forcing() {
    for kind in KINDS {
        let rag = rag(kind);
        let generator = rag.generator();
        let vocabulary = rag.config().generator.vocabulary();
        let contexts = TokenBatch::new(
            &[vec![5, 6, 7, 8, 9], vec![10, 11, 12]],
            rag.config().generator.pad(),
            &cpu(),
        );
        let memory = generator.encode(&contexts, Precision::F32);
        // Two rows a context.
        let rows = [
            [2, 20, 21, 22, 23],
            [2, 24, 25, 26, 27],
            [2, 28, 29, 30, 31],
            [2, 32, 33, 34, 35],
        ];
        let whole = decode(generator, &memory, &rows, &mut Cache::default());
        for steps in [vec![1; 5], vec![2, 1, 2], vec![1, 4], vec![3, 2]] {
            let mut cache = Cache::default();
            let mut past = 0;
            for step in steps {
                let tokens = rows.map(|row| row[past..past + step].to_vec());
                let part = decode(generator, &memory, &tokens, &mut cache);
                for row in 0..rows.len() {
                    let at = |i: usize, length: usize| (row * length + i) * vocabulary;
                    let expected = &whole[at(past, 5)..at(past + step, 5)];
                    let found = &part[at(0, step)..at(step, step)];
                    same_numbers(found, expected);
                }
                past += step;
                assert_eq!(cache.length(), past);
            }
        }
    }
}

#[test]
fn a_reordered_cache_continues_other_rows() {
    for kind in KINDS {
        let rag = rag(kind);
        let generator = rag.generator();
        let pad = rag.config().generator.pad();
        let contexts = TokenBatch::new(&[vec![5, 6, 7, 8], vec![9, 10]], pad, &cpu());
        let memory = generator.encode(&contexts, Precision::F32);
        let mut cache = Cache::default();
        let begun = [[2, 20], [2, 21], [2, 22], [2, 23]];
        decode(generator, &memory, &begun, &mut cache);
        // From two rows a context to three.
        let parents = [1, 0, 1, 2, 2, 3];
        cache.select(&Tensor::from_ints(parents, &cpu()));
        let next = [[30], [31], [32], [33], [34], [35]];
        let found = decode(generator, &memory, &next, &mut cache);
        let rows: Vec<Vec<u32>> = parents
            .iter()
            .zip(next)
            .map(|(&parent, next)| [begun[parent as usize].as_slice(), &next].concat())
            .collect();
        let whole = decode(generator, &memory, &rows, &mut Cache::default());
        let vocabulary = rag.config().generator.vocabulary();
        for row in 0..rows.len() {
            let last = (row * 3 + 2) * vocabulary;
            same_numbers(
                &found[row * vocabulary..(row + 1) * vocabulary],
                &whole[last..last + vocabulary],
            );
        }
    }
}

fn decode(
    generator: &Generator,
    memory: &burn_rag::generate::generator::Memory,
    rows: &[impl AsRef<[u32]>],
    cache: &mut Cache,
) -> Vec<f32> {
    let ids = burn_rag::core::padded(rows, 0, &cpu());
    let logits = generator.decode(ids, memory, cache, Precision::F32);
    logits.try_into_vec_as().unwrap()
}

fn same_numbers(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_close(*found, *expected, 1e-5 * expected.abs().max(1.0));
    }
}

#[test]
fn passages_padded_beside_longer_ones_say_the_same() {
    for kind in KINDS {
        let rag = rag(kind);
        let pad = rag.config().generator.pad();
        let encoded = |contexts: &[Vec<u32>]| {
            let contexts = TokenBatch::new(contexts, pad, &cpu());
            rag.generator().encode(&contexts, Precision::F32)
        };
        let alone = encoded(&[vec![5, 6, 7]]);
        let beside = encoded(&[vec![5, 6, 7], vec![8; 40]]);
        let expected = decode(
            rag.generator(),
            &alone,
            &[[2, 20, 21]],
            &mut Cache::default(),
        );
        let found = decode(
            rag.generator(),
            &beside,
            &[[2, 20, 21]; 2],
            &mut Cache::default(),
        );
        same_numbers(&found[..expected.len()], &expected);
    }
}

#[test]
fn what_is_saved_answers_as_before() {
    for (kind, model) in kinds_and_models() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "deeper/second"].map(|name| folder.path().join(name));
        let rag = rag(kind).with_model(model);
        let generation = rag
            .generation()
            .clone()
            .with_num_beams(3)
            .with_num_return_sequences(2);
        let rag = rag.with_generation(generation);
        rag.save(&first).unwrap();
        let loaded = Rag::load(&first, rag.retriever.local().unwrap().clone(), &cpu()).unwrap();
        same_rag(&rag, &loaded);
        loaded.save(&second).unwrap();
        assert_eq!(common::files(&first), common::files(&second));
        loaded.save(&first).unwrap();
        assert_eq!(common::files(&first), common::files(&second));
        let again = Rag::load(&first, rag.retriever.local().unwrap().clone(), &cpu()).unwrap();
        same_rag(&rag, &again);
        let beside: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(beside.len(), 2, "{beside:?}");
    }
}

fn same_rag(rag: &Rag, loaded: &Rag) {
    assert_eq!(rag.config(), loaded.config());
    assert_eq!(rag.generation(), loaded.generation());
    let encoders = |rag: &Rag| {
        [
            rag.retriever.question_encoder(),
            rag.retriever.context_encoder(),
        ]
        .map(|encoder| encoder.fingerprint().unwrap())
    };
    assert_eq!(encoders(rag), encoders(loaded));
    for question in QUESTIONS {
        assert_eq!(
            rag.ask_several(question).unwrap(),
            loaded.ask_several(question).unwrap()
        );
        let candidates = ["rain", "下雨了", "a play"];
        assert_eq!(
            rag.score(question, &candidates).unwrap(),
            loaded.score(question, &candidates).unwrap()
        );
    }
}

#[test]
fn the_number_of_documents_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    let mut rag = rag(Kind::T5);
    rag.retriever = rag.retriever.top_k(2).unwrap();
    rag.save(folder.path().join("rag")).unwrap();
    let knowledge = rag.retriever.local().unwrap().clone();
    let loaded = Rag::load(folder.path().join("rag"), knowledge, &cpu()).unwrap();
    assert_eq!(loaded.retriever.n_docs(), 2);
}

#[test]
fn a_mapped_knowledge_base_is_the_one_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let rag = rag(Kind::Bart);
    let memory = rag.retriever.local().unwrap();
    memory.save(&folder).unwrap();
    memory.save(&folder).unwrap();
    let mapped = KnowledgeBase::open(&folder).unwrap();
    assert_eq!(mapped.len(), memory.len());
    assert_eq!(mapped.manifest().encoder, memory.manifest().encoder);
    assert_eq!(mapped.index().rows(0..6), memory.index().rows(0..6));
    for (mapped, memory) in mapped.passages().zip(memory.passages()) {
        assert_eq!(mapped.unwrap(), memory.unwrap());
    }
    assert_eq!(mapped.index().dimension(), memory.index().dimension());
    let saved = folder.path().join("model");
    rag.save(&saved).unwrap();
    same_rag(&rag, &Rag::load(&saved, mapped, &cpu()).unwrap());
}

#[test]
fn thorough_decoding_chooses_no_less_probable_an_answer_than_fast() {
    for kind in KINDS {
        for beams in [1, 3] {
            let rag = rag(kind).with_model(RagModel::Sequence);
            let generation = rag.generation().clone().with_num_beams(beams);
            let rag = rag.with_generation(generation);
            for question in QUESTIONS {
                let [thorough, fast] =
                    [SequenceDecoding::Thorough, SequenceDecoding::Fast].map(|decoding| {
                        rag.clone()
                            .with_sequence_decoding(decoding)
                            .ask(question)
                            .unwrap()
                    });
                assert!(
                    thorough.log_likelihood >= fast.log_likelihood - 1e-5,
                    "{kind:?}, {beams} beams: {} {}",
                    thorough.log_likelihood,
                    fast.log_likelihood
                );
            }
        }
    }
}

#[test]
fn answers_come_best_first() {
    for (kind, model) in kinds_and_models() {
        let rag = rag(kind).with_model(model);
        let generation = rag
            .generation()
            .clone()
            .with_num_beams(4)
            .with_num_return_sequences(4)
            .with_length_penalty(0.0);
        let rag = rag.with_generation(generation);
        let answers = rag.ask_several(QUESTIONS[0]).unwrap();
        assert_eq!(answers.len(), 4);
        assert!(answers.is_sorted_by(|a, b| a.log_likelihood >= b.log_likelihood - 1e-5));
    }
}

#[test]
fn a_seed_decides_what_is_drawn() {
    for (kind, model) in kinds_and_models() {
        let rag = rag(kind).with_model(model);
        let generation = rag
            .generation()
            .clone()
            .with_do_sample(true)
            .with_top_k(0)
            .with_temperature(2.0);
        let rag = rag.with_generation(generation);
        let drawn = |seed: u64| {
            let rag = rag.clone();
            let generation = rag.generation().clone().with_seed(seed);
            let rag = rag.with_generation(generation);
            rag.ask(QUESTIONS[0]).unwrap()
        };
        assert_eq!(drawn(1), drawn(1));
        let others: Vec<_> = (2..6).map(drawn).collect();
        assert!(
            others.iter().any(|other| other.text != drawn(1).text),
            "{kind:?} {model:?}"
        );
    }
}

#[test]
fn what_is_streamed_is_the_answer() {
    for kind in KINDS {
        for sample in [false, true] {
            let rag = rag(kind);
            let generation = rag.generation().clone().with_do_sample(sample);
            let rag = rag.with_generation(generation);
            for question in QUESTIONS {
                let mut streamed = Vec::new();
                let mut on_token = |search: usize, token: u32| {
                    assert_eq!(search, 0);
                    streamed.push(token);
                    ControlFlow::Continue(())
                };
                let control = Control::default().with_on_token(&mut on_token);
                let answer = rag.ask_with(question, control).unwrap();
                let tokens: Vec<_> = answer.tokens.iter().map(|token| token.id).collect();
                assert_eq!(streamed, tokens);
                assert_eq!(answer, rag.ask(question).unwrap());
            }
        }
    }
}

#[test]
fn answers_end_before_their_stop_strings() {
    let ids =
        |answer: &Answer| -> Vec<u32> { answer.tokens.iter().map(|token| token.id).collect() };
    for (kind, model) in kinds_and_models() {
        let rag = rag(kind).with_model(model);
        let generation = |change: fn(GenerationConfig) -> GenerationConfig| {
            change(rag.generation().clone().with_max_length(16))
        };
        let mut stopped = 0;
        for generation in [
            generation(|plain| plain),
            generation(|plain| plain.with_num_beams(3)),
            generation(|plain| plain.with_do_sample(true)),
        ] {
            let rag = rag.clone().with_generation(generation.clone());
            for question in QUESTIONS {
                let whole = rag.ask(question).unwrap();
                let letters: Vec<char> = whole.text.chars().collect();
                let middle = letters.len() / 3;
                let Some(stop) = letters.get(middle..middle + 2) else {
                    continue;
                };
                let stop: String = stop
                    .iter()
                    .filter(|&&letter| letter != '\u{FFFD}')
                    .collect();
                if stop.is_empty() {
                    continue;
                }
                let stopping = generation.clone().with_stop_strings([&stop]);
                let rag = rag.clone().with_generation(stopping);
                let answer = rag.ask(question).unwrap();
                is_consistent(&answer);
                assert!(!answer.text.contains(&stop), "{answer:?}");
                let tokens = ids(&answer);
                let text = |tokens: &[u32]| rag.tokenizer().decode_untrimmed(tokens).unwrap();
                let before = text(&tokens[..tokens.len() - 1]);
                assert!(!before.contains(&stop), "{before} {stop}");
                if text(&tokens).contains(&stop) {
                    stopped += 1;
                }
                let together = rag.ask_many(&[question, question]).unwrap();
                // Each of several samples draws its own numbers.
                let same = if generation.do_sample { 1 } else { 2 };
                for found in together.into_iter().take(same) {
                    assert_eq!((&found.text, ids(&found)), (&answer.text, ids(&answer)));
                    assert_close(found.log_likelihood, answer.log_likelihood, 1e-4);
                }
                if rag.generation().num_beams == 1 && model == RagModel::Token {
                    // The same tokens, up to the first that makes the text contain the string.
                    assert!(ids(&whole).starts_with(&tokens));
                    let all = text(&ids(&whole));
                    assert_eq!(answer.text, all[..all.find(&stop).unwrap()].trim());
                    let mut streamed = Vec::new();
                    let mut on_token = |_: usize, token: u32| {
                        streamed.push(token);
                        ControlFlow::Continue(())
                    };
                    let control = Control::default().with_on_token(&mut on_token);
                    assert_eq!(rag.ask_with(question, control).unwrap(), answer);
                    assert_eq!(streamed, tokens);
                }
                // A stop of the caller's own ends it too, and cuts nothing.
                let second = |answer: &[u32]| answer.len() == 2;
                let control = Control::default().with_stop(&second);
                let short = rag.ask_with(question, control).unwrap();
                assert!(short.tokens.len() <= 2, "{short:?}");
                // A given answer stays as it is.
                let given = rag.score(question, &[&whole.text]).unwrap();
                assert_eq!(
                    given[0].text,
                    (rag.tokenizer())
                        .decode(&rag.answer_tokens(&whole.text).unwrap())
                        .unwrap()
                );
            }
        }
        assert!(stopped > 1, "{kind:?} {model:?}: {stopped}");
    }
}

#[test]
fn a_stream_can_be_stopped() {
    for kind in KINDS {
        let rag = rag(kind);
        let whole = rag.ask(QUESTIONS[0]).unwrap();
        assert!(whole.tokens.len() > 2, "{whole:?}");
        let mut left = 2;
        let mut on_token = |_: usize, _: u32| {
            left -= 1;
            if left == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let control = Control::default().with_on_token(&mut on_token);
        let answer = rag.ask_with(QUESTIONS[0], control).unwrap();
        let ids = |answer: &Answer| {
            answer
                .tokens
                .iter()
                .map(|token| token.id)
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(&answer), ids(&whole)[..2]);
    }
}

#[test]
fn cancelling_ends_every_search() {
    for (kind, model) in kinds_and_models() {
        for (decoding, beams) in [
            (SequenceDecoding::Thorough, 1),
            (SequenceDecoding::Thorough, 3),
            (SequenceDecoding::Fast, 1),
            (SequenceDecoding::Fast, 3),
        ] {
            for penalty in [-1.0, 0.0, 1.0] {
                for steps in [0, 2] {
                    let rag = rag(kind).with_model(model).with_sequence_decoding(decoding);
                    let generation = rag
                        .generation()
                        .clone()
                        .with_num_beams(beams)
                        .with_length_penalty(penalty);
                    let rag = rag.with_generation(generation);
                    let asked = Cell::new(0);
                    let cancelled = || {
                        asked.set(asked.get() + 1);
                        asked.get() > steps
                    };
                    let control = Control::default().with_cancelled(&cancelled);
                    let answer = rag.ask_with(QUESTIONS[1], control).unwrap();
                    assert!(answer.tokens.len() <= steps, "{answer:?}");
                    assert!(answer.log_likelihood.is_finite());
                }
            }
        }
    }
}

#[test]
fn the_order_of_passages_does_not_matter() {
    for (kind, model) in kinds_and_models() {
        let rag = rag(kind).with_model(model);
        for question in QUESTIONS {
            let found = rag.retriever.retrieve(&[question]).unwrap().swap_remove(0);
            let order = [2, 0, 1];
            let permuted: Vec<Retrieved> = order.iter().map(|&i| found[i].clone()).collect();
            let answer = |passages: &[Retrieved]| {
                rag.answers(question, passages, Control::default())
                    .unwrap()
                    .swap_remove(0)
            };
            let (expected, answer) = (answer(&found), answer(&permuted));
            assert_eq!(answer.text, expected.text);
            assert_close(answer.log_likelihood, expected.log_likelihood, 1e-4);
            for (evidence, &i) in answer.evidence.iter().zip(&order) {
                assert_eq!(evidence.passage, expected.evidence[i].passage);
                assert_close(evidence.prior, expected.evidence[i].prior, 1e-5);
                assert_close(evidence.posterior, expected.evidence[i].posterior, 1e-4);
            }
            for (token, expected) in answer.tokens.iter().zip(&expected.tokens) {
                for (share, &i) in token.shares.iter().zip(&order) {
                    assert_close(*share, expected.shares[i], 1e-4);
                }
            }
        }
    }
}

#[test]
fn classification_is_decoding_among_the_labels() {
    const LABELS: [&str; 4] = ["rain", "the play", "下雨了", "it is"];
    for kind in KINDS {
        for forced_bos in [None, Some(0)] {
            let rag = rag(kind).with_model(RagModel::Token);
            let generation = GenerationConfig {
                forced_bos_token_id: forced_bos,
                ..rag.generation().clone()
            };
            let rag = rag.with_generation(generation);
            let labels = rag.allowed(&LABELS).unwrap();
            // All beams, and one place more than the longest label takes.
            let generation = rag
                .generation()
                .clone()
                .with_num_beams(LABELS.len())
                .with_num_return_sequences(LABELS.len())
                .with_length_penalty(0.0)
                .with_max_new_tokens(labels.longest() + 1);
            let rag = rag.with_generation(generation);
            let allowed = labels.callback();
            for question in QUESTIONS {
                let classified = rag.classify(question, &LABELS).unwrap();
                let control = Control::default().with_allowed(&allowed);
                let found = rag.retriever.retrieve(&[question]).unwrap().swap_remove(0);
                let decoded = rag.answers(question, &found, control).unwrap();
                assert_eq!(decoded[0].text, classified.text);
                assert_close(decoded[0].log_likelihood, classified.log_likelihood, 1e-4);
                let mut scored = rag.score(question, &LABELS).unwrap();
                scored.sort_by(|a, b| b.log_likelihood.total_cmp(&a.log_likelihood));
                let texts = |answers: &[Answer]| {
                    answers
                        .iter()
                        .map(|answer| answer.text.clone())
                        .collect::<Vec<_>>()
                };
                assert_eq!(texts(&decoded), texts(&scored));
            }
        }
    }
}

#[test]
fn scores_of_candidates_do_not_depend_on_one_another() {
    let candidates: Vec<String> = (0..20)
        .map(|i| format!("{} rain", "the ".repeat(i % 7)))
        .collect();
    let candidates: Vec<&str> = candidates.iter().map(String::as_str).collect();
    for (kind, model) in kinds_and_models() {
        let rag = rag(kind).with_model(model);
        let together = rag.score(QUESTIONS[0], &candidates).unwrap();
        assert_eq!(together.len(), candidates.len());
        for (candidate, together) in candidates.iter().zip(&together) {
            let alone = &rag.score(QUESTIONS[0], &[candidate]).unwrap()[0];
            assert_eq!(alone.text, together.text);
            assert_close(alone.log_likelihood, together.log_likelihood, 1e-4);
        }
    }
}

#[test]
fn an_answer_survives_json_and_shows_its_sources() {
    for (kind, model) in kinds_and_models() {
        let answer = rag(kind).with_model(model).ask(QUESTIONS[2]).unwrap();
        let json = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<Answer>(&json).unwrap(), answer);
        let shown = answer.to_string();
        assert!(
            shown.contains(&answer.question) && shown.contains(&answer.text),
            "{shown}"
        );
        for evidence in &answer.evidence {
            assert!(shown.contains(&evidence.passage.id), "{shown}");
            assert!(shown.contains(&evidence.passage.text), "{shown}");
        }
        let probability = answer.probability();
        let probability = match probability < 0.0005 {
            true => format!("P(y|x) = {probability:.1e}"),
            false => format!("P(y|x) = {probability:.3}"),
        };
        assert!(shown.contains(&probability), "{shown}");
    }
}

#[test]
fn sources_of_documents_are_shown_with_their_place() {
    use burn_rag::core::Source;
    let mut answer = rag(Kind::T5).ask(QUESTIONS[0]).unwrap();
    answer.evidence[0].passage.source = Some(Source {
        file: "notes/天气.md".into(),
        bytes: 12..345,
        page: None,
    });
    answer.evidence[1].passage.source = Some(Source {
        file: "notes/rain.pdf".into(),
        bytes: 0..9_999,
        page: Some(3),
    });
    let shown = answer.to_string();
    assert!(shown.contains("notes/天气.md, bytes 12–345"), "{shown}");
    assert!(shown.contains("notes/rain.pdf, page 3\n"), "{shown}");
}

#[test]
fn an_answer_below_the_threshold_is_an_abstention() {
    for kind in KINDS {
        let rag = rag(kind);
        for question in QUESTIONS {
            let best = rag.ask(question).unwrap();
            let outcome = |threshold| rag.ask_or_abstain(question, threshold).unwrap();
            assert_eq!(
                outcome(Threshold::Probability(0.0)),
                Outcome::Answered(best.clone())
            );
            assert_eq!(
                outcome(Threshold::Probability(1.01)),
                Outcome::Abstained(best.clone())
            );
            let exactly = Threshold::Probability(best.probability());
            assert_eq!(outcome(exactly), Outcome::Answered(best.clone()));
            assert_eq!(
                outcome(Threshold::Similarity(f32::NEG_INFINITY)),
                Outcome::Answered(best.clone())
            );
            assert_eq!(
                outcome(Threshold::Similarity(f32::INFINITY)),
                Outcome::Abstained(best)
            );
        }
    }
}

#[test]
fn candidates_are_ranked_by_inner_products() {
    let rag = rag(Kind::T5);
    let candidates = ["rain", "the play", "下雨了", "it is", ""];
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    for question in QUESTIONS {
        for by in [RankBy::Question, RankBy::Evidence] {
            let ranked = rag.rank_candidates(question, &candidates, by).unwrap();
            assert_eq!(ranked.len(), candidates.len());
            assert!(ranked.is_sorted_by(|a, b| a.score >= b.score), "{ranked:?}");
            for one in ranked {
                let questions = |text: &str| {
                    let vectors = rag
                        .retriever
                        .question_encoder()
                        .embed_questions(&[text])
                        .unwrap();
                    vectors.row(0).to_vec()
                };
                let expected = match by {
                    RankBy::Question => {
                        let passage = burn_rag::core::Passage::new("", "", one.text.as_str());
                        let vectors = rag.retriever.context_encoder().embed_passages(&[passage]);
                        dot(&questions(question), &vectors.unwrap().row(0).to_vec())
                    }
                    RankBy::Evidence => rag.retriever.retrieve(&[question]).unwrap()[0]
                        .iter()
                        .map(|found| {
                            let vectors = rag
                                .retriever
                                .knowledge()
                                .vectors_at(&[found.position])
                                .unwrap();
                            dot(&questions(&one.text), &vectors.row(0).to_vec())
                        })
                        .fold(f32::NEG_INFINITY, f32::max),
                };
                assert_close(one.score, expected, 1e-4);
            }
        }
    }
}

#[test]
fn one_retrieval_is_no_other_for_many_questions() {
    let rag = rag(Kind::T5);
    let together = rag.retriever.retrieve(&QUESTIONS).unwrap();
    for (question, together) in QUESTIONS.iter().zip(&together) {
        let alone = rag.retriever.retrieve(&[question]).unwrap().swap_remove(0);
        for (alone, together) in alone.iter().zip(together) {
            assert_eq!(alone.passage, together.passage);
            assert_close(alone.score, together.score, 1e-4);
        }
    }
}

fn kinds_and_models() -> impl Iterator<Item = (Kind, RagModel)> {
    KINDS
        .into_iter()
        .flat_map(|kind| MODELS.map(|model| (kind, model)))
}

#[test]
fn less_precision_answers_like_f32() {
    for kind in KINDS {
        for (precision, tolerance) in [
            (Precision::Bf16, 0.1),
            (Precision::F16, 0.02),
            (Precision::Int8, 0.1),
        ] {
            let full = rag(kind);
            let half = full.clone().with_precision(precision).unwrap();
            for question in QUESTIONS {
                let candidates = ["rain", "雨", "the play"];
                let [full, half] =
                    [&full, &half].map(|rag| rag.score(question, &candidates).unwrap());
                for (full, half) in full.iter().zip(&half) {
                    let scale = full.log_likelihood.abs();
                    assert_close(half.log_likelihood, full.log_likelihood, tolerance * scale);
                    let total: f32 = half.evidence.iter().map(|one| one.posterior).sum();
                    assert_close(total, 1.0, 1e-4);
                }
                assert!(half[0].log_likelihood != full[0].log_likelihood);
            }
        }
    }
}

#[test]
fn a_rounded_generator_is_saved_as_it_answers() {
    for kind in KINDS {
        let rounded = rag(kind).with_precision(Precision::Bf16).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let saved = folder.path().join("saved");
        rounded.save(&saved).unwrap();
        let knowledge = rounded.retriever.local().unwrap().clone();
        let opened = Rag::load(&saved, knowledge, &cpu()).unwrap();
        let opened = opened.with_precision(Precision::Bf16).unwrap();
        for question in QUESTIONS {
            assert_eq!(
                rounded.ask(question).unwrap(),
                opened.ask(question).unwrap()
            );
        }
    }
}

/// More threads than cores, which share the work of each other's answers.
#[test]
fn answers_asked_for_at_once_are_those_of_one_after_the_other() {
    for (kind, model) in kinds_and_models() {
        let rag = rag(kind).with_model(model);
        let expected = QUESTIONS.map(|question| rag.ask(question).unwrap());
        std::thread::scope(|scope| {
            for i in 0..16 {
                let (rag, expected) = (&rag, &expected);
                scope.spawn(move || {
                    let at = i % QUESTIONS.len();
                    assert_eq!(rag.ask(QUESTIONS[at]).unwrap(), expected[at]);
                });
            }
        });
    }
}
