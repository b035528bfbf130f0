//! A whole RAG: question encoder, encoder of passages and an encoder-decoder, in the conventions of transformers.

use std::path::{Path, PathBuf};

use burn_rag::{
    burn::{
        module::Module,
        optim::{AdamWConfig, GradientsAccumulator, GradientsParams},
        tensor::{Device, Int, Tensor},
    },
    core::{
        checkpoint::Tensors,
        marginal::{Compat, RagModel, Targets, log_prior, log_sum_exp, negative_log_likelihood},
        nn::Precision,
    },
    generate::{
        Checkpoint, Reader, SequenceDecoding, SequenceSettings,
        decode::{Control, GenerationConfig},
        likelihood::{self, Forced},
        plain, rag_sequence, rag_token,
    },
    retrieve::encoder::load_encoder,
    train::{
        Accumulation, Backward, Batch, DropoutSeed, EncoderInput, JointModel, LossScaler,
        Objective, Optimizer,
    },
};

use crate::{
    Golden,
    arrays::{Arrays, Case, until_end},
    gradients,
};

/// One folder: a checkpoint and the numbers that belong to it.
pub struct Rag {
    folder: PathBuf,
    checkpoint: Checkpoint,
    arrays: Arrays,
    device: Device,
}

impl Golden for Rag {
    fn check(&self, case: &Case) -> Result<(), String> {
        match case.kind.as_str() {
            "question_encoder" => self.question_encoder(case),
            "context_encoder" => self.context_encoder(case),
            "generator_forward" => self.generator_forward(case),
            "rag_token_logits" => self.rag_token_logits(case),
            "rag_token_loss" => self.loss(case, RagModel::Token),
            "rag_sequence_loss" => self.loss(case, RagModel::Sequence),
            "rag_token_gradients" => self.gradients(case, RagModel::Token),
            "rag_sequence_gradients" => self.gradients(case, RagModel::Sequence),
            "generator_generate" => self.generator_generate(case),
            "rag_token_generate" => self.rag_generate(case, RagModel::Token),
            "rag_sequence_generate" => self.rag_generate(case, RagModel::Sequence),
            "rag_sequence_training" => self.training(case),
            other => Err(format!("the kind {other} is unknown")),
        }
    }
}

impl Rag {
    pub fn open(folder: &Path, device: &Device) -> Self {
        Self {
            folder: folder.to_owned(),
            checkpoint: Checkpoint::load(folder, device).unwrap(),
            arrays: Arrays::open(&folder.join("cases.safetensors")),
            device: device.clone(),
        }
    }

    fn question_encoder(&self, case: &Case) -> Result<(), String> {
        let tokens = self
            .arrays
            .tokens(case, "input_ids", "attention_mask", &self.device);
        let encoder = &self.checkpoint.question_encoder;
        self.arrays.compare(
            case,
            "expected",
            encoder.forward(&tokens, None, Precision::F32),
        )
    }

    fn context_encoder(&self, case: &Case) -> Result<(), String> {
        let folder = self.folder.join("context_encoder");
        let (encoder, _) = load_encoder(&folder, &self.device).unwrap();
        let tokens = self
            .arrays
            .tokens(case, "input_ids", "attention_mask", &self.device);
        self.arrays.compare(
            case,
            "expected",
            encoder.forward(&tokens, None, Precision::F32),
        )
    }

    fn generator_forward(&self, case: &Case) -> Result<(), String> {
        let generator = &self.checkpoint.generator;
        let contexts = self
            .arrays
            .tokens(case, "input_ids", "attention_mask", &self.device);
        let memory = generator.encode(&contexts, Precision::F32);
        let ids = self.arrays.ids(case, "decoder_input_ids", &self.device);
        let logits = generator.decode(ids, &memory, &mut Default::default(), Precision::F32);
        self.arrays.compare(case, "expected", logits)
    }

    fn rag_token_logits(&self, case: &Case) -> Result<(), String> {
        let inputs = self.arrays.ids(case, "decoder_input_ids", &self.device);
        let scores = self
            .arrays
            .floats::<2>(&case.key("doc_scores"), &self.device);
        let log_probs = self.log_probs(case, inputs);
        let [batch, n_docs, ..] = log_probs.dims();
        let prior = log_prior(scores).reshape([batch, n_docs, 1, 1]);
        let marginal = log_sum_exp(log_probs + prior, 1).squeeze_dim::<3>(1);
        self.arrays.compare(case, "expected", marginal)
    }

    fn loss(&self, case: &Case, model: RagModel) -> Result<(), String> {
        let (inputs, mut targets) = self.targets(&case.key("labels"), &self.device);
        targets.exclude_bos_score =
            case.params["exclude_bos_score"] == true && self.all_begin_with_bos(&targets);
        let scores = self
            .arrays
            .floats::<2>(&case.key("doc_scores"), &self.device);
        let loss = negative_log_likelihood(
            model,
            Compat::HuggingFace,
            log_prior(scores),
            self.log_probs(case, inputs),
            &targets,
            case.params["epsilon"].as_f64().unwrap(),
        );
        self.arrays.compare(case, "expected", loss)
    }

