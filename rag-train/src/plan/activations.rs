//! The whole step of [`Objective::backward`](crate::Objective::backward): what is kept when its forward pass ends,
//! and where the backward pass is at its peak.

use rag_core::nn::{LOGITS_AT_ONCE, Precision};

use crate::run::activations::Activations;

use super::{
    layers::{Keeping, Moment, Texts},
    memory::{ActivationMemory, F32},
    settings::{Component, PlanSettings},
    shape::{Shape, Stack},
};

/// Bytes of the graph's own records of a layer that attends once; one of the decoder, which attends
/// twice, takes as much again. Measured with 1 to 5 layers of width 4. A layer of a decoder alone has twice the
/// operations of one that attends once, for prompts and for answers.
const RECORDS: u64 = 68 << 10;
/// The same where what stands between matrix products is one pass each.
const FUSED_RECORDS: u64 = 40 << 10;
/// Further records of a layer of a decoder alone where activations are recomputed. Measured with 3 layers of width 64.
const RECOMPUTED_RECORDS: u64 = 14 << 10;

/// The texts that the model reads at once.
struct Reading {
    questions: Texts,
    contexts: Texts,
    answers: Texts,
}

impl Reading {
    fn of(settings: &PlanSettings) -> Self {
        let rows = settings.batch * settings.documents();
        let texts = |rows: usize, length: usize| Texts {
            rows: rows as u64,
            length: length as u64,
        };
        Self {
            questions: texts(settings.batch, settings.question_length),
            contexts: texts(rows, settings.context_length),
            answers: texts(rows, settings.answer_length),
        }
    }
}

impl Shape {
    /// The memory in use when the forward pass ends, and the workspace of the loss after it.
    pub(super) fn activations(&self, settings: &PlanSettings) -> ActivationMemory {
        self.kept(settings, Moment::Forward)
    }

    fn kept(&self, settings: &PlanSettings, moment: Moment) -> ActivationMemory {
        let Reading {
            questions,
            contexts,
            answers,
        } = Reading::of(settings);
        let keeping = settings.keeping(moment, self.fused);
        let if_trained = |part, bytes: u64| {
            if settings.trained.contains(&part) {
                bytes
            } else {
                0
            }
        };
        let generator = self.generator.multiplied + self.prompting.multiplied;
        let multiplied = if_trained(Component::Generator, generator)
            + if_trained(Component::QuestionEncoder, self.retriever.multiplied)
            + if_trained(Component::ContextEncoder, self.retriever.multiplied);
        let reading = |part, stack: &Stack, texts| if_trained(part, stack.reading(texts, keeping));
        let decoder = &self.decoder;
        let (encoder, decoder) = match &self.encoder {
            Some(encoder) => (
                encoder.reading(contexts, keeping),
                decoder.reading(answers, keeping)
                    + decoder.looking_back(answers, contexts, keeping),
            ),
            None => (
                decoder.prompting(contexts, keeping),
                decoder.answering(answers, contexts, keeping),
            ),
        };
        let head = keeping.inputs(answers.tokens() * self.decoder.d_model, 1);
        ActivationMemory {
            question_encoder: reading(Component::QuestionEncoder, &self.bert, questions),
            context_encoder: reading(Component::ContextEncoder, &self.bert, contexts),
            encoder: if_trained(Component::Generator, encoder),
            decoder: if_trained(Component::Generator, decoder + head),
            vocabulary: match self.fuses_logits(keeping) {
                true => 0,
                false => {
                    let kept = 1 + u64::from(self.capped_logits);
                    if_trained(Component::Generator, kept * self.logits(answers))
                }
            },
            weight_copies: match settings.precision {
                Precision::F32 => 0,
                Precision::Bf16 | Precision::F16 | Precision::Int8 => keeping.width() * multiplied,
            },
            records: self.records(settings),
            workspace: self.loss_workspace(answers, keeping),
        }
    }

    fn records(&self, settings: &PlanSettings) -> u64 {
        let each = if self.fused { FUSED_RECORDS } else { RECORDS };
        let recomputed = match settings.activations {
            Activations::Recomputed => RECOMPUTED_RECORDS,
            Activations::Kept => 0,
        };
        let records = (settings.trained.iter()).map(|part| match (part, &self.encoder) {
            (Component::QuestionEncoder | Component::ContextEncoder, _) => each * self.bert.layers,
            (Component::Generator, Some(encoder)) => {
                each * (encoder.layers + 2 * self.decoder.layers)
            }
            (Component::Generator, None) => {
                let layers = (4 * self.decoder.layers).saturating_sub(1);
                (each + recomputed) * layers
            }
        });
        records.sum()
    }

    /// Whether head and log-softmax are one operation, which keeps no logits.
    fn fuses_logits(&self, keeping: Keeping) -> bool {
        keeping.fused_products() && !self.capped_logits
    }

    fn logits(&self, answers: Texts) -> u64 {
        F32 * answers.tokens() * self.vocabulary
    }

