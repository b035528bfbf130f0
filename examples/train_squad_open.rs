//! Trains a retriever and a generator on real questions over real passages, and measures every step:
//! SQuAD's paragraphs in English, CMRC 2018's in Chinese, or yours in the same layout.
//!
//! ```text
//! cargo run --release --example train_squad_open <sentence encoder folder> <corpus folder> \
//!     <output folder> [--contrastive N] [--joint N] [--epochs N] [--heldout N] [--only TEXT]
//! ```
//!
//! The encoder is a Hugging Face folder such as all-MiniLM-L6-v2. The corpus has the folders `train` and `dev`,
//! each with `passages.jsonl` {id, title, text} and `qa.jsonl` {question, answers, passage_id}, and no article in
//! both. What happens:
//!
//! 1. Passages that look like the answer's are mined for `--contrastive` training questions, with BM25 and the
//!    encoder; the encoder learns to tell them from the right ones (DPR's loss). Recall is measured on `dev`.
//! 2. A generator of random weights is put beside it, and trained through the marginal likelihood on
//!    `--joint` questions: RAG-Sequence and RAG-Token, each with a retriever that is frozen, trained on the
//!    question's side, or trained whole with an index that follows; and once more after a start on the
//!    passages' own names, numbers and dates. All are measured on `--heldout` questions of `dev`.
//!
//! Prints a table in Markdown. The output folder receives the tuned encoder, which the next run begins with, and
//! each run's metrics, report and model.
//!
//! `--device`, or else `RAG_DEVICE`, chooses the device: `cpu` (default), or `wgpu` and `cuda` in
//! builds that have them. `-- --help` explains every argument.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use burn_rag::{
    prelude::*,
    retrieve::{LexicalIndex, Role},
    train::{
        Bootstrap, ContrastiveConfig, Encoders, IndexRefresh, Mining, bootstrap, mine,
        train_contrastive,
    },
};
use clap::Parser;

/// Tunes a retriever, trains it with a generator in every setting, and measures each.
#[derive(Parser)]
struct Arguments {
    /// Folder of a sentence encoder
    encoder: PathBuf,
    /// Folder with train and dev, each with passages.jsonl and qa.jsonl
    corpus: PathBuf,
    /// Folder that receives the encoder, and what each run writes
    output: PathBuf,
    /// Questions for contrastive training [default: all]
    #[arg(long)]
    contrastive: Option<usize>,
    /// Questions for training retriever and generator together [default: all]
    #[arg(long)]
    joint: Option<usize>,
    /// Passes over the questions of joint training
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    /// Questions of dev to measure answers on [default: all]
    #[arg(long)]
    heldout: Option<usize>,
    /// Joint training only in the settings whose name in the table holds this
    #[arg(long, default_value = "")]
    only: String,
    /// Where to compute: cpu, and in builds that have them wgpu, cuda, or wgpu:1 for the second GPU
    #[arg(long, env = "RAG_DEVICE", default_value = "cpu")]
    device: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    burn_rag::cpu::keep_freed_pages();
    let arguments = Arguments::parse();
    let device = device(&arguments.device)?;
    let untrained = TextEncoder::load(&arguments.encoder, &device)?;
    let train = Split::read(&arguments.corpus.join("train"))?;
    let dev = Split::read(&arguments.corpus.join("dev"))?;

    println!("| | recall@1 | recall@5 | recall@20 | EM | F1 | time |");
    println!("|---|---|---|---|---|---|---|");
    print_recall("encoder as it is", &untrained, &dev, 0.0)?;
    let begun = Instant::now();
    let tuned = arguments.output.join("encoder");
    let encoder = if tuned.exists() {
        eprintln!(
            "using the encoder in {}; delete it to train again",
            tuned.display()
        );
        TextEncoder::load(&tuned, &device)?
    } else {
        let encoder = contrastive(untrained, &train, arguments.contrastive)?;
        fs::create_dir_all(&tuned).map_err(burn_rag::core::Error::io(&tuned))?;
        encoder.save(&tuned, Role::Question)?;
        encoder
    };
    let seconds = begun.elapsed().as_secs_f64();
    print_recall("after contrastive training", &encoder, &dev, seconds)?;

