//! Exact match, F1, BLEU and ROUGE against the numbers of SQuAD's script, sacrebleu and rouge-score in
//! `tests/evaluation/cases.json`, and in the file that `$RAG_EVALUATION_CASES` names.
//! `scripts/make_evaluation_cases.py` makes such files.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn_rag::train::evaluate::{
    Bleu, Language, Overlap, Rouge, bleu, exact_match, f1, rouge, sentence_bleu,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Recorded {
    cases: Vec<Case>,
    corpora: Vec<Corpus>,
}

#[derive(Deserialize)]
struct Case {
    language: Language,
    answer: String,
    accepted: Vec<String>,
    /// English only.
    squad: Option<Squad>,
    bleu: Bleu,
    rouge: Rouge,
}

#[derive(Deserialize)]
struct Squad {
    exact_match: bool,
    f1: f64,
}

#[derive(Deserialize)]
struct Corpus {
    language: Language,
    pairs: Vec<Pair>,
    bleu: Bleu,
}

#[derive(Deserialize)]
struct Pair {
    answer: String,
    accepted: Vec<String>,
}

#[test]
fn single_answers() {
    let mut differences = Vec::new();
    let mut languages = Vec::new();
    for case in recorded().iter().flat_map(|file| &file.cases) {
        let (answer, language) = (case.answer.as_str(), case.language);
        let mut compare = |what: &str, found: &[f64], expected: &[f64]| {
            if !close(found, expected) {
                differences.push(format!(
                    "{what} of {answer:?} with {:?} ({language:?}): {found:?}, expected {expected:?}",
                    case.accepted
                ));
            }
        };
        if let Some(squad) = &case.squad {
            let found = exact_match(answer, &case.accepted, language);
            let as_number = |exact| f64::from(u8::from(exact));
            compare(
                "exact match",
                &[as_number(found)],
                &[as_number(squad.exact_match)],
            );
            compare("F1", &[f1(answer, &case.accepted, language)], &[squad.f1]);
        }
        let found = sentence_bleu(answer, &case.accepted, language);
        compare("BLEU", &of_bleu(&found), &of_bleu(&case.bleu));
        let found = rouge(answer, &case.accepted, language);
        for (what, found, expected) in [
            ("ROUGE-1", found.rouge_1, case.rouge.rouge_1),
            ("ROUGE-2", found.rouge_2, case.rouge.rouge_2),
            ("ROUGE-L", found.rouge_l, case.rouge.rouge_l),
        ] {
            compare(what, &of_overlap(found), &of_overlap(expected));
        }
        languages.push(language);
    }
    for language in [Language::English, Language::Chinese] {
        let cases = languages.iter().filter(|&&found| found == language).count();
        println!("{cases} cases in {language:?}");
        assert!(cases > 50);
    }
    report(&differences);
}

#[test]
fn corpora() {
    let mut differences = Vec::new();
    for corpus in recorded().iter().flat_map(|file| &file.corpora) {
        let pairs: Vec<_> = corpus
            .pairs
            .iter()
            .map(|pair| (pair.answer.as_str(), pair.accepted.as_slice()))
            .collect();
        let found = bleu(&pairs, corpus.language).unwrap();
        if !close(&of_bleu(&found), &of_bleu(&corpus.bleu)) {
            differences.push(format!(
                "{} pairs from {:?} on: {found:?}, expected {:?}",
                pairs.len(),
                pairs[0],
                corpus.bleu
            ));
        }
    }
    report(&differences);
}

fn recorded() -> Vec<Recorded> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/evaluation/cases.json");
    let other = std::env::var_os("RAG_EVALUATION_CASES").map(PathBuf::from);
    [own]
        .into_iter()
        .chain(other)
        .map(|path| serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
        .collect()
}

fn of_bleu(bleu: &Bleu) -> Vec<f64> {
    let lengths = [bleu.length as f64, bleu.reference_length as f64];
    [bleu.score, bleu.brevity_penalty]
        .into_iter()
        .chain(bleu.precisions)
        .chain(lengths)
        .collect()
}

fn of_overlap(overlap: Overlap) -> [f64; 3] {
    [overlap.precision, overlap.recall, overlap.f1]
}

/// Within 1e-9 of the expected number; 0 only where 0 is expected.
fn close(found: &[f64], expected: &[f64]) -> bool {
    let within =
        |(found, expected): (&f64, &f64)| (found - expected).abs() <= 1e-9 * expected.abs();
    found.len() == expected.len() && found.iter().zip(expected).all(within)
}

fn report(differences: &[String]) {
    let first: Vec<_> = differences.iter().take(10).map(String::as_str).collect();
    assert!(
        differences.is_empty(),
        "{} differ:\n{}",
        differences.len(),
        first.join("\n")
    );
}