    /// In one graph, and one or two documents at a time.
    fn gradients(&self, case: &Case, model: RagModel) -> Result<(), String> {
        let device = self.device.clone().autodiff();
        let joint = self.joint();
        let batch = self.batch(case, "", &device);
        let objective = Objective {
            model,
            compat: Compat::HuggingFace,
            label_smoothing: case.params["epsilon"].as_f64().unwrap(),
            ..Objective::default()
        };
        let seed = DropoutSeed::default();
        for documents_at_a_time in [None, Some(1), Some(2)] {
            let questions = joint.question_vectors(&batch.questions, Precision::F32, seed);
            let scores = Batch::score(questions.clone(), batch.documents.clone());
            self.arrays.compare(case, "expected_doc_scores", scores)?;
            let backward = Backward {
                documents_at_a_time,
                weight: 1.0,
                seed,
            };
            let mut accumulator = GradientsAccumulator::new();
            let beliefs = objective.backward(&joint, &batch, questions, backward, |loss| {
                let gradients = GradientsParams::from_module(&mut loss.backward(), &joint);
                accumulator.accumulate(&joint, gradients);
            });
            self.arrays.compare_values(
                case,
                "expected_loss",
                &[beliefs.losses.sum().into_scalar()],
            )?;
            let gradients = gradients::named(&joint, &accumulator.grads(), &self.names(&joint));
            gradients::compare(&self.arrays, case, &gradients)
                .map_err(|error| format!("{error} ({documents_at_a_time:?} at a time)"))?;
        }
        Ok(())
    }

    fn generator_generate(&self, case: &Case) -> Result<(), String> {
        let generation = self.generation(case);
        let contexts = self
            .arrays
            .tokens(case, "input_ids", "attention_mask", &self.device);
        let Checkpoint {
            generator, config, ..
        } = &self.checkpoint;
        let memory = generator.encode(&contexts, Precision::F32);
        let answers = plain::decode(
            generator,
            memory,
            &config.generator,
            &generation,
            Precision::F32,
            Control::default(),
        )
        .map_err(|error| error.to_string())?;
        let answers: Vec<_> = answers.into_iter().flatten().collect();
        if self.arrays.contains(&case.key("sequences_scores")) {
            let scores: Vec<_> = answers.iter().map(|answer| answer.score).collect();
            self.arrays
                .compare_values(case, "sequences_scores", &scores)?;
        }
        let sequences = answers.into_iter().map(|answer| answer.tokens).collect();
        self.compare_sequences(case, &generation, sequences)
    }

    fn rag_generate(&self, case: &Case, model: RagModel) -> Result<(), String> {
        let generation = self.generation(case);
        let contexts = self.arrays.tokens(
            case,
            "context_input_ids",
            "context_attention_mask",
            &self.device,
        );
        let Checkpoint {
            generator, config, ..
        } = &self.checkpoint;
        let scores = self.arrays.doc_scores(case);
        let precision = Precision::F32;
        let reader =
            Reader::of_questions(generator, &contexts, &scores, &config.generator, precision);
        let mut sequences = Vec::new();
        match model {
            RagModel::Token => {
                let answers = rag_token::decode(&reader, &generation, Control::default())
                    .map_err(|error| error.to_string())?;
                sequences.extend(answers.into_iter().flatten().map(|answer| answer.tokens));
            }
            RagModel::Sequence => {
                let settings = SequenceSettings {
                    decoding: SequenceDecoding::Thorough,
                    compat: Compat::HuggingFace,
                    deduplicate: case.params["do_deduplication"] != false,
                };
                for question in 0..scores.len() {
                    let reader = reader.question(question);
                    let control = Control::default();
                    let answers = rag_sequence::decode(&reader, &generation, settings, control)
                        .map_err(|error| error.to_string())?;
                    sequences.extend(answers.into_iter().map(|answer| answer.tokens));
                }
            }
        }
        self.compare_sequences(case, &generation, sequences)
    }

    /// In one graph, and a document at a time.
    fn training(&self, case: &Case) -> Result<(), String> {
        [None, Some(1)]
            .into_iter()
            .try_for_each(|documents| self.training_with(case, documents))
    }

