//! The language model's training, which goes on where it was stopped.

use std::ops::ControlFlow;

use burn_rag::{prelude::*, train::lora};

use super::{Failure, arguments::Recipe, contexts::Contexts, output::Output, settings::Setting};

/// The folder of checkpoints, and that of adapters.
pub const TRAIN: &str = "train";
const ADAPTERS: &str = "adapters";

/// Trains `rag` on `pairs` as the recipe says, with the retriever that it had; `None` where `stopped` said so.
pub fn generator(
    rag: Rag,
    recipe: &Recipe,
    contexts: &Contexts,
    pairs: &[QuestionAnswer],
    run: &Output,
    stopped: &dyn Fn() -> bool,
) -> Result<Option<Rag>, Failure> {
    if recipe.setting == Setting::ZeroShot || recipe.steps == 0 {
        return Ok(Some(rag));
    }
    let retriever = rag.retriever.clone();
    let mut rag = rag;
    rag.retriever = contexts.to_train(&retriever, pairs)?;
    let adapters = recipe.adapters();
    if let Some(adapters) = &adapters {
        rag = adapters.apply(rag)?;
    }
    let config = recipe.training(run.path(TRAIN));
    let mut trainer = match run.path(TRAIN).join("last/training").is_dir() {
        true => Trainer::resume(rag, config)?,
        false => Trainer::new(rag, config)?,
    };
    let mut broken_off = false;
    trainer.run_while(pairs, &[], |_| match stopped() {
        true => {
            broken_off = true;
            ControlFlow::Break(())
        }
        false => ControlFlow::Continue(()),
    })?;
    if broken_off || stopped() {
        return Ok(None);
    }
    let mut rag = trainer.rag();
    if let Some(adapters) = &adapters {
        adapters.save(&rag, run.path(ADAPTERS))?;
        rag = lora::merge(rag);
    }
    if !recipe.setting.trains_questions() {
        rag.retriever = retriever;
    }
    Ok(Some(rag))
}
