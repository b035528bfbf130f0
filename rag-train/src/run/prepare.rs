//! Pairs to tensors: retrieve with the question encoder as it is, pack, pad.

use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData},
};
use ndarray::{Array2, Axis};
use rag_core::{Encoding, TokenBatch, padded};
use rag_generate::{
    Rag, RagConfig,
    likelihood::{self, Forced},
    pack,
};
use rag_retrieve::{Embedder, Retrieved};

use super::config::IndexRefresh;
use crate::{
    data::pairs::QuestionAnswer,
    error::{Error, Result},
    objective::{
        joint::{Batch, DropoutSeed, EncoderInput, JointModel},
        loss::Objective,
        tensors::values,
    },
};

/// A micro-batch, ready to be back-propagated.
pub(crate) struct Prepared {
    pub(crate) batch: Batch,
    /// Vectors of the questions, `[batch, dimension]`, with the graph of their encoder: those that
    /// searched.
    pub(crate) questions: Tensor<2>,
    /// Positions of each question's passages in the knowledge base.
    pub(crate) positions: Vec<Vec<usize>>,
    /// Tokens of each answer that count.
    pub(crate) tokens: Vec<usize>,
}

pub(crate) fn prepare(
    rag: &Rag,
    model: &JointModel,
    objective: &Objective,
    index: IndexRefresh,
    seed: DropoutSeed,
    pairs: &[&QuestionAnswer],
) -> Result<Prepared> {
    let (retriever, config) = (&rag.retriever, rag.config());
    let device = model.generator.device();
    let pad = config.question_encoder.bert.pad_token_id;
    let texts: Vec<&str> = pairs.iter().map(|pair| pair.question.as_str()).collect();
    let encodings = (retriever.question_text_encoder()?).tokenize_questions(&texts)?;
    let questions = encoder_input(&encodings, pad, &device);
    let vectors = model.question_vectors(&questions, objective.precision, seed);
    let found = search(
        rag,
        model,
        index,
        &texts,
        &to_array(vectors.clone().detach())?,
    )?;

    let mut contexts = Vec::new();
    let mut answers = Vec::new();
    for (pair, passages) in pairs.iter().zip(&found) {
        let packed = passages.iter().map(|found| &found.passage);
        let packed = pack(&pair.question, packed, &config, rag.tokenizer())?;
        let answer = forced_answer(rag, pair)?;
        let longest = packed.iter().map(Vec::len).max();
        writable(&config, longest.unwrap_or_default(), &answer)?;
        contexts.extend(packed);
        answers.push(answer);
    }
    let positions: Vec<Vec<usize>> = found
        .iter()
        .map(|passages| passages.iter().map(|found| found.position).collect())
        .collect();
    let documents = retriever.knowledge().vectors_at(&positions.concat())?;
    let shape = [pairs.len(), retriever.n_docs(), documents.len_of(Axis(1))];
    let documents = TensorData::new(documents.into_raw_vec_and_offset().0, shape);
    let passages = match model.context_encoder {
        Some(_) => {
            let encoder = retriever.context_text_encoder()?;
            let passages: Vec<_> = found
                .iter()
                .flatten()
                .map(|found| found.passage.clone())
                .collect();
            let pad = encoder.config().bert.pad_token_id;
            Some(encoder_input(
                &encoder.tokenize_passages(&passages)?,
                pad,
                &device,
            ))
        }
        None => None,
    };
    let signals = model.prior.is_some().then(|| {
        let found = found.iter().flatten();
        let values = found.flat_map(|found| {
            let [_, lexical, rerank] = found.relevance.signals();
            [lexical, rerank]
        });
        let shape = [pairs.len(), retriever.n_docs(), 2];
        Tensor::from_data(TensorData::new(values.collect(), shape), &device)
    });
    let pad = config.generator.pad();
    let (inputs, targets) = likelihood::batch(&answers, pad, &device);
    let counted = |answer: &Forced| answer.counts.iter().filter(|&&counts| counts).count();
    Ok(Prepared {
        batch: Batch {
            questions,
            contexts: TokenBatch::new(&contexts, pad, &device),
            documents: Tensor::from_data(documents, &device),
            passages,
            signals,
            inputs,
            targets,
        },
        questions: vectors,
        positions,
        tokens: answers.iter().map(counted).collect(),
    })
}

