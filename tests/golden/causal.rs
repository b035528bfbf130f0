//! A decoder-only generator, in `generator/`, by the equations of the paper: log P(y_i|x,z,y_<i) is what the model says
//! after prompt z and y_<i, without batch, padding or cache.
//!
//! | kind | expected |
//! |---|---|
//! | `causal_forward` | logits `[1, length, vocabulary]` of `input_ids` |
//! | `token_log_probs` | log P(y_i\|x,z,y_<i) `[batch, n_docs, length]`, 0 where there is no label |
//! | `rag_sequence_likelihood` | log P(y\|x) `[batch]`, P(z\|x,y) `[batch, n_docs]` |
//! | `rag_token_likelihood` | log P(y\|x) `[batch]`, P(z\|x,y_i,y_<i) `[batch, n_docs, length]`, 0 where there is no label |
//! | `rag_sequence_gradients`, `rag_token_gradients` | -Σ log P(y\|x), its gradient by scores and parameters |
//! | `rag_token_generate` | answers with their end token, then 0; their scores where there are beams |
//! | `rag_sequence_generate` | the same, of thorough decoding, with log P(y\|x) |
//!
//! `prompt_ids` `[batch · n_docs, length]` are padded on the right; the prompts of a question are adjacent. `labels` are
//! answers with their end token, then -100. Of several questions, decoding gives the answers of one after those of another.

use std::path::Path;

use burn_rag::{
    burn::{
        module::Module,
        optim::{GradientsAccumulator, GradientsParams},
        tensor::{Device, Int, Tensor},
    },
    core::{
        TokenBatch,
        checkpoint::{Tensors, Weights, read_json},
        marginal::{
            RagModel, Targets, document_log_posterior, log_likelihood, log_prior,
            token_log_responsibilities,
        },
        nn::Precision,
        padded,
    },
    generate::{
        Reader, SequenceDecoding, SequenceSettings,
        decode::{Control, GenerationConfig},
        generator::{Cache, Generator, GeneratorConfig},
        likelihood::{self, Forced},
        rag_sequence, rag_token,
    },
    retrieve::{EncoderConfig, encoder::BertConfig},
    train::{Backward, Batch, DropoutSeed, EncoderInput, JointModel, Objective},
};
use serde_json::Value;

use crate::{
    Golden,
    arrays::{Arrays, Case, until_end, values},
    gradients,
};

/// One folder: a generator and the numbers that belong to it.
pub struct Causal {
    config: GeneratorConfig,
    /// `generation_config.json`, on top of what the configuration says.
    settings: Value,
    generator: Generator,
    arrays: Arrays,
    device: Device,
}

impl Golden for Causal {
    fn check(&self, case: &Case) -> Result<(), String> {
        match case.kind.as_str() {
            "causal_forward" => self.forward(case),
            "token_log_probs" => self.token_log_probs(case),
            "rag_sequence_likelihood" => self.likelihood(case, RagModel::Sequence),
            "rag_token_likelihood" => self.likelihood(case, RagModel::Token),
            "rag_sequence_gradients" => self.gradients(case, RagModel::Sequence),
            "rag_token_gradients" => self.gradients(case, RagModel::Token),
            "rag_token_generate" => self.token_generate(case),
            "rag_sequence_generate" => self.sequence_generate(case),
            other => Err(format!("the kind {other} is unknown")),
        }
    }
}

impl Causal {
    pub fn open(folder: &Path, device: &Device) -> Self {
        let of_generator = folder.join("generator");
        let config: GeneratorConfig = read_json(of_generator.join("config.json")).unwrap();
        let mut weights = Weights::open(&of_generator).unwrap();
        let generator = config.load(&mut weights, "", device).unwrap();
        let redundant = |name: &str| config.family().is_redundant(name);
        weights.finish(redundant).unwrap();
        let mut settings = serde_json::to_value(config.generation()).unwrap();
        let on_top: Value = read_json(of_generator.join("generation_config.json")).unwrap();
        put_on_top(&mut settings, &on_top);
        Self {
            config,
            settings,
            generator,
            arrays: Arrays::open(&folder.join("cases.safetensors")),
            device: device.clone(),
        }
    }