    fn training_with(&self, case: &Case, documents: Option<usize>) -> Result<(), String> {
        let device = self.device.clone().autodiff();
        let number = |name: &str| case.params[name].as_f64().unwrap();
        let accumulation = number("accumulation") as usize;
        let adamw = AdamWConfig::new()
            .with_beta_1(number("beta_1") as f32)
            .with_beta_2(number("beta_2") as f32)
            .with_epsilon(number("epsilon") as f32)
            .with_weight_decay(number("weight_decay") as f32);
        let scaler = LossScaler::new(Precision::F32);
        let mut optimizer = Optimizer::new(adamw.init(), number("max_gradient_norm"), scaler);
        let mut joint = self.joint();
        let objective = Objective {
            compat: Compat::HuggingFace,
            ..Objective::default()
        };
        let mut found = Vec::new();
        for step in 0..number("steps") as usize {
            let mut gradients = Accumulation::default();
            let mut total = 0.0;
            for micro in 0..accumulation {
                let seed = DropoutSeed::new(0, step, micro);
                let batch = self.batch(case, &format!(":{step}:{micro}"), &device);
                let questions = joint.question_vectors(&batch.questions, Precision::F32, seed);
                let examples = batch.inputs.dims()[0] * accumulation;
                let backward = Backward {
                    documents_at_a_time: documents,
                    weight: 1.0 / examples as f64,
                    seed,
                };
                let beliefs = objective.backward(&joint, &batch, questions, backward, |loss| {
                    optimizer.accumulate(&joint, loss, &mut gradients);
                });
                total += beliefs.losses.sum().into_scalar::<f32>() / examples as f32;
            }
            let (moved, stepped) = optimizer.step(joint, gradients, number("learning_rate"));
            joint = moved;
            found.extend([total, stepped.gradient_norm as f32]);
        }
        self.arrays
            .compare_values(case, "expected_loss_and_gradient_norm", &found)
    }

    fn joint(&self) -> JointModel {
        JointModel {
            question_encoder: self.checkpoint.question_encoder.clone(),
            context_encoder: None,
            prior: None,
            generator: self.checkpoint.generator.clone(),
        }
        .train()
    }

    /// The tensors `<name><suffix>` of a training case.
    fn batch(&self, case: &Case, suffix: &str, device: &Device) -> Batch {
        let named = |name: &str| format!("{name}{suffix}");
        let tokens =
            |ids: &str, mask: &str| self.arrays.tokens(case, &named(ids), &named(mask), device);
        let labels = case.key(&named("labels"));
        let (inputs, targets) = self.targets(&labels, device);
        Batch {
            questions: EncoderInput {
                tokens: tokens("question_input_ids", "question_attention_mask"),
                segments: None,
            },
            passages: None,
            signals: None,
            contexts: tokens("context_input_ids", "context_attention_mask"),
            documents: self
                .arrays
                .floats(&case.key(&named("document_embeddings")), device),
            inputs,
            targets,
        }
    }

    /// What transformers makes of labels.
    fn targets(&self, labels: &str, device: &Device) -> (Tensor<2, Int>, Targets) {
        let (shape, labels) = self.arrays.int_values(labels);
        let pad = self.checkpoint.config.generator.pad();
        let answers: Vec<_> = labels
            .chunks(shape[1])
            .map(|row| row.iter().map(|&id| id as u32).collect::<Vec<_>>())
            .map(|row| Forced::transformers(&row, pad))
            .collect();
        likelihood::batch(&answers, pad, device)
    }

    fn all_begin_with_bos(&self, targets: &Targets) -> bool {
        let first = targets
            .ids
            .clone()
            .narrow(1, 0, 1)
            .into_data()
            .convert::<i64>();
        let bos = self.checkpoint.generation.bos_token_id;
        bos.is_some_and(|bos| first.iter::<i64>().all(|id| id == i64::from(bos)))
    }

    fn log_probs(&self, case: &Case, inputs: Tensor<2, Int>) -> Tensor<4> {
        let contexts = self.arrays.tokens(
            case,
            "context_input_ids",
            "context_attention_mask",
            &self.device,
        );
        let generator = &self.checkpoint.generator;
        let memory = generator.encode(&contexts, Precision::F32);
        likelihood::log_probs(generator, &memory, inputs, Precision::F32)
    }

    /// `generation_config.json` with the settings of the case on top.
    fn generation(&self, case: &Case) -> GenerationConfig {
        let mut settings = serde_json::to_value(&self.checkpoint.generation).unwrap();
        for (name, value) in case.params.as_object().unwrap() {
            settings[name] = value.clone();
        }
        serde_json::from_value(settings).unwrap()
    }

    /// The names of all that trains.
    fn names(&self, joint: &JointModel) -> Tensors {
        let mut tensors = Tensors::default();
        let config = &self.checkpoint.config.question_encoder;
        let prefix = "rag.question_encoder.question_encoder.";
        config.store(&joint.question_encoder, &mut tensors, prefix);
        joint.generator.store(&mut tensors, "rag.generator.");
        tensors
    }

    /// Token ids up to and including the first end token after position 0.
    fn compare_sequences(
        &self,
        case: &Case,
        generation: &GenerationConfig,
        found: Vec<Vec<u32>>,
    ) -> Result<(), String> {
        let (shape, expected) = self.arrays.int_values(&case.key("expected"));
        let cut = |row: &[i64]| until_end(row, &generation.eos_token_id, 1);
        let expected: Vec<_> = expected.chunks(shape[1]).map(cut).collect();
        let found: Vec<_> = found
            .iter()
            .map(|row| cut(&row.iter().map(|&id| i64::from(id)).collect::<Vec<_>>()))
            .collect();
        if expected != found {
            return Err(format!("expected {expected:?}, found {found:?}"));
        }
        Ok(())
    }
}
