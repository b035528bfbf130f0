use std::sync::Arc;

use rag_core::{TokenBatch, Tokenizer, marginal::RagModel, nn::Precision};
use rag_retrieve::{
    Embedder, Filter, Knowledge, Normalization, Retrieved, Retriever, RetrieverError, TextEncoder,
};

use crate::{
    answer::{Answer, assemble::assemble},
    calibration::Calibration,
    checkpoint::Checkpoint,
    config::RagConfig,
    decode::{AllowedAnswers, Control, GenerationConfig},
    error::{Error, Result},
    generator::{Generator, GeneratorConfig},
    language_model::LanguageModel,
    likelihood::Forced,
    prompt::pack,
    rag_sequence::{self, SequenceDecoding, SequenceSettings},
    rag_token,
    reader::{Likelihood, Reader},
    stop::StopStrings,
    template::Template,
};

/// Questions that are read and answered at once: the weights are read once for all of them, and their contexts are in
/// memory together.
const TOGETHER: usize = 8;

/// The longest context of a language model in tokens, where nothing else is asked for: a passage of some hundred words, a
/// question, and what a chat template writes around them.
const CONTEXT: usize = 512;

/// The factor of cosines in the softmax that sentence encoders are trained with (sentence-transformers'
/// `MultipleNegativesRankingLoss`).
const COSINE: f32 = 20.0;

/// The longest prompt of a language model: [`CONTEXT`], or less where its window or its positions leave no room for an answer.
fn longest_prompt(generator: &GeneratorConfig, generation: &GenerationConfig) -> usize {
    let (Some(longest), Some(answer)) = (
        generator.family().longest_context(),
        generation.max_new_tokens,
    ) else {
        return CONTEXT;
    };
    let beside = (longest + 1).saturating_sub(answer);
    // A model that is smaller still refuses what does not fit.
    match beside > longest / 2 {
        true => CONTEXT.min(beside),
        false => CONTEXT,
    }
}

/// Scales the inner products of an encoder that makes unit vectors, beside a language model: nothing has trained P(z|x) yet.
pub(crate) fn with_cosines_scaled(retriever: Retriever) -> Retriever {
    let encoder = retriever.question_encoder().text_encoder();
    match encoder.map(|encoder| encoder.config().normalization) {
        Some(Normalization::L2) => retriever.with_scale(COSINE),
        _ => retriever,
    }
}

/// A retriever and a generator that answer questions together. A clone shares weights, vectors and vocabularies with
/// the original.
#[derive(Clone, Debug)]
pub struct Rag {
    /// Finds passages: P(z|x).
    pub retriever: Retriever,
    /// Writes answers: P(y|x,z).
    generator: Arc<Generator>,
    /// The generator's.
    tokenizer: Tokenizer,
    /// As the checkpoint said; the retriever knows better what `question_encoder`, `n_docs` and `prior` are.
    config: Arc<RagConfig>,
    generation: GenerationConfig,
    sequence_decoding: SequenceDecoding,
}

