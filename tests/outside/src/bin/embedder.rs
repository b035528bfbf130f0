//! An embedder of the user's own, in a crate of its own with one dependency: it retrieves, and a `Rag` asks with it.

use std::sync::Arc;

use burn_rag::{
    prelude::*,
    retrieve::{self, ndarray::Array2},
};

/// Counts of a text's words, each in one of 64 places.
#[derive(Debug)]
struct Words;

impl Words {
    fn count<'a>(texts: impl ExactSizeIterator<Item = &'a str>) -> Array2<f32> {
        let mut vectors = Array2::zeros((texts.len(), 64));
        for (text, mut row) in texts.zip(vectors.rows_mut()) {
            for word in text.to_lowercase().split(|c: char| !c.is_alphanumeric()) {
                let hash = word.bytes().fold(7_u32, |hash, byte| {
                    hash.wrapping_mul(31).wrapping_add(byte.into())
                });
                row[hash as usize % 64] += 1.0;
            }
        }
        vectors
    }
}

impl Embedder for Words {
    fn embed_passages(&self, passages: &[Passage]) -> retrieve::Result<Array2<f32>> {
        Ok(Self::count(passages.iter().map(|passage| passage.text.as_str())))
    }

    fn embed_questions(&self, questions: &[&str]) -> retrieve::Result<Array2<f32>> {
        Ok(Self::count(questions.iter().copied()))
    }

    fn fingerprint(&self) -> retrieve::Result<Fingerprint> {
        Ok(Fingerprint::new("words, version 1", "counts of words in 64 places"))
    }
}

fn main() -> burn_rag::Result<()> {
    let passages = vec![
        Passage::new("k2", "K2", "K2 stands in the Karakoram range."),
        Passage::new("blanc", "Mont Blanc", "Mont Blanc was climbed in 1786 for the first time."),
        Passage::new("kibo", "Kilimanjaro", "The summit of Kilimanjaro is called Uhuru Peak."),
    ];
    let embedder: Arc<dyn Embedder> = Arc::new(Words);
    let knowledge = build_knowledge_base(passages.clone(), &*embedder, Storage::F32, |_| {})?;
    let retriever = Retriever::new(embedder.clone(), embedder, knowledge, 2)?;
    let question = "Which range does K2 stand in?";
    let found = retriever.retrieve(&[question])?;
    assert_eq!(found[0][0].passage.id, "k2");

    let mut rag = ScratchConfig { n_docs: 2, ..Default::default() }.init(passages, &[], &device("cpu")?)?;
    rag.retriever = retriever;
    let answer = rag.ask(question)?;
    assert_eq!(answer.evidence[0].passage.id, "k2");
    println!("{answer}");
    let error = rag.save("nowhere").expect_err("a table of words has no weights to save");
    println!("as expected: {error}");
    Ok(())
}
