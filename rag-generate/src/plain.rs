//! Decoding without retrieval: the generator alone, P(y|z).

use rag_core::nn::Precision;

use crate::{
    decode::{Control, GenerationConfig, Hypothesis, generate},
    error::Result,
    generator::{Generator, GeneratorConfig, Memory},
    reader::writable,
    search::Search,
};

/// The answers of each context in `memory`, best first.
///
/// # Errors
/// [`crate::Error::Decode`], [`crate::Error::AnswerTooLong`].
pub fn decode(
    generator: &Generator,
    memory: Memory,
    config: &GeneratorConfig,
    generation: &GenerationConfig,
    precision: Precision,
    control: Control<'_>,
) -> Result<Vec<Vec<Hypothesis>>> {
    writable(config, &memory, generation.longest() - 1)?;
    let contexts = memory.contexts();
    let mut search = Search::independent(generator, memory, generator.words(), precision);
    Ok(generate(&mut search, contexts, generation, control)?)
}