    /// The first token, half of them and all are a prompt: what follows it is read at once and token by token. The prompts of
    /// all lengths are read together.
    fn forward(&self, case: &Case) -> Result<(), String> {
        let (shape, ids) = self.arrays.int_values(&case.key("input_ids"));
        assert_eq!(shape[0], 1, "one sequence");
        let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
        let (shape, expected) = self.arrays.float_values(&case.key("expected"));
        let (length, vocabulary) = (shape[1], shape[2]);
        let pad = self.config.pad();
        let start = GenerationConfig::PROMPT_END;
        let prompts: Vec<&[u32]> = (1..=length).map(|end| &ids[..end]).collect();
        let read = |prompts: &[&[u32]]| {
            let contexts = TokenBatch::new(prompts, pad, &self.device);
            self.generator.encode(&contexts, Precision::F32)
        };
        let mut some = vec![1, length / 2, length];
        some.dedup();
        for before in some.into_iter().map(|length| length.max(1) - 1) {
            let prompt = prompts[before];
            let memory = read(&[prompt]);
            let expected = &expected[before * vocabulary..];
            let answer = [&[start], &ids[prompt.len()..]].concat();
            let decode = |tokens: &[u32], cache: &mut Cache| {
                let tokens = padded(&[tokens], pad, &self.device);
                values((self.generator).decode(tokens, &memory, cache, Precision::F32))
            };
            let at_once = decode(&answer, &mut Cache::default());
            let mut cache = Cache::default();
            let steps = answer.chunks(1);
            let by_step: Vec<f32> = steps.flat_map(|token| decode(token, &mut cache)).collect();
            for (how, found) in [("at once", at_once), ("token by token", by_step)] {
                let name = format!("expected, {how} after a prompt of {}", prompt.len());
                case.near(&name, expected, &found)?;
            }
        }
        let starts = padded(&vec![[start]; length], pad, &self.device);
        let mut cache = Cache::default();
        let together = (self.generator).decode(starts, &read(&prompts), &mut cache, Precision::F32);
        let name = "expected, of prompts of all lengths";
        case.near(name, expected, &values(together))
    }

    fn token_log_probs(&self, case: &Case) -> Result<(), String> {
        self.arrays
            .compare(case, "expected", self.of_targets(case))?;
        let (inputs, targets) = self.targets(case, &self.device);
        let memory = (self.generator).encode(&self.prompts(case, &self.device), Precision::F32);
        let of_words = likelihood::log_probs(&self.generator, &memory, inputs, Precision::F32);
        self.arrays
            .compare(case, "expected", targets.token_log_probs(&of_words))
    }

    /// As training computes it, all questions at once; and as a reader does, each question with the answers of all.
    fn likelihood(&self, case: &Case, model: RagModel) -> Result<(), String> {
        let of_targets = self.of_targets(case);
        let prior = log_prior(self.arrays.floats(&case.key("doc_scores"), &self.device));
        let whole = log_likelihood(model, prior.clone(), of_targets.clone());
        self.arrays.compare(case, "expected", whole)?;
        match model {
            RagModel::Sequence => {
                let posterior = document_log_posterior(prior, of_targets.clone()).exp();
                self.arrays.compare(case, "posterior", posterior)?;
            }
            RagModel::Token => {
                let (_, targets) = self.targets(case, &self.device);
                let shares = token_log_responsibilities(prior, of_targets.clone()).exp();
                let shares = shares * targets.mask_by_document();
                self.arrays.compare(case, "responsibilities", shares)?;
            }
        }

        let [questions, n_docs, length] = of_targets.dims();
        let answers = self.answers(case);
        let reader = self.reader(case);
        let mut whole = Vec::new();
        let mut posterior = Vec::new();
        let mut shares = vec![0.0; questions * n_docs * length];
        for question in 0..questions {
            let of_answers = reader.question(question).likelihoods(model, &answers);
            let found = &of_answers.map_err(|error| error.to_string())?[question];
            whole.push(found.log_likelihood);
            posterior.extend(&found.posterior);
            for (i, token) in found.tokens.iter().enumerate() {
                for (document, share) in token.shares.iter().enumerate() {
                    shares[(question * n_docs + document) * length + i] = *share;
                }
            }
        }
        self.arrays.compare_values(case, "expected", &whole)?;
        match model {
            RagModel::Sequence => self.arrays.compare_values(case, "posterior", &posterior),
            RagModel::Token => self
                .arrays
                .compare_values(case, "responsibilities", &shares),
        }
    }

