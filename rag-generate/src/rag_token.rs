//! Decoding from P(y_i|x,y_<i) = Σ_z P(z|x) P(y_i|x,z,y_<i) (section 2.5 of the paper, RAG-Token).

use crate::{
    decode::{Control, GenerationConfig, Hypothesis, generate},
    error::Result,
    reader::{Reader, writable},
    search::Search,
};

/// Answers of the marginalised distribution for each question, best first: greedy, beam search or sampling, as
/// `generation` says. Several questions read the weights together at every step.
///
/// # Errors
/// [`crate::Error::Decode`], [`crate::Error::AnswerTooLong`].
pub fn decode(
    reader: &Reader<'_>,
    generation: &GenerationConfig,
    control: Control<'_>,
) -> Result<Vec<Vec<Hypothesis>>> {
    writable(reader.config, &reader.memory, generation.longest() - 1)?;
    let mut search = Search::marginalised(
        reader.generator,
        reader.memory.clone(),
        reader.log_prior.clone(),
        reader.generator.words(),
        reader.precision,
    );
    let [questions, _] = reader.log_prior.dims();
    Ok(generate(&mut search, questions, generation, control)?)
}
