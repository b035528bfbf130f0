//! The retriever: an encoder that is tuned, passages that it embeds, words beside them, and P(z|x) fitted to both.

use std::path::Path;

use burn_rag::{
    core::atomic::replace_folder,
    prelude::*,
    retrieve::{Normalization, Role},
    train::{
        ContrastiveConfig, DprExample, Encoders, Mining, mine, read_dpr, train_contrastive,
        write_dpr,
    },
};

use super::{
    Failure,
    arguments::{Arguments, Tuning},
    corpus::Corpus,
    output::{Output, progress},
    settings::Negatives,
};

/// Hard negatives of a question.
const MINED: &str = "mined.json";
const ENCODER: &str = "encoder";
const KNOWLEDGE: &str = "knowledge";
const PRIOR: &str = "prior.json";

/// The retriever over all passages; `None` where `stopped` said so.
pub fn retriever(
    untuned: &TextEncoder,
    corpus: &Corpus,
    arguments: &Arguments,
    output: &Output,
    stopped: &dyn Fn() -> bool,
) -> Result<Option<Retriever>, Failure> {
    let tuning = &arguments.tuning;
    let output = output.folder(&format!("retriever-{}", tuning.negatives))?;
    output.settle_all("settings.json", tuning)?;

    let encoder = match tuning.negatives {
        Negatives::Untuned => Some(untuned.clone()),
        _ => tuned(untuned, corpus, tuning, &output, stopped)?,
    };
    let Some(encoder) = encoder.filter(|_| !stopped()) else {
        return Ok(None);
    };

    let path = output.path(KNOWLEDGE);
    if !path.join("manifest.json").is_file() {
        embedded(&corpus.passages, &encoder)?.save(&path)?;
    }
    let knowledge = KnowledgeBase::open(&path)?;
    if stopped() {
        return Ok(None);
    }

    let lexical = LexicalIndex::new(knowledge.passages())?;
    let retriever =
        Retriever::new(encoder.clone(), encoder, knowledge, 1)?.with_lexical(lexical)?;
    let prior = match output.read::<Option<PriorWeights>>(PRIOR)? {
        Some(prior) => prior,
        None => {
            let prior = prior(&retriever, corpus.pairs_for_prior(tuning))?;
            output.write(PRIOR, &prior)?;
            prior
        }
    };
    if stopped() {
        return Ok(None);
    }
    Ok(Some(match prior {
        Some(weights) => retriever.with_prior(weights),
        None => retriever,
    }))
}

/// The encoder after it has learnt to tell a question's passage from others; `None` where `stopped` said so.
fn tuned(
    untuned: &TextEncoder,
    corpus: &Corpus,
    tuning: &Tuning,
    output: &Output,
    stopped: &dyn Fn() -> bool,
) -> Result<Option<TextEncoder>, Failure> {
    let path = output.path(ENCODER);
    if path.is_dir() {
        let device = untuned.encoder().bert.device();
        return Ok(Some(TextEncoder::load(&path, &device)?));
    }
    let examples = examples(untuned, corpus, tuning, &output.path(MINED))?;
    if stopped() {
        return Ok(None);
    }
    // Encoders that give unit vectors were trained so (sentence-transformers); DPR's inner products, as they are.
    let temperature = match untuned.config().normalization {
        Normalization::L2 => 0.05,
        _ => 1.0,
    };
    let config = ContrastiveConfig {
        epochs: 1,
        batch_size: 16,
        // The passages of a step, right and wrong: none is encoded twice.
        micro_batch_size: 32,
        learning_rate: 3e-5,
        temperature,
        hard_negatives: match tuning.negatives {
            Negatives::Mined => 1,
            Negatives::InBatch | Negatives::Untuned => 0,
        },
        ..ContrastiveConfig::default()
    };
    eprintln!("tuning the encoder on {} questions", examples.len());
    let encoders = Encoders::Shared(untuned.clone());
    let (trained, _) = train_contrastive(encoders, &examples, &[], &config)?;
    let encoder = trained.question().clone();
    replace_folder(&path, |folder| encoder.save(folder, Role::Question))?;
    Ok(Some(encoder))
}

/// Questions with their passages and hard negatives, which are looked for among the passages that training questions are
/// about: the others may be those of held-out questions.
fn examples(
    untuned: &TextEncoder,
    corpus: &Corpus,
    tuning: &Tuning,
    path: &Path,
) -> Result<Vec<DprExample>, Failure> {
    if path.is_file() {
        return Ok(read_dpr(path)?);
    }
    let knowledge = embedded(&corpus.passages[..corpus.train_passages], untuned)?;
    let lexical = LexicalIndex::new(knowledge.passages())?;
    let retriever = Retriever::new(untuned.clone(), untuned.clone(), knowledge, 1)?;
    let pairs = corpus.pairs_for_encoder(tuning);
    let mut before = 0;
    let mined = mine(pairs, &retriever, &lexical, &Mining::default(), |done| {
        progress("mined negatives of questions", before, done, pairs.len());
        before = done;
    })?;
    if mined.without_positive > 0 {
        eprintln!(
            "warning: {} of the {} questions to tune on are left out: no passage is known to answer them",
            mined.without_positive,
            pairs.len()
        );
    }
    write_dpr(path, &mined.examples)?;
    Ok(mined.examples)
}

fn embedded(passages: &[Passage], encoder: &TextEncoder) -> Result<KnowledgeBase, Failure> {
    let (all, mut before) = (passages.len(), 0);
    let passages = passages.to_vec();
    Ok(build_knowledge_base(
        passages,
        encoder,
        Storage::F32,
        |done| {
            progress("embedded passages", before, done, all);
            before = done;
        },
    )?)
}

/// The weights of vectors and words; `None` where the questions teach none, as where no passage is known to answer them.
fn prior(retriever: &Retriever, pairs: &[QuestionAnswer]) -> Result<Option<PriorWeights>, Failure> {
    match fit_prior(retriever, pairs) {
        Ok(weights) => {
            eprintln!(
                "P(z|x) weighs vectors by {:.2} and words by {:.3}",
                weights.dense, weights.lexical
            );
            Ok(Some(weights))
        }
        Err(burn_rag::train::Error::NoExamples) => {
            eprintln!("warning: no question teaches how to weigh vectors and words");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