    /// In one graph, and one or two documents at a time.
    fn gradients(&self, case: &Case, model: RagModel) -> Result<(), String> {
        let device = self.device.clone().autodiff();
        let joint = JointModel {
            question_encoder: unused_encoder().init(&self.device).unwrap(),
            context_encoder: None,
            prior: None,
            generator: self.generator.clone(),
        }
        .train();
        let mut names = Tensors::default();
        joint.generator.store(&mut names, "");
        let batch = self.batch(case, &device);
        let objective = Objective {
            model,
            ..Objective::default()
        };
        for documents_at_a_time in [None, Some(1), Some(2)] {
            // A question's vector is its scores, a passage's one component of it.
            let scores = self.arrays.floats::<2>(&case.key("doc_scores"), &device);
            let scores = scores.require_grad();
            let backward = Backward {
                documents_at_a_time,
                weight: 1.0,
                seed: DropoutSeed::default(),
            };
            let mut accumulator = GradientsAccumulator::new();
            let mut by_score = vec![0.0; scores.dims().iter().product()];
            let beliefs = objective.backward(&joint, &batch, scores.clone(), backward, |loss| {
                let mut gradients = loss.backward();
                if let Some(gradient) = scores.grad(&gradients) {
                    let more = values(gradient);
                    by_score.iter_mut().zip(more).for_each(|(sum, x)| *sum += x);
                }
                let gradients = GradientsParams::from_module(&mut gradients, &joint);
                accumulator.accumulate(&joint, gradients);
            });
            let found = gradients::named(&joint, &accumulator.grads(), &names);
            (self.arrays)
                .compare_values(case, "expected_loss", &[beliefs.losses.sum().into_scalar()])
                .and_then(|()| (self.arrays).compare_values(case, "expected_doc_scores", &by_score))
                .and_then(|()| gradients::compare(&self.arrays, case, &found))
                .map_err(|error| format!("{error} ({documents_at_a_time:?} at a time)"))?;
        }
        Ok(())
    }

