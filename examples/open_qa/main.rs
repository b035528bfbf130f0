//! Answers to real questions: tunes a retriever, fits P(z|x), trains a language model through the marginal likelihood, and
//! measures it on questions that were kept back.
//!
//! ```text
//! cargo run --release --example open_qa <encoder> <model.gguf> <corpus> <output> [--setting sequence] …
//! cargo run --release --example open_qa <encoder> <model.gguf> <documents> <output> --pairs pairs.jsonl
//! cargo run --release --example open_qa -- --summary <output> …
//! ```
//!
//! The encoder is a folder such as all-MiniLM-L6-v2, the model a GGUF file or the folder of a decoder-only language model. The
//! corpus has the folders `train` and `dev`, each with `passages.jsonl` {id, title, text} and `qa.jsonl` {question, answers,
//! passage_id}; both folders' passages become one knowledge base. Or it is documents, with questions and answers in a file
//! beside them, of which a fifth is held out.
//!
//! The stages, and where in the output folder each ends up:
//!
//! 1. `retriever-…/`: hard negatives are mined (`mined.json`), and the encoder learns from them (`encoder/`).
//! 2. All passages are embedded (`knowledge/`); words are searched beside the vectors, by BM25.
//! 3. The weights of both in P(z|x) are fitted (`prior.json`).
//! 4. `runs/<name>/train/`: the language model is trained, whole or by LoRA, as `--setting` says. Its model is in
//!    `last/`, which `ask` reads; LoRA's adapters are in `runs/<name>/adapters/`.
//! 5. `runs/<name>/`: the held-out questions are answered (`answers.json`) and measured (`results.json`, `report.html`); a
//!    row of a Markdown table is printed. Confidences are fitted to one half of the questions and measured on the other; of
//!    that half some are asked again with passages missing (`--missing-passages`).
//!
//! A run that was killed or stopped goes on with the same command: what is finished is not done again, training goes on from
//! its last checkpoint, answering from the last eight questions; only the tuning of the encoder begins anew. Ctrl-C stops
//! after the step that runs; twice, at once. Several settings share an output folder, one after the other, and what they share
//! is made once. Another encoder, model or corpus in the same folder is refused.
//!
//! Training of all parameters holds four numbers for each in memory (parameter, gradient, two moments) beside activations,
//! and a checkpoint has as many: 2 GB for a model of 135 million. `--lora` holds and saves moments of the adapters alone.
//!
//! `--device`, or else `RAG_DEVICE`, chooses the device: `cpu` (default), or `wgpu` and `cuda` in
//! builds that have them. `-- --help` explains every argument.

mod arguments;
mod contexts;
mod corpus;
mod judge;
mod output;
mod results;
mod retrieve;
mod settings;
mod train;
mod trust;

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use burn_rag::prelude::*;
use clap::Parser;
use serde::Serialize;
use signal_hook::{consts::SIGINT, flag};

pub(crate) use arguments::Arguments;
pub(crate) use results::{Results, table};

use arguments::Given;
use contexts::Contexts;
use corpus::Corpus;
use output::{Output, fingerprint};
use trust::Halves;

/// Any error, with a message for who runs this.
pub(crate) type Failure = Box<dyn Error>;

/// The settings that a run is begun with. Numbers of its retriever are noted beside that.
#[derive(Serialize)]
struct Begun<'a> {
    #[serde(flatten)]
    recipe: &'a arguments::Recipe,
    negatives: settings::Negatives,
}

fn main() -> Result<(), Failure> {
    burn_rag::cpu::keep_freed_pages();
    let arguments = Arguments::parse();
    if arguments.summary {
        println!("{}", table(&arguments.paths)?);
        return Ok(());
    }
    // The first Ctrl-C asks to stop, the second ends the process.
    let stopped = Arc::new(AtomicBool::new(false));
    flag::register_conditional_shutdown(SIGINT, 130, stopped.clone())?;
    flag::register(SIGINT, stopped.clone())?;
    match run(&arguments, &|| stopped.load(Ordering::Relaxed))? {
        Some(results) => {
            println!("{}\n{}", results::HEAD, results.row());
            if let Some(trust) = &results.trust {
                println!("\n{trust}");
            }
        }
        None => eprintln!("stopped; the same command goes on from here"),
    }
    Ok(())
}

/// From the files that were given to results; `None` where `stopped` said so in between, and the same call goes on.
pub(crate) fn run(
    arguments: &Arguments,
    stopped: &dyn Fn() -> bool,
) -> Result<Option<Results>, Failure> {
    let Given {
        encoder,
        model,
        corpus,
        output,
    } = arguments.given()?;
    let recipe = &arguments.recipe;
    recipe.check()?;
    let device = device(&arguments.device)?;
    let untuned = TextEncoder::load(encoder, &device)?;
    let corpus = Corpus::read(corpus, arguments.pairs.as_deref())?;
    let output = Output::open(output)?;
    output.settle(
        "given.json",
        [
            ("encoder", untuned.fingerprint()?.hash),
            ("language model", fingerprint(model)?),
            ("corpus", corpus.fingerprint.clone()),
        ],
    )?;

    let retriever = retrieve::retriever(&untuned, &corpus, arguments, &output, stopped)?;
    let Some(retriever) = retriever else {
        return Ok(None);
    };
    let run = output.folder(&arguments.run_name())?;
    let begun = Begun {
        recipe,
        negatives: arguments.tuning.negatives,
    };
    run.settle_all("settings.json", &begun)?;

    let rag = recipe.rag(
        retriever.top_k(recipe.n_docs)?,
        LanguageModel::load(model, &device)?,
    )?;
    let pairs = corpus.pairs_for_generator(&arguments.tuning, recipe.pairs(), recipe.seed);
    let questions = corpus.questions(arguments.questions);
    corpus.warn(&rag, &pairs, &questions)?;

    let contexts = Contexts::new(recipe.setting, &corpus);
    let trained = train::generator(rag, recipe, &contexts, &pairs, &run, stopped)?;
    let Some(rag) = trained else {
        return Ok(None);
    };

    let from = arguments.answer_from;
    let halves = Halves::of(&questions, &corpus, arguments.missing_passages);
    let again = halves.again();
    let judged = judge::answers(&rag, from, &contexts, &questions, again, &run, stopped)?;
    let Some(judged) = judged else {
        return Ok(None);
    };
    let results = Results::of(&arguments.run_name(), from, recipe, &judged, &halves, &run)?;
    results.write(&rag, &judged, from, &run)?;
    Ok(Some(results))
}