    /// The workspace of the loss: some of the logits with the gradients of the head's weights and of what it
    /// reads, where it is one operation with the log-softmax. Else two more tensors of the size of the logits for the
    /// gradient of the log-softmax, then the gradient of the head's weights, which Burn's own product makes twice.
    fn loss_workspace(&self, answers: Texts, keeping: Keeping) -> u64 {
        if self.fuses_logits(keeping) {
            let [rows, words] = LOGITS_AT_ONCE.map(|most| most as u64);
            let logits = answers.tokens().min(rows) * self.vocabulary.min(words);
            let gradients = (self.vocabulary + answers.tokens()) * self.decoder.d_model;
            return F32 * (logits + gradients);
        }
        let logits = self.logits(answers);
        let head = keeping.width() * self.vocabulary * self.decoder.d_model;
        let states = (self.decoder).recomputed(answers, self.answer_norms(), keeping);
        // The CPU's log-softmax has its gradient in place of what it is given.
        let in_place = keeping.fused_products() && keeping.recomputes();
        let softmax = if in_place { logits } else { 2 * logits };
        softmax.max(2 * head + states)
    }

    /// The most that activations and gradients take together. Activations go as gradients come, so
    /// that the peak is where the backward pass begins, where it reaches the encoders, or at its end,
    /// when the embeddings' gradient is added to the head's. A decoder alone goes back through prompts and answers layer
    /// by layer: it reaches the prompts when the last layer's answers are gone.
    pub(super) fn backward(&self, settings: &PlanSettings, gradients: u64) -> u64 {
        let begin = self.activations(settings).total();
        if !settings.trained.contains(&Component::Generator) {
            return begin.max(gradients);
        }
        let kept = self.kept(settings, Moment::Backward);
        let keeping = settings.keeping(Moment::Backward, self.fused);
        let Reading {
            questions,
            contexts,
            answers,
        } = Reading::of(settings);
        let reader = self.encoder.as_ref().unwrap_or(&self.decoder);
        let bert_norms = 2 * self.bert.layers + self.bert.outer_norms;
        let recomputed = reader.recomputed(contexts, self.context_norms(), keeping)
            + (self.bert).recomputed(questions, bert_norms, keeping);
        // In 16 bits the weights' gradients take the place of their copies.
        let answering = match settings.precision {
            Precision::F32 => F32 * self.answering.trained,
            Precision::Bf16 | Precision::F16 | Precision::Int8 => 0,
        };
        let answers_gone = match &self.encoder {
            Some(_) => kept.decoder,
            None => kept.decoder / self.decoder.layers.max(1),
        };
        let gone = answers_gone + kept.vocabulary + kept.workspace;
        let workspace = self.layer_workspace(reader, contexts, keeping);
        let encoders = kept.total() - gone + answering + recomputed + workspace;
        // Where the hidden layers of the last layer are computed again, the graph is still whole.
        let decoder = match keeping.recomputes() && keeping.fused_products() {
            true => {
                let head = F32 * self.vocabulary * self.decoder.d_model;
                let workspace = self.layer_workspace(&self.decoder, answers, keeping);
                kept.total() - kept.workspace - kept.vocabulary + head + workspace
            }
            false => 0,
        };
        let embeddings = 2 * F32 * self.vocabulary * self.decoder.d_model;
        // The retriever's gradients come after the generator's, but for the passages' where some documents at a time
        // have a graph of both.
        let retrievers = settings
            .trained
            .iter()
            .filter(|&&part| part != Component::Generator);
        let copies = match settings.precision {
            Precision::F32 => 0,
            _ => keeping.width() * self.retriever.multiplied * retrievers.count() as u64,
        };
        let passages = settings.trained.contains(&Component::ContextEncoder);
        let passages = match passages && settings.documents_at_a_time.is_some() {
            true => F32 * self.retriever.trained,
            false => 0,
        };
        let retriever = kept.question_encoder + kept.context_encoder + copies + passages;
        let generator = F32 * self.generator.trained + embeddings;
        begin
            .max(decoder)
            .max(encoders)
            .max(generator + retriever + kept.records)
            .max(gradients)
    }

    /// The workspace of the gradient of a layer: a tensor of the size of the scores or of the hidden layer, twice;
    /// where all of softmax is one tensor, the gradient of T5's bias is another. Linear layers as one operation need a
    /// tensor for each that reads the states, and attention as one has no scores but those of the bias; where they are
    /// computed again, so is what leads to the norm after the hidden layer. Of a decoder alone one tensor of the hidden layer
    /// less was measured.
    fn layer_workspace(&self, stack: &Stack, texts: Texts, keeping: Keeping) -> u64 {
        let scores = F32 * stack.heads * texts.length;
        let hidden = keeping.width() * stack.hidden;
        let biases = u64::from(stack.relative);
        let again = match keeping.recomputes() && keeping.fused_products() {
            true => {
                let kept = 1 + stack.hidden_kept - u64::from(self.encoder.is_none());
                kept * hidden + stack.states_of_norm() * F32 * stack.d_model
            }
            false => 0,
        };
        let (scores, hidden) = match (keeping.fused_products(), self.fused) {
            (true, _) => (biases * scores, stack.ups * hidden + again),
            (false, true) => ((2 + biases) * scores, 2 * hidden),
            (false, false) => (2 * scores, 2 * hidden),
        };
        texts.tokens() * scores.max(hidden)
    }
}
