use std::path::Path;

use burn::tensor::Device;
use rag_core::{TokenBatch, Tokenizer, atomic::replace_folder, marginal::RagModel, nn::Precision};
use rag_retrieve::{Filter, Knowledge, Retrieved, Retriever, RetrieverError, Role, TextEncoder};
use serde_json::json;

use crate::{
    Answer, AnswerToken, Checkpoint, Error, Evidence, RagConfig, Result,
    decode::{AllowedAnswers, Control, GenerationConfig},
    generator::Generator,
    likelihood::Forced,
    pack::pack,
    rag_sequence::{self, SequenceDecoding, SequenceSettings},
    rag_token,
    reader::{Likelihood, Reader},
};

/// Questions that are read and answered at once: the weights are read once for all of them, and their contexts are in
/// memory together.
const TOGETHER: usize = 8;

/// A retriever and a generator that answer questions together.
#[derive(Clone, Debug)]
pub struct Rag {
    /// Finds passages: P(z|x).
    pub retriever: Retriever,
    /// Writes answers: P(y|x,z).
    pub generator: Generator,
    /// The generator's tokenizer.
    pub tokenizer: Tokenizer,
    /// What the checkpoint says of both.
    pub config: RagConfig,
    /// How answers are decoded.
    pub generation: GenerationConfig,
    /// How RAG-Sequence compares what its documents propose.
    pub sequence_decoding: SequenceDecoding,
    /// The format of the generator's matrix products.
    pub precision: Precision,
}

/// The folders of a checkpoint's parts.
const QUESTION_TOKENIZER: &str = "question_encoder_tokenizer";
const GENERATOR_TOKENIZER: &str = "generator_tokenizer";
const CONTEXT_ENCODER: &str = "context_encoder";

impl Rag {
    /// Puts a checkpoint together with its tokenizers, the encoder of passages and the knowledge base
    /// that it made.
    ///
    /// # Errors
    /// [`rag_core::Error::Vocabulary`]; those of [`Retriever::new`].
    pub fn new(
        checkpoint: Checkpoint,
        question_tokenizer: Tokenizer,
        generator_tokenizer: Tokenizer,
        context_encoder: TextEncoder,
        knowledge: impl Knowledge + 'static,
    ) -> Result<Self> {
        let Checkpoint {
            config,
            generation,
            question_encoder,
            generator,
        } = checkpoint;
        generator_tokenizer.fits(config.generator.vocabulary())?;
        generation.start_token()?;
        let question_encoder = TextEncoder::new(
            question_encoder,
            question_tokenizer,
            config.question_encoder.clone(),
        )?;
        let mut retriever =
            Retriever::new(question_encoder, context_encoder, knowledge, config.n_docs)?;
        if let Some(prior) = config.prior {
            retriever = retriever.with_prior(prior);
        }
        Ok(Self {
            retriever,
            generator,
            tokenizer: generator_tokenizer,
            config,
            generation,
            sequence_decoding: SequenceDecoding::default(),
            precision: Precision::default(),
        })
    }

    /// Reads a folder such as `facebook/rag-token-nq`, with its nested tokenizers, to answer from
    /// `knowledge`. The encoder of passages is read from `context_encoder/` in it.
    ///
    /// # Errors
    /// Those of [`Checkpoint::load`], [`Tokenizer::from_folder`], [`TextEncoder::load`] and
    /// [`Rag::new`].
    pub fn load(
        folder: impl AsRef<Path>,
        knowledge: impl Knowledge + 'static,
        device: &Device,
    ) -> Result<Self> {
        let context_encoder = Self::load_context_encoder(folder.as_ref(), device)?;
        Self::load_with(folder, context_encoder, knowledge, device)
    }

    /// Like [`Rag::load`], for a folder without the encoder of passages, as the published ones are:
    /// `facebook/rag-token-nq` goes with `facebook/dpr-ctx_encoder-multiset-base`.
    ///
    /// # Errors
    /// Those of [`Rag::load`].
    pub fn load_with(
        folder: impl AsRef<Path>,
        context_encoder: TextEncoder,
        knowledge: impl Knowledge + 'static,
        device: &Device,
    ) -> Result<Self> {
        let folder = folder.as_ref();
        Self::new(
            Checkpoint::load(folder, device)?,
            Tokenizer::from_folder(&folder.join(QUESTION_TOKENIZER))?,
            Tokenizer::from_folder(&folder.join(GENERATOR_TOKENIZER))?,
            context_encoder,
            knowledge,
        )
    }