    /// All questions together, and each alone.
    fn token_generate(&self, case: &Case) -> Result<(), String> {
        let generation = self.generation(case);
        let reader = self.reader(case);
        let decode = |reader: &Reader<'_>| {
            rag_token::decode(reader, &generation, Control::default())
                .map_err(|error| error.to_string())
        };
        let together = decode(&reader)?;
        let mut alone = Vec::new();
        for question in 0..together.len() {
            alone.extend(decode(&reader.question(question))?);
        }
        for (how, answers) in [("together", together), ("alone", alone)] {
            let answers = answers.into_iter().flatten();
            let (answers, scores) = answers.map(|answer| (answer.tokens, answer.score)).unzip();
            self.compare_answers(case, &generation, answers)
                .and_then(|()| self.compare_scores(case, "sequences_scores", scores))
                .map_err(|error| format!("{error} (questions {how})"))?;
        }
        Ok(())
    }

    fn sequence_generate(&self, case: &Case) -> Result<(), String> {
        let generation = self.generation(case);
        let reader = self.reader(case);
        let settings = SequenceSettings {
            decoding: SequenceDecoding::Thorough,
            compat: Default::default(),
            deduplicate: true,
        };
        let (mut answers, mut scores) = (Vec::new(), Vec::new());
        for question in 0..self.arrays.doc_scores(case).len() {
            let reader = reader.question(question);
            let found = rag_sequence::decode(&reader, &generation, settings, Control::default());
            for proposal in found.map_err(|error| error.to_string())? {
                answers.push(proposal.tokens);
                scores.push(proposal.score);
            }
        }
        self.compare_answers(case, &generation, answers)?;
        self.compare_scores(case, "log_likelihoods", scores)
    }

    /// log P(y_i|x,z,y_<i) of the labels, `[batch, n_docs, length]`.
    fn of_targets(&self, case: &Case) -> Tensor<3> {
        let (inputs, targets) = self.targets(case, &self.device);
        let memory = (self.generator).encode(&self.prompts(case, &self.device), Precision::F32);
        likelihood::target_log_probs(&self.generator, &memory, inputs, &targets, Precision::F32)
    }

    fn reader(&self, case: &Case) -> Reader<'_> {
        Reader::of_questions(
            &self.generator,
            &self.prompts(case, &self.device),
            &self.arrays.doc_scores(case),
            &self.config,
            Precision::F32,
        )
    }

    fn prompts(&self, case: &Case, device: &Device) -> TokenBatch {
        (self.arrays).tokens(case, "prompt_ids", "prompt_mask", device)
    }

    fn answers(&self, case: &Case) -> Vec<Forced> {
        let (shape, labels) = self.arrays.int_values(&case.key("labels"));
        let generation = self.generation(case);
        let start = generation.start_token().unwrap();
        let rows = labels.chunks(shape[1]).map(|row| {
            let labels = row.iter().filter(|&&label| label != -100);
            let decoded = [start].into_iter().chain(labels.map(|&label| label as u32));
            Forced::decoded(&decoded.collect::<Vec<_>>(), &generation)
        });
        rows.collect()
    }

    fn targets(&self, case: &Case, device: &Device) -> (Tensor<2, Int>, Targets) {
        likelihood::batch(&self.answers(case), self.config.pad(), device)
    }

    /// A batch whose passages are as many unit vectors.
    fn batch(&self, case: &Case, device: &Device) -> Batch {
        let (shape, _) = self.arrays.float_values(&case.key("doc_scores"));
        let (questions, n_docs) = (shape[0], shape[1]);
        let (inputs, targets) = self.targets(case, device);
        Batch {
            questions: EncoderInput {
                tokens: TokenBatch::new(&vec![[0]; questions], 0, device),
                segments: None,
            },
            passages: None,
            signals: None,
            contexts: self.prompts(case, device),
            documents: Tensor::<2>::eye(n_docs, device)
                .unsqueeze_dim::<3>(0)
                .expand([questions, n_docs, n_docs]),
            inputs,
            targets,
        }
    }

    /// The settings of the generator with those of the case on top.
    fn generation(&self, case: &Case) -> GenerationConfig {
        let mut settings = self.settings.clone();
        put_on_top(&mut settings, &case.params);
        GenerationConfig {
            // No file names it.
            decoder_start_token_id: self.config.generation().decoder_start_token_id,
            ..serde_json::from_value(settings).unwrap()
        }
    }

    /// Token ids, without what stands for the end of the prompt, up to and including the end token.
    fn compare_answers(
        &self,
        case: &Case,
        generation: &GenerationConfig,
        found: Vec<Vec<u32>>,
    ) -> Result<(), String> {
        let (shape, expected) = self.arrays.int_values(&case.key("expected"));
        let rows = expected.chunks(shape[1]);
        let expected: Vec<_> = rows
            .map(|row| until_end(row, &generation.eos_token_id, 0))
            .collect();
        let mut answers = Vec::new();
        for sequence in &found {
            let Some((&GenerationConfig::PROMPT_END, answer)) = sequence.split_first() else {
                return Err(format!("{sequence:?} does not begin where a prompt ends"));
            };
            answers.push(answer.iter().map(|&id| i64::from(id)).collect::<Vec<_>>());
        }
        if expected != answers {
            return Err(format!("expected {expected:?}, found {answers:?}"));
        }
        Ok(())
    }

    /// Compares the scores of answers where the case has them: greedy decoding has none.
    fn compare_scores(&self, case: &Case, name: &str, found: Vec<f32>) -> Result<(), String> {
        match self.arrays.contains(&case.key(name)) {
            true => self.arrays.compare_values(case, name, &found),
            false if name == "sequences_scores" && case.params["num_beams"] == 1 => Ok(()),
            false => Err(format!("the case has no {name}")),
        }
    }
}

/// An encoder for a model whose questions come as vectors.
fn unused_encoder() -> EncoderConfig {
    let bert = BertConfig {
        vocab_size: 1,
        hidden_size: 2,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        intermediate_size: 2,
        max_position_embeddings: 1,
        ..BertConfig::default()
    };
    EncoderConfig {
        bert,
        ..EncoderConfig::default()
    }
}

fn put_on_top(settings: &mut Value, on_top: &Value) {
    for (name, value) in on_top.as_object().unwrap() {
        settings[name] = value.clone();
    }
}
