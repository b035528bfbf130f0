use rag_core::{Passage, Tokenizer};

use crate::{Error, RagConfig, Result};

/// Token ids of the contexts that the generator reads: each passage packed with the question as
/// `title / text // question`, at most `longest` tokens each.
///
/// The passage is cut where it does not fit, never the question, and the question is the string that
/// was asked.
///
/// # Errors
/// [`Error::QuestionTooLong`] where not even an empty passage fits.
pub fn pack<'a>(
    question: &str,
    passages: impl IntoIterator<Item = &'a Passage>,
    config: &RagConfig,
    tokenizer: &Tokenizer,
) -> Result<Vec<Vec<u32>>> {
    let positions = config.generator.max_positions().unwrap_or(usize::MAX);
    let longest = config.max_combined_length.min(positions);
    passages
        .into_iter()
        .map(|passage| {
            let ids = tokenizer.encode(&joined(question, passage, &passage.text, config))?.ids;
            if ids.len() <= longest {
                Ok(ids)
            } else {
                shorten(question, passage, ids.len(), longest, config, tokenizer)
            }
        })
        .collect()
}

fn joined(question: &str, passage: &Passage, text: &str, config: &RagConfig) -> String {
    let prefix = config.prefix.as_deref().unwrap_or_default();
    let title = passage.title.trim_matches('"');
    let RagConfig {
        title_sep, doc_sep, ..
    } = config;
    let context = format!("{prefix}{title}{title_sep}{text}{doc_sep}");
    // As the reference packs: separators bring spaces of their own.
    format!("{}{question}", context.replace("  ", " "))
}

/// Drops whole tokens from the end of the passage until the context fits. Tokens may merge anew at
/// the cut, so a first guess is corrected by what is still too much.
fn shorten(
    question: &str,
    passage: &Passage,
    mut length: usize,
    longest: usize,
    config: &RagConfig,
    tokenizer: &Tokenizer,
) -> Result<Vec<u32>> {
    let ends: Vec<usize> = tokenizer
        .offsets(&passage.text)?
        .into_iter()
        .map(|(_, end)| end)
        .collect();
    let mut kept = ends.len();
    loop {
        let excess = length - longest;
        if kept == 0 {
            return Err(Error::QuestionTooLong {
                tokens: tokenizer.encode(question)?.ids.len(),
                longest,
            });
        }
        kept = kept.saturating_sub(excess);
        let text = match kept {
            0 => "",
            kept => &passage.text[..ends[kept - 1]],
        };
        let ids = tokenizer.encode(&joined(question, passage, text, config))?.ids;
        if ids.len() <= longest {
            return Ok(ids);
        }
        length = ids.len();
    }
}