    /// Reads the encoder of passages of a checkpoint folder, to build a knowledge base with.
    ///
    /// # Errors
    /// Those of [`TextEncoder::load`]. The tokenizer is the question encoder's where
    /// `context_encoder/` has none.
    pub fn load_context_encoder(folder: impl AsRef<Path>, device: &Device) -> Result<TextEncoder> {
        let folder = folder.as_ref();
        let encoder = folder.join(CONTEXT_ENCODER);
        if encoder.join("tokenizer.json").is_file() || encoder.join("vocab.txt").is_file() {
            return Ok(TextEncoder::load(&encoder, device)?);
        }
        let tokenizer = Tokenizer::from_folder(&folder.join(QUESTION_TOKENIZER))?;
        Ok(TextEncoder::load_with(&encoder, tokenizer, device)?)
    }

    /// Writes the folder that [`Rag::load`] reads and transformers opens; what stood there before is
    /// replaced whole, or kept where writing fails. The knowledge base is saved by itself.
    ///
    /// # Errors
    /// [`rag_core::Error::Io`]; [`rag_retrieve::EncoderError::NotATextEncoder`] where the retriever has embedders of the
    /// user's own, whose weights there are not.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        replace_folder(folder, |folder| self.write(folder))
    }

    /// Like [`Rag::save`], file by file into a folder that the caller puts into place.
    ///
    /// # Errors
    /// Those of [`Rag::save`].
    pub fn write(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        let question = self.retriever.question_text_encoder()?;
        let context = self.retriever.context_text_encoder()?;
        let checkpoint = Checkpoint {
            config: RagConfig {
                n_docs: self.retriever.n_docs(),
                prior: self.retriever.prior(),
                ..self.config.clone()
            },
            generation: self.generation.clone(),
            question_encoder: question.encoder.clone(),
            generator: self.generator.clone(),
        };
        checkpoint.save(folder)?;
        question.save_tokenizer(&folder.join(QUESTION_TOKENIZER))?;
        self.tokenizer.save(
            &folder.join(GENERATOR_TOKENIZER),
            &self.tokenizer_settings(),
        )?;
        context.save(&folder.join(CONTEXT_ENCODER), Role::Context)?;
        Ok(())
    }

    fn tokenizer_settings(&self) -> serde_json::Value {
        let token = |id: Option<u32>| id.and_then(|id| self.tokenizer.token(id));
        json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": token(self.generation.pad_token_id),
            "bos_token": token(self.generation.bos_token_id),
            "eos_token": token(self.generation.eos_token_id.first().copied()),
        })
    }

    /// Sets how answers are decoded. The model's special tokens stay where `generation` names none.
    #[must_use]
    pub fn with_generation(mut self, generation: GenerationConfig) -> Self {
        let own = self.generation;
        let unset = generation.eos_token_id.is_empty();
        self.generation = GenerationConfig {
            decoder_start_token_id: generation
                .decoder_start_token_id
                .or(own.decoder_start_token_id),
            bos_token_id: generation.bos_token_id.or(own.bos_token_id),
            pad_token_id: generation.pad_token_id.or(own.pad_token_id),
            forced_bos_token_id: generation.forced_bos_token_id.or(own.forced_bos_token_id),
            eos_token_id: if unset {
                own.eos_token_id
            } else {
                generation.eos_token_id
            },
            ..generation
        };
        self
    }

    /// Chooses RAG-Sequence or RAG-Token; the weights serve both.
    #[must_use]
    pub fn with_model(mut self, model: RagModel) -> Self {
        self.config.set_model(model);
        self
    }

    /// Computes the generator's matrix products in `precision`, and stores its matrices so: half the
    /// memory or less, for answering. Training wants f32 parameters, and refuses others.
    ///
    /// # Errors
    /// Those of [`Generator::with_precision`].
    pub fn with_precision(mut self, precision: Precision) -> Result<Self> {
        self.generator = self.generator.with_precision(precision)?;
        self.precision = precision;
        Ok(self)
    }

    /// Sets how RAG-Sequence compares what its documents propose.
    #[must_use]
    pub fn with_sequence_decoding(mut self, decoding: SequenceDecoding) -> Self {
        self.sequence_decoding = decoding;
        self
    }

    /// The same model, which answers from the passages that `filter` means.
    ///
    /// # Errors
    /// Those of [`Retriever::among`].
    pub fn among(&self, filter: &Filter) -> Result<Self> {
        Ok(Self {
            retriever: self.retriever.among(filter)?,
            ..self.clone()
        })
    }

    /// The best answer, with its passages.
    ///
    /// # Errors
    /// [`rag_retrieve::RetrieverError::EmptyQuestion`], [`rag_retrieve::EncoderError::QuestionTooLong`],
    /// [`Error::QuestionTooLong`], [`Error::Decode`].
    pub fn ask(&self, question: &str) -> Result<Answer> {
        self.ask_with(question, Control::default())
    }

    /// Like [`Rag::ask`], with a constraint on the tokens, a callback that streams them (RAG-Token,
    /// greedy and sampling), or a way to cancel.
    ///
    /// # Errors
    /// Those of [`Rag::ask`].
    pub fn ask_with(&self, question: &str, control: Control<'_>) -> Result<Answer> {
        let passages = self.retrieve(question)?;
        let mut answers = self.answers(question, &passages, control)?;
        Ok(answers.swap_remove(0))
    }

    /// The best answer to each question, in the order given. RAG-Token answers eight at a time, which takes less time
    /// than one after the other: they read the generator's weights together.
    ///
    /// # Errors
    /// Those of [`Rag::ask`].
    pub fn ask_many(&self, questions: &[&str]) -> Result<Vec<Answer>> {
        let found = self.retriever.retrieve(questions)?;
        let asked: Vec<(&str, &[Retrieved])> = questions
            .iter()
            .zip(&found)
            .map(|(&question, passages)| (question, passages.as_slice()))
            .collect();
        let mut answers = Vec::with_capacity(questions.len());
        let alike = |pair: &(&str, &[Retrieved])| pair.1.len() == found[0].len();
        for asked in asked.chunks(TOGETHER) {
            if self.config.model() == RagModel::Token && asked.iter().all(alike) {
                let reader = self.read(asked)?;
                let decoded = rag_token::decode(&reader, &self.generation, Control::default())?;
                for (i, (&(question, passages), hypotheses)) in
                    asked.iter().zip(decoded).enumerate()
                {
                    let best = hypotheses
                        .into_iter()
                        .map(|hypothesis| hypothesis.tokens)
                        .take(1);
                    let reader = reader.question(i);
                    answers.extend(self.judged(&reader, question, passages, best)?);
                }
            } else {
                for &(question, passages) in asked {
                    let of_one = self.answers(question, passages, Control::default())?;
                    answers.extend(of_one.into_iter().take(1));
                }
            }
        }
        Ok(answers)
    }

    /// The best `num_return_sequences` answers, best first.
    ///
    /// # Errors
    /// Those of [`Rag::ask`].
    pub fn ask_several(&self, question: &str) -> Result<Vec<Answer>> {
        self.answers(question, &self.retrieve(question)?, Control::default())
    }

    /// The best `num_return_sequences` answers from passages of the caller's choice, best first.
    ///
    /// # Errors
    /// [`Error::NoPassages`]; those of [`Rag::ask`].
    pub fn answers(
        &self,
        question: &str,
        passages: &[Retrieved],
        control: Control<'_>,
    ) -> Result<Vec<Answer>> {
        let reader = self.read(&[(question, passages)])?;
        let sequences: Vec<Vec<u32>> = match self.config.model() {
            RagModel::Token => rag_token::decode(&reader, &self.generation, control)?
                .into_iter()
                .flatten()
                .map(|hypothesis| hypothesis.tokens)
                .collect(),
            RagModel::Sequence => {
                let settings = SequenceSettings {
                    decoding: self.sequence_decoding,
                    compat: self.config.compat,
                    deduplicate: self.config.do_deduplication,
                };
                rag_sequence::decode(&reader, &self.generation, settings, control)?
                    .into_iter()
                    .map(|proposal| proposal.tokens)
                    .collect()
            }
        };
        self.judged(&reader, question, passages, sequences)
    }

    /// What the passages say about decoded sequences.
    fn judged(
        &self,
        reader: &Reader<'_>,
        question: &str,
        passages: &[Retrieved],
        sequences: impl IntoIterator<Item = Vec<u32>>,
    ) -> Result<Vec<Answer>> {
        let forced: Vec<_> = sequences
            .into_iter()
            .map(|tokens| Forced::decoded(&tokens, &self.generation))
            .collect();
        reader
            .likelihoods(self.config.model(), &forced)?
            .into_iter()
            .map(|likelihood| self.answer(question, passages, likelihood))
            .collect()
    }

    /// log P(y|x) of each candidate answer, with its passages, in the order given.
    ///
    /// # Errors
    /// [`Error::NoCandidates`]; those of [`Rag::ask`].
    pub fn score(&self, question: &str, candidates: &[&str]) -> Result<Vec<Answer>> {
        self.generation.start_token()?;
        let passages = self.retrieve(question)?;
        let reader = self.read(&[(question, &passages)])?;
        let forced = candidates
            .iter()
            .map(|candidate| {
                Ok(Forced::answer(
                    &self.answer_tokens(candidate)?,
                    &self.generation,
                ))
            })
            .collect::<Result<Vec<_>>>()?;
        reader
            .likelihoods(self.config.model(), &forced)?
            .into_iter()
            .map(|likelihood| self.answer(question, &passages, likelihood))
            .collect()
    }

    /// The label with the largest log P(y|x): FEVER's verdicts, intents, choices.
    ///
    /// # Errors
    /// [`Error::NoCandidates`]; those of [`Rag::ask`].
    pub fn classify(&self, question: &str, labels: &[&str]) -> Result<Answer> {
        self.score(question, labels)?
            .into_iter()
            .max_by(|a, b| a.log_likelihood.total_cmp(&b.log_likelihood))
            .ok_or(Error::NoCandidates)
    }

    /// The constraint that an answer is one of `answers`, for [`Control::with_allowed`].
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn allowed(&self, answers: &[&str]) -> Result<AllowedAnswers> {
        let tokens = answers
            .iter()
            .map(|answer| self.answer_tokens(answer))
            .collect::<Result<Vec<_>>>()?;
        let end = self.generation.eos_token_id.first().copied();
        let allowed = AllowedAnswers::new(tokens, end.unwrap_or_default());
        Ok(match self.generation.forced_bos_token_id {
            Some(bos) => allowed.with_bos(bos),
            None => allowed,
        })
    }

    /// The passages for a question.
    pub(crate) fn retrieve(&self, question: &str) -> Result<Vec<Retrieved>> {
        let mut found = self.retriever.retrieve(&[question])?;
        Ok(found.swap_remove(0))
    }

    /// Encodes passages with their questions, once for all that is asked of them. Each question has as many.
    fn read(&self, asked: &[(&str, &[Retrieved])]) -> Result<Reader<'_>> {
        let (mut contexts, mut scores) = (Vec::new(), Vec::new());
        for (question, passages) in asked {
            not_empty(question)?;
            if passages.is_empty() {
                return Err(Error::NoPassages);
            }
            let found = passages.iter().map(|found| &found.passage);
            contexts.extend(pack(question, found, &self.config, &self.tokenizer)?);
            scores.push(passages.iter().map(|found| found.score).collect::<Vec<_>>());
        }
        let pad = self.config.generator.pad();
        let contexts = TokenBatch::new(&contexts, pad, &self.generator.device());
        let scores: Vec<&[f32]> = scores.iter().map(Vec::as_slice).collect();
        Ok(Reader::of_questions(
            &self.generator,
            &contexts,
            &scores,
            &self.config.generator,
            self.precision,
        ))
    }

    /// The tokens of an answer, without start and end.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn answer_tokens(&self, answer: &str) -> Result<Vec<u32>> {
        Ok(self.tokenizer.encode_bare(answer)?)
    }

    fn answer(
        &self,
        question: &str,
        passages: &[Retrieved],
        likelihood: Likelihood,
    ) -> Result<Answer> {
        let priors = softmax(passages.iter().map(|found| found.score));
        let ids: Vec<u32> = likelihood.tokens.iter().map(|token| token.id).collect();
        let mut said = String::new();
        let tokens = likelihood
            .tokens
            .into_iter()
            .enumerate()
            .map(|(i, token)| {
                // Several tokens can make one character: it belongs to the one that completes it.
                let until = self.tokenizer.decode(&ids[..=i])?;
                let mut text = String::new();
                if i + 1 == ids.len() || !until.ends_with('\u{FFFD}') {
                    text = until.strip_prefix(&said).unwrap_or(&until).to_owned();
                    said = until;
                }
                Ok(AnswerToken {
                    id: token.id,
                    text,
                    log_probability: token.log_probability,
                    shares: token.shares,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let evidence = passages
            .iter()
            .zip(priors)
            .zip(likelihood.posterior)
            .map(|((found, prior), posterior)| Evidence {
                passage: found.passage.clone(),
                score: found.score,
                prior,
                posterior,
            })
            .collect();
        Ok(Answer {
            question: question.to_owned(),
            text: self.tokenizer.decode(&ids)?,
            log_likelihood: likelihood.log_likelihood,
            tokens,
            evidence,
        })
    }
}

pub(crate) fn not_empty(question: &str) -> Result<()> {
    if question.trim().is_empty() {
        return Err(rag_retrieve::Error::from(RetrieverError::EmptyQuestion).into());
    }
    Ok(())
}

fn softmax(scores: impl Iterator<Item = f32> + Clone) -> Vec<f32> {
    let max = scores.clone().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = scores.clone().map(|score| (score - max).exp()).sum();
    scores.map(|score| (score - max).exp() / total).collect()
}