/// The passages of each question, of which `vectors` are the vectors. Where the passages' encoder has
/// moved on from the vectors of the knowledge base, they may be asked for more than is needed, and the
/// encoder chooses among them.
fn search(
    rag: &Rag,
    model: &JointModel,
    index: IndexRefresh,
    questions: &[&str],
    vectors: &Array2<f32>,
) -> Result<Vec<Vec<Retrieved>>> {
    let retriever = &rag.retriever;
    let (Some(encoder), Some(candidates)) = (&model.context_encoder, index.rescore) else {
        return Ok(retriever.search(questions, vectors)?);
    };
    let n_docs = retriever.n_docs();
    let candidates = candidates.max(n_docs).min(retriever.searched());
    let fresh = (retriever.context_text_encoder()?).with_encoder(encoder.valid());
    let weights = retriever.weights()?.unwrap_or_default();
    let found = (retriever.clone().top_k(candidates)?).search(questions, vectors)?;
    found
        .into_iter()
        .zip(vectors.rows())
        .map(|(mut found, question)| {
            let passages: Vec<_> = found.iter().map(|found| found.passage.clone()).collect();
            let scores = fresh.embed_passages(&passages)?.dot(&question);
            for (found, score) in found.iter_mut().zip(scores) {
                found.relevance.dense = score;
                found.score = weights.score(found.relevance);
            }
            found.sort_by(|a, b| b.score.total_cmp(&a.score));
            found.truncate(n_docs);
            Ok(found)
        })
        .collect()
}

/// Refuses answers of more tokens than the generator has positions for after a context of `context` tokens.
fn writable(config: &RagConfig, context: usize, answer: &Forced) -> Result<()> {
    let tokens = answer.targets.len();
    match config.generator.family().longest_answer(context) {
        Some(longest) if tokens > longest => {
            Err(rag_generate::Error::AnswerTooLong { tokens, longest }.into())
        }
        _ => Ok(()),
    }
}

/// Refuses pairs that a run would stumble over, before it begins, and tells how long each is in
/// tokens of question and answer.
pub(crate) fn lengths(rag: &Rag, pairs: &[QuestionAnswer]) -> Result<Vec<usize>> {
    let config = rag.config();
    let positions = config.generator.family().longest_context();
    // Passages that fill a context may be retrieved for any question.
    let longest = (config.max_combined_length).min(positions.unwrap_or(usize::MAX));
    let length = |pair: &QuestionAnswer| -> Result<usize> {
        let question = rag
            .retriever
            .question_text_encoder()?
            .tokenize_questions(&[&pair.question])?;
        // A context without a passage: the question must fit by itself.
        pack(
            &pair.question,
            [&rag_core::Passage::new("", "", "")],
            &config,
            rag.tokenizer(),
        )?;
        let answer = forced_answer(rag, pair)?;
        writable(&config, longest, &answer)?;
        Ok(question[0].ids.len() + answer.targets.len())
    };
    (pairs.iter().enumerate())
        .map(|(number, pair)| {
            length(pair).map_err(|source| Error::Pair {
                number: number + 1,
                question: pair.question.clone(),
                source: Box::new(source),
            })
        })
        .collect()
}

fn forced_answer(rag: &Rag, pair: &QuestionAnswer) -> Result<Forced> {
    let answer = pair.answers.first().map(String::as_str).unwrap_or_default();
    if answer.trim().is_empty() {
        return Err(Error::NoAnswer);
    }
    Ok(Forced::answer(
        &rag.answer_tokens(answer)?,
        rag.generation(),
    ))
}

fn encoder_input(encodings: &[Encoding], pad: u32, device: &Device) -> EncoderInput {
    let ids: Vec<_> = encodings.iter().map(|encoding| &encoding.ids).collect();
    let segments: Vec<_> = encodings
        .iter()
        .map(|encoding| &encoding.segments)
        .collect();
    EncoderInput {
        tokens: TokenBatch::new(&ids, pad, device),
        segments: Some(padded(&segments, 0, device)),
    }
}

fn to_array(vectors: Tensor<2>) -> Result<Array2<f32>> {
    let shape = vectors.dims();
    Ok(Array2::from_shape_vec(shape, values(vectors)?)
        .expect("a tensor has as many values as its shape"))
}