impl Rag {
    /// Puts a checkpoint together with its tokenizers, the encoder of passages and the knowledge base
    /// that it made.
    ///
    /// # Errors
    /// [`rag_core::Error::Vocabulary`]; [`crate::decode::DecodeError::NoStartToken`]; those of [`Retriever::new`] and
    /// [`Template::check`].
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
        let question_encoder = TextEncoder::new(
            question_encoder,
            question_tokenizer,
            config.question_encoder.clone(),
        )?;
        let retriever =
            Retriever::new(question_encoder, context_encoder, knowledge, config.n_docs)?;
        Self::of(
            retriever,
            generator,
            generator_tokenizer,
            config,
            generation,
        )
    }

    /// Answers with a language model from what a retriever finds: an encoder, documents and a GGUF file are enough.
    ///
    /// Decodes as RAG-Token ([`Rag::with_model`]), from contexts up to 512 tokens long
    /// ([`Rag::with_max_combined_length`]). Where the encoder's scores are cosines and the retriever has no
    /// [weights](Retriever::weights), P(z|x) is the softmax of 20 times the cosine, as sentence encoders are trained to have
    /// it: of the cosines alone it would be nearly the same for all passages.
    ///
    /// ```no_run
    /// # use rag_core::device;
    /// # use rag_generate::{LanguageModel, Rag};
    /// # use rag_retrieve::{Chunking, Documents, Retriever, Storage, TextEncoder, build_knowledge_base};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cpu = device("cpu")?;
    /// let encoder = TextEncoder::load("all-MiniLM-L6-v2", &cpu)?;
    /// let documents = Documents::read("documents", &Chunking::words(100))?;
    /// let knowledge = build_knowledge_base(documents.passages, &encoder, Storage::F32, |_| ())?;
    /// let retriever = Retriever::new(encoder.clone(), encoder, knowledge, 5)?;
    /// let rag = Rag::from_parts(retriever, LanguageModel::load("model.gguf", &cpu)?)?;
    /// println!("{}", rag.ask("Who wrote Hamlet?")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`rag_core::Error::Vocabulary`]; those of [`Template::check`].
    pub fn from_parts(retriever: Retriever, model: LanguageModel) -> Result<Self> {
        let encoder = retriever.question_encoder().text_encoder();
        let encoder = encoder.map(|encoder| encoder.config().clone());
        let encoder = encoder.unwrap_or_default();
        let retriever = with_cosines_scaled(retriever);
        let mut config = RagConfig::new(RagModel::Token, encoder, model.config);
        config.template = Some(model.template);
        config.max_combined_length = longest_prompt(&config.generator, &model.generation);
        let LanguageModel {
            generator,
            tokenizer,
            generation,
            ..
        } = model;
        Self::of(retriever, generator, tokenizer, config, generation)
    }

    /// With the retriever's own `n_docs`, and the configuration's prior.
    pub(crate) fn of(
        retriever: Retriever,
        generator: Generator,
        tokenizer: Tokenizer,
        config: RagConfig,
        generation: GenerationConfig,
    ) -> Result<Self> {
        tokenizer.fits(config.generator.vocabulary())?;
        generation.start_token()?;
        if let Some(template) = &config.template {
            template.check()?;
        }
        Ok(Self {
            retriever: match config.prior {
                Some(prior) => retriever.with_prior(prior),
                None => retriever,
            },
            generator: Arc::new(sayable(generator, &config, &tokenizer)),
            tokenizer,
            config: Arc::new(config),
            generation,
            sequence_decoding: SequenceDecoding::default(),
        })
    }

    /// Writes answers: P(y|x,z).
    pub fn generator(&self) -> &Generator {
        &self.generator
    }

    /// The generator's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The configuration that a checkpoint of this model has, with the encoder of questions, `n_docs` and `prior` of its
    /// retriever.
    pub fn config(&self) -> RagConfig {
        let encoder = self.retriever.question_encoder().text_encoder();
        RagConfig {
            question_encoder: encoder.map_or_else(
                || self.config.question_encoder.clone(),
                |encoder| encoder.config().clone(),
            ),
            n_docs: self.retriever.n_docs(),
            prior: self.retriever.prior(),
            ..RagConfig::clone(&self.config)
        }
    }

    /// RAG-Sequence or RAG-Token.
    pub fn model(&self) -> RagModel {
        self.config.model()
    }

    /// How answers are decoded, with the model's special tokens.
    pub fn generation(&self) -> &GenerationConfig {
        &self.generation
    }

    /// How likely answers are to be right, where that was fitted.
    pub fn calibration(&self) -> Option<Calibration> {
        self.config.calibration
    }

    /// How RAG-Sequence compares what its documents propose.
    pub fn sequence_decoding(&self) -> SequenceDecoding {
        self.sequence_decoding
    }

    /// The format of the generator's matrix products.
    pub fn precision(&self) -> Precision {
        self.generator.precision()
    }

    /// Sets how answers are decoded. The model's special tokens stay where `generation` names none.
    #[must_use]
    pub fn with_generation(mut self, generation: GenerationConfig) -> Self {
        self.generation = generation.for_model(&self.generation);
        self
    }

    /// Gives every answer a [confidence](Answer::confidence). It is saved with the model; another generator, training,
    /// and the change from RAG-Sequence to RAG-Token or back give it up, since it is not theirs. It should be fitted
    /// anew for another retriever, knowledge base or template too.
    #[must_use]
    pub fn with_calibration(mut self, calibration: Calibration) -> Self {
        Arc::make_mut(&mut self.config).calibration = Some(calibration);
        self
    }

    /// Chooses RAG-Sequence or RAG-Token; the weights serve both.
    #[must_use]
    pub fn with_model(mut self, model: RagModel) -> Self {
        let is_other = model != self.model();
        let config = Arc::make_mut(&mut self.config);
        config.set_model(model);
        config.calibration = config.calibration.filter(|_| !is_other);
        self
    }

    /// Sets the longest context in tokens: passage and question.
    #[must_use]
    pub fn with_max_combined_length(mut self, tokens: usize) -> Self {
        Arc::make_mut(&mut self.config).max_combined_length = tokens;
        self
    }

    /// Sets how a decoder-only generator is asked.
    ///
    /// # Errors
    /// Those of [`Template::check`].
    pub fn with_template(mut self, template: Template) -> Result<Self> {
        template.check()?;
        Arc::make_mut(&mut self.config).template = Some(template);
        Ok(self)
    }

    /// Sets how RAG-Sequence compares what its documents propose.
    #[must_use]
    pub fn with_sequence_decoding(mut self, decoding: SequenceDecoding) -> Self {
        self.sequence_decoding = decoding;
        self
    }

    /// Replaces the generator by another of the same configuration, such as the same after training.
    ///
    /// # Errors
    /// [`rag_core::Error::Vocabulary`] where it does not have the tokenizer's vocabulary.
    pub fn with_generator(mut self, generator: Generator) -> Result<Self> {
        self.tokenizer.fits(generator.vocabulary())?;
        Arc::make_mut(&mut self.config).calibration = None;
        self.generator = Arc::new(sayable(generator, &self.config, &self.tokenizer));
        Ok(self)
    }

    /// Computes the generator's matrix products in `precision`, and stores its matrices so: half the
    /// memory or less, for answering. Training wants f32 parameters, and refuses others.
    ///
    /// # Errors
    /// Those of [`Generator::with_precision`]; [`rag_core::Error::Config`] where the weights are rounded to another
    /// precision already.
    pub fn with_precision(mut self, precision: Precision) -> Result<Self> {
        let stored = self.precision();
        if precision == stored {
            return Ok(self);
        }
        if stored != Precision::F32 {
            return Err(Error::Core(rag_core::Error::Config {
                field: "precision".into(),
                found: format!("{precision:?}"),
                expected: format!(
                    "{stored:?}, which the weights are rounded to; load the model anew for another"
                ),
            }));
        }
        let generator = Arc::unwrap_or_clone(self.generator);
        self.generator = Arc::new(generator.with_precision(precision)?);
        Ok(self)
    }

    /// The same model, which answers from the passages that `filter` means.
    ///
    /// # Errors
    /// Those of [`Retriever::among`].
    pub fn among(&self, filter: &Filter) -> Result<Self> {
        Ok(Self {
            retriever: self.retriever.among(filter)?,
            generator: self.generator.clone(),
            tokenizer: self.tokenizer.clone(),
            config: self.config.clone(),
            generation: self.generation.clone(),
            ..*self
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

    /// Like [`Rag::ask`], with a constraint on the tokens, a stop besides the stop strings, a callback that streams the
    /// tokens (RAG-Token, greedy and sampling), or a way to cancel.
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
                let stops = self.stop_strings();
                let stop = |answer: &[u32]| stops.ends(answer);
                let control = Control::default().with_stop(&stop);
                let decoded = rag_token::decode(&reader, &self.generation, control)?;
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
        let (stops, asked) = (self.stop_strings(), control.stop);
        let stop = |answer: &[u32]| stops.ends(answer) || asked.is_some_and(|stop| stop(answer));
        let control = control.stopped_by(&stop);
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

    /// Scores decoded sequences anew, and makes answers of them.
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
            .map(|likelihood| {
                let stop_strings = &self.generation.stop_strings;
                self.answer(question, passages, likelihood, stop_strings)
            })
            .collect()
    }

    /// The answer in words, with its evidence and, where the model is calibrated, its confidence.
    fn answer(
        &self,
        question: &str,
        passages: &[Retrieved],
        likelihood: Likelihood,
        stop_strings: &[String],
    ) -> Result<Answer> {
        let answer = assemble(
            question,
            passages,
            likelihood,
            &self.tokenizer,
            stop_strings,
        )?;
        let signals = answer.signals();
        let confidence = |calibration: Calibration| calibration.confidence(signals) as f32;
        Ok(Answer {
            confidence: self.calibration().map(confidence),
            ..answer
        })
    }

    /// Finds `stop_strings` while answers are decoded.
    fn stop_strings(&self) -> StopStrings<'_> {
        StopStrings::new(&self.generation.stop_strings, &self.tokenizer)
    }

    /// log P(y|x) of each candidate answer, with its passages, in the order given. A candidate ends with the first of
    /// `eos_token_id`, and is not cut at stop strings.
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
            .map(|likelihood| self.answer(question, &passages, likelihood, &[]))
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
            self.precision(),
        ))
    }

    /// The tokens of an answer, without start and end: those that follow a prompt, where the model has a template.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn answer_tokens(&self, answer: &str) -> Result<Vec<u32>> {
        Ok(match &self.config.template {
            Some(template) => (self.tokenizer).encode_text(&template.answer_text(answer))?,
            None => self.tokenizer.encode_bare(answer)?,
        })
    }
}

/// Lets a decoder alone say the tokens that its tokenizer knows, and no others. BART and T5 keep transformers' distribution,
/// over all rows of the vocabulary.
fn sayable(generator: Generator, config: &RagConfig, tokenizer: &Tokenizer) -> Generator {
    match config.generator.family().architecture() {
        Some(_) => generator.with_words(tokenizer.vocabulary()),
        None => generator,
    }
}

pub(crate) fn not_empty(question: &str) -> Result<()> {
    if question.trim().is_empty() {
        return Err(rag_retrieve::Error::from(RetrieverError::EmptyQuestion).into());
    }
    Ok(())
}