    for model in [RagModel::Sequence, RagModel::Token] {
        for start in [false, true] {
            let named = Setting::ALL.map(|setting| (setting, setting.name(model, start)));
            let only = |(_, name): &(Setting, String)| name.contains(&arguments.only);
            let wanted: Vec<(Setting, String)> = named.into_iter().filter(only).collect();
            if wanted.is_empty() {
                continue;
            }
            let begun = Instant::now();
            let rag = generator(&encoder, &train, &dev, model, &arguments)?;
            let rag = if start { salient_start(rag)? } else { rag };
            let seconds = begun.elapsed().as_secs_f64();
            for (setting, name) in wanted {
                arguments.joint_run(setting, &name, rag.clone(), (&train, &dev), seconds)?;
            }
        }
    }
    Ok(())
}

/// Passages, and questions about them.
struct Split {
    passages: Vec<Passage>,
    pairs: Vec<QuestionAnswer>,
}

impl Split {
    fn read(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let whole = Chunking::words(usize::MAX);
        Ok(Self {
            passages: Documents::read(folder.join("passages.jsonl"), &whole)?.passages,
            pairs: read_pairs(folder.join("qa.jsonl"))?,
        })
    }

    /// `count` questions, evenly spread over the articles, or all.
    fn some(&self, count: Option<usize>) -> Vec<QuestionAnswer> {
        let all = self.pairs.len();
        let count = count.unwrap_or(all).clamp(1, all);
        let at = |i: usize| i * all / count;
        (0..count).map(|i| self.pairs[at(i)].clone()).collect()
    }

    fn index(&self, encoder: &TextEncoder) -> Result<KnowledgeBase, Box<dyn Error>> {
        let passages = self.passages.clone();
        Ok(build_knowledge_base(
            passages,
            encoder,
            Storage::F32,
            |_| {},
        )?)
    }
}

/// One encoder for questions and passages learns from mined negatives.
fn contrastive(
    encoder: TextEncoder,
    train: &Split,
    questions: Option<usize>,
) -> Result<TextEncoder, Box<dyn Error>> {
    let knowledge = train.index(&encoder)?;
    let lexical = LexicalIndex::new(knowledge.passages())?;
    let retriever = Retriever::new(encoder.clone(), encoder.clone(), knowledge, 1)?;
    let pairs = train.some(questions);
    let mined = mine(&pairs, &retriever, &lexical, &Mining::default(), |_| {})?;
    eprintln!(
        "mined {} examples; {} candidates held an answer, {} scored too close to the right passage",
        mined.examples.len(),
        mined.dropped_by_answer,
        mined.dropped_by_margin
    );
    let config = ContrastiveConfig {
        epochs: 1,
        batch_size: 16,
        // The passages of a step, right and wrong: none is encoded twice.
        micro_batch_size: 32,
        learning_rate: 3e-5,
        temperature: 0.05,
        ..ContrastiveConfig::default()
    };
    let encoders = Encoders::Shared(encoder);
    let (trained, _) = train_contrastive(encoders, &mined.examples, &[], &config)?;
    Ok(trained.question().clone())
}

/// A generator of random weights. Its vocabulary comes from all passages, and from the questions and
/// answers of `train`.
fn generator(
    encoder: &TextEncoder,
    train: &Split,
    dev: &Split,
    model: RagModel,
    arguments: &Arguments,
) -> Result<Rag, Box<dyn Error>> {
    let pairs = arguments.joint_pairs(train);
    let mut texts: Vec<&str> = dev.passages.iter().map(|one| one.text.as_str()).collect();
    texts.extend(pairs.iter().map(|pair| pair.question.as_str()));
    texts.extend(pairs.iter().map(|pair| pair.answers[0].as_str()));
    let config = ScratchConfig {
        model,
        n_docs: 3,
        generator_width: 192,
        vocabulary: 16_000,
        max_combined_length: 256,
        ..ScratchConfig::default()
    };
    // The index holds the passages that the questions are about.
    let named = |passage: &&Passage| {
        pairs
            .iter()
            .any(|pair| pair.passage.as_ref() == Some(&passage.id))
    };
    let passages = train.passages.iter().filter(named).cloned().collect();
    let device = encoder.encoder().bert.device();
    Ok(config.init_around(encoder.clone(), passages, &texts, &device)?)
}

