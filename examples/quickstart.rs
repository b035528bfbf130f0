//! Experiment.
use std::path::Path;
use burn_rag::{core::device, retrieve::{Chunking, Documents}, train::{ScratchConfig, TrainConfig, Trainer, evaluate, read_pairs}};

fn env<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data");
    let documents = Documents::read(data.join("corpus"), &Chunking::words(200))?;
    println!("{documents}");
    let train = read_pairs(data.join("train.jsonl"))?;
    let heldout = read_pairs(data.join("heldout.jsonl"))?;
    let device = device("cpu")?;
    let texts: Vec<&str> = train.iter().flat_map(|p| [p.question.as_str(), p.answers[0].as_str()]).collect();
    let scratch = ScratchConfig {
        n_docs: env("N_DOCS", 5),
        encoder_width: env("EW", 128), encoder_layers: env("EL", 1),
        generator_width: env("GW", 128), generator_layers: env("GL", 2),
        dropout: env("DROP", 0.1), max_combined_length: env("LEN", 160),
        inverse_cloze: burn_rag::train::InverseCloze { steps: env("ICT", 150), learning_rate: env("ICTLR", 1e-3), batch_size: env("ICTB",64), words: env("ICTW", 8), seed: 0 }, ..Default::default() };
let begun0 = std::time::Instant::now();
    let rag = scratch.init(documents.passages, &texts, &device)?;
println!("scratch {:?}", begun0.elapsed());    let begun = std::time::Instant::now();
    println!("recall train {:?} heldout {:?}", evaluate::recall(&rag.retriever, &train, &[1,5,10,20])?, evaluate::recall(&rag.retriever, &heldout, &[1,5,10,20])?);
    println!("vocab {} {}", rag.tokenizer.vocabulary(), rag.retriever.question_encoder.tokenizer.vocabulary());
    let mut trainer = Trainer::new(rag, TrainConfig {
        epochs: env("EPOCHS", 10), batch_size: env("BS", 8), micro_batch_size: env("BS", 8),
        learning_rate: env("LR", 1e-3), retriever_learning_rate: Some(env("RLR", 1e-4)), max_gradient_norm: env("CLIP", 1.0), evaluate_every: env("EVERY", 5), label_smoothing: env("SMOOTH", 0.0),
        ..Default::default()}, train.len())?;
    trainer.run(&train, &heldout)?;
    let rag = trainer.rag();
    println!("recall train {:?} heldout {:?}", evaluate::recall(&rag.retriever, &train, &[1,5,10,20])?, evaluate::recall(&rag.retriever, &heldout, &[1,5,10,20])?);
    println!("{:?}", begun.elapsed());
    for p in &heldout[..3] { println!("{} | {:?}", rag.ask(&p.question)?.text, p.answers); }
    Ok(())
}
