use burn::{
    module::Module,
    tensor::{Int, Tensor},
};
use rag_core::{
    TokenBatch,
    marginal::{Compat, RagModel, Targets, log_prior, negative_log_likelihood},
    nn::Precision,
};
use rag_generate::{generator::Generator, likelihood::log_probs};
use rag_retrieve::Encoder;

/// What the marginal likelihood trains: the question encoder and the generator. The passages'
/// encoder is frozen, as in the paper, so that the knowledge base stays valid.
#[derive(Module, Debug)]
pub struct JointModel {
    /// Gives P(z|x), with the passages' vectors.
    pub question_encoder: Encoder,
    /// Gives P(y|x,z).
    pub generator: Generator,
}

/// Questions, their retrieved passages and their answers, as tensors.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Questions, `[batch, length]`.
    pub questions: TokenBatch,
    /// Segments of the questions, `[batch, length]`; all 0 if none.
    pub segments: Option<Tensor<2, Int>>,
    /// Passages packed with their question, `[batch · n_docs, length]`.
    pub contexts: TokenBatch,
    /// Vectors of the passages, `[batch, n_docs, dimension]`.
    pub documents: Tensor<3>,
    /// What the decoder reads, `[batch, length]`.
    pub inputs: Tensor<2, Int>,
    /// What it should say, `[batch, length]`.
    pub targets: Targets,
}

/// The function that is minimised.
#[derive(Clone, Copy, Debug, Default)]
pub struct Objective {
    /// Where the sum over passages stands.
    pub model: RagModel,
    /// Whose convention the loss follows.
    pub compat: Compat,
    /// ε of label smoothing.
    pub label_smoothing: f64,
    /// The format of matrix products.
    pub precision: Precision,
}

impl JointModel {
    /// Raw inner products of questions and their passages, `[batch, n_docs]`.
    pub fn document_scores(&self, batch: &Batch, precision: Precision) -> Tensor<2> {
        let questions =
            self.question_encoder
                .forward(&batch.questions, batch.segments.clone(), precision);
        batch.score(questions)
    }

    /// Marginal negative log-likelihood of each answer, `[batch]`.
    pub fn loss(&self, batch: &Batch, objective: Objective) -> Tensor<1> {
        let scores = self.document_scores(batch, objective.precision);
        self.loss_of_scores(batch, scores, objective)
    }

    /// Marginal negative log-likelihood of each answer, `[batch]`, given the documents' scores
    /// `[batch, n_docs]`.
    pub fn loss_of_scores(
        &self,
        batch: &Batch,
        scores: Tensor<2>,
        objective: Objective,
    ) -> Tensor<1> {
        let Objective {
            model,
            compat,
            label_smoothing,
            precision,
        } = objective;
        let memory = self.generator.encode(&batch.contexts, precision);
        let log_probs = log_probs(&self.generator, &memory, batch.inputs.clone(), precision);
        negative_log_likelihood(
            model,
            compat,
            log_prior(scores),
            log_probs,
            &batch.targets,
            label_smoothing,
        )
    }
}

impl Batch {
    /// Inner products `[batch, n_docs]` of question vectors `[batch, dimension]` with the passages'.
    pub fn score(&self, questions: Tensor<2>) -> Tensor<2> {
        (questions.unsqueeze_dim::<3>(1) * self.documents.clone())
            .sum_dim(2)
            .squeeze_dim(2)
    }
}