/// The generator learns to read from the passages alone; the retriever is good already.
fn salient_start(rag: Rag) -> Result<Rag, Box<dyn Error>> {
    let settings = Bootstrap {
        training: TrainConfig {
            epochs: 2,
            question_encoder: Part::Frozen,
            ..training()
        },
        heldout: 0.0,
        ..Bootstrap::default()
    };
    Ok(bootstrap(rag, settings)?.0)
}

fn training() -> TrainConfig {
    TrainConfig {
        learning_rate: 1e-3,
        max_gradient_norm: 1.0,
        evaluate_every: 0,
        ..TrainConfig::default()
    }
}

/// The part of the retriever that learns with the generator.
#[derive(Clone, Copy)]
enum Setting {
    Frozen,
    QuestionSide,
    Both,
}

impl Setting {
    const ALL: [Self; 3] = [Self::Frozen, Self::QuestionSide, Self::Both];

    fn name(self, model: RagModel, start: bool) -> String {
        let start = if start { ", after a salient start" } else { "" };
        let setting = match self {
            Self::Frozen => "retriever frozen",
            Self::QuestionSide => "question side trained",
            Self::Both => "both encoders trained, index refreshed",
        };
        format!("RAG-{model:?}, {setting}{start}")
    }

    fn config(self) -> TrainConfig {
        let slow = Part::TrainedAt(1e-5);
        let (question_encoder, context_encoder) = match self {
            Self::Frozen => (Part::Frozen, Part::Frozen),
            Self::QuestionSide => (slow, Part::Frozen),
            Self::Both => (slow, slow),
        };
        TrainConfig {
            question_encoder,
            context_encoder,
            index: IndexRefresh {
                every: 40,
                delay: 20,
                rescore: None,
            },
            ..training()
        }
    }
}

impl Arguments {
    fn joint_pairs(&self, train: &Split) -> Vec<QuestionAnswer> {
        let all = train.pairs.len();
        train.pairs[..self.joint.unwrap_or(all).clamp(1, all)].to_vec()
    }

    /// Trains, and measures on `dev` over its own passages, embedded by the encoder that came out.
    fn joint_run(
        &self,
        setting: Setting,
        name: &str,
        rag: Rag,
        (train, dev): (&Split, &Split),
        seconds_before: f64,
    ) -> Result<(), Box<dyn Error>> {
        let begun = Instant::now();
        let config = TrainConfig {
            epochs: self.epochs,
            checkpoints: Some(self.output.join(name)),
            ..setting.config()
        };
        let pairs = self.joint_pairs(train);
        let mut trainer = Trainer::new(rag, config)?;
        trainer.run(&pairs, &[])?;
        let seconds = seconds_before + begun.elapsed().as_secs_f64();

        let mut rag = trainer.rag();
        let context_encoder = rag.retriever.context_text_encoder()?.clone();
        let knowledge = dev.index(&context_encoder)?;
        rag.retriever = Retriever::new(
            rag.retriever.question_encoder().clone(),
            context_encoder,
            knowledge,
            rag.retriever.n_docs(),
        )?;
        let recall = evaluate::recall(&rag.retriever, &dev.pairs, &[1, 5, 20])?;
        let scores = evaluate::answers(&rag, &dev.some(self.heldout), |_, _| {})?;
        println!(
            "| {name} | {:.3} | {:.3} | {:.3} | {:.1} | {:.1} | {seconds:.0} s |",
            recall[0],
            recall[1],
            recall[2],
            100.0 * scores.exact_match,
            100.0 * scores.f1,
        );
        Ok(())
    }
}

fn print_recall(
    name: &str,
    encoder: &TextEncoder,
    dev: &Split,
    seconds: f64,
) -> Result<(), Box<dyn Error>> {
    let knowledge = dev.index(encoder)?;
    let retriever = Retriever::new(encoder.clone(), encoder.clone(), knowledge, 1)?;
    let recall = evaluate::recall(&retriever, &dev.pairs, &[1, 5, 20])?;
    println!(
        "| {name} | {:.3} | {:.3} | {:.3} | | | {seconds:.0} s |",
        recall[0], recall[1], recall[2]
    );
    Ok(())
}
