//! The example `open_qa` on a tiny corpus with random weights: what comes out does not depend on where a run was stopped
//! or killed, and another encoder, model or corpus is refused.

#![allow(clippy::unwrap_used)]

mod common;
// The example itself; its `main` is not called here.
#[allow(dead_code)]
#[path = "../examples/open_qa/main.rs"]
mod open_qa;

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use burn_rag::{
    generate::{Template, generator::fixtures::Tiny},
    prelude::*,
    retrieve::Role,
    train::watch::{Event, MetricsLog},
};
use clap::Parser;
use common::{Kind, Random, alone};
use open_qa::{Arguments, Results, run};
use serde_json::{Value, json};

/// Names the folder to the process that is going to be killed.
const FOLDER: &str = "BURN_RAG_OPEN_QA_KILLED";

const THINGS: [&str; 6] = ["road", "river", "house", "door", "boat", "field"];
const PLACES: [&str; 4] = ["the city", "the north", "Denmark", "the island"];
const COLOURS: [&str; 5] = ["red", "blue", "green", "white", "grey"];

/// A folder with an encoder, a language model and a corpus.
fn given() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("encoder")).unwrap();
    let encoder = common::context_encoder(7);
    encoder.save(path("encoder"), Role::Question).unwrap();
    write_model(&path("model"), 1);
    let (mut passages, mut pairs) = (Vec::new(), Vec::new());
    for (at, thing) in THINGS.iter().enumerate() {
        for (place_at, place) in PLACES.iter().enumerate() {
            let id = (PLACES.len() * at + place_at).to_string();
            let colour = COLOURS[(2 * at + 3 * place_at) % COLOURS.len()];
            let text = format!("The {thing} of {place} is {colour}, and it is old.");
            passages.push(json!({"id": id, "title": thing, "text": text}));
            let question = format!("what is the {thing} of {place} like?");
            pairs.push(json!({"question": question, "answers": [colour], "passage_id": id}));
        }
    }
    // Of the last two things they ask in dev, whose ids count from 0 too.
    let dev = PLACES.len() * (THINGS.len() - 2);
    for (split, range) in [("train", 0..dev), ("dev", dev..passages.len())] {
        let renamed = |rows: &[Value], field: &str| {
            let rows = rows[range.clone()].iter().enumerate().map(|(at, row)| {
                let mut row = row.clone();
                row[field] = at.to_string().into();
                row
            });
            rows.collect::<Vec<_>>()
        };
        fs::create_dir_all(path("corpus").join(split)).unwrap();
        let mut pairs = renamed(&pairs, "passage_id");
        pairs.push(json!({"question": "", "answers": ["x"]}));
        pairs.push(json!({"question": "is it of a colour that is nowhere?", "answers": ["no colour at all"]}));
        write_lines(
            &path("corpus").join(split).join("passages.jsonl"),
            &renamed(&passages, "id"),
        );
        write_lines(&path("corpus").join(split).join("qa.jsonl"), &pairs);
    }
    folder
}

fn write_model(folder: &Path, seed: u64) {
    let tokenizer = common::generator_tokenizer(Kind::Llama);
    let tiny = Tiny {
        vocabulary: tokenizer.vocabulary(),
        positions: 400,
        ..Tiny::default()
    };
    let (config, generator) = Kind::Llama.generator(tiny, seed);
    fs::create_dir_all(folder).unwrap();
    let model = LanguageModel {
        generation: config.generation(),
        generator,
        config,
        tokenizer,
        template: Template::plain(),
    };
    model.save(folder).unwrap();
}

fn write_lines(path: &Path, rows: &[Value]) {
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    fs::write(path, lines).unwrap();
}

/// A few steps on a few questions.
fn arguments(given: &Path, output: &Path, more: &[&str]) -> Arguments {
    let paths = ["encoder", "model", "corpus"].map(|name| given.join(name));
    let paths = paths.iter().map(PathBuf::as_path).chain([output]);
    let few = "--tuning-questions 6 --prior-questions 6 --steps 4 --batch 2 --warmup 1 --n-docs 2 --new-tokens 4 --prompt-tokens 100 \
               --checkpoint-every 1 --device cpu";
    let words = ["open_qa"].into_iter().map(PathBuf::from);
    let words = words.chain(paths.map(Path::to_owned));
    let words = words.chain(few.split(' ').map(PathBuf::from));
    Arguments::parse_from(words.chain(more.iter().map(PathBuf::from)))
}

/// To the end, in one sitting.
fn whole(arguments: &Arguments) -> Results {
    run(arguments, &|| false).unwrap().unwrap()
}

fn without_times(mut results: Results) -> Results {
    results.seconds = [0.0; 2];
    results.most_bytes = None;
    results
}

/// The files that a run leaves in its output folder, but for times and optimiser: encoder, negatives, vectors, weights, answers,
/// results.
fn made(output: &Path) -> BTreeMap<String, Vec<u8>> {
    let timeless = |name: &String| {
        let names = ["metrics.jsonl", "report.html", "state.bin"];
        // The file that a killed process was writing stays beside its place.
        let whole = !name.contains(".writing-");
        whole && !names.iter().any(|times| name.ends_with(times)) && !name.contains(".bpk")
    };
    let files = common::files(output).into_iter();
    let files = files.filter(|(name, _)| timeless(name));
    files
        .map(|(name, bytes)| match name.rsplit('/').next() {
            Some("answers.json" | "results.json") => {
                let mut value: Value = serde_json::from_slice(&bytes).unwrap();
                value
                    .as_object_mut()
                    .unwrap()
                    .retain(|name, _| !["seconds", "most_bytes"].contains(&name.as_str()));
                (name, value.to_string().into_bytes())
            }
            _ => (name, bytes),
        })
        .collect()
}

fn assert_same(found: &Path, expected: &Path) {
    let (found, expected) = (made(found), made(expected));
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected));
    for (name, bytes) in &found {
        assert!(*bytes == expected[name], "{name} differs");
    }
    let written = |wanted: &str| names(&found).iter().any(|name| name.ends_with(wanted));
    for name in [
        "mined.json",
        "encoder/model.safetensors",
        "prior.json",
        "answers.json",
    ] {
        assert!(written(name), "no {name} in {:?}", names(&found));
    }
}

/// The nth sitting is stopped where it asks for the nth time whether it should: after every stage, step and chunk of
/// answers once.
#[test]
fn stopped_everywhere_is_uninterrupted() {
    let _alone = alone();
    let given = given();
    for setting in [
        &["--setting", "question-encoder"][..],
        &["--setting", "both-encoders", "--lora=2", "--seed", "3"],
        &["--setting", "concatenated", "--negatives", "in-batch"],
    ] {
        let outputs = ["whole", "stopped"].map(|name| given.path().join(name));
        let [uninterrupted, stopped] =
            [&outputs[0], &outputs[1]].map(|output| arguments(given.path(), output, setting));
        let expected = without_times(whole(&uninterrupted));
        let mut sittings = 0;
        let found = loop {
            sittings += 1;
            let asked = Cell::new(0);
            let stop = || {
                asked.set(asked.get() + 1);
                asked.get() == sittings
            };
            if let Some(results) = run(&stopped, &stop).unwrap() {
                break results;
            }
            assert!(sittings < 100);
        };
        // Encoder, knowledge base, prior, four steps or what is left of them, two chunks of answers.
        assert!(sittings >= 6, "{sittings}");
        assert_eq!(without_times(found), expected, "{setting:?}");
        let negatives = setting.contains(&"in-batch");
        assert_eq!(outputs[0].join("retriever-in-batch").is_dir(), negatives);
        assert_same(&outputs[1], &outputs[0]);
        for output in outputs {
            fs::remove_dir_all(output).unwrap();
        }
    }
}

/// The process that [`killed_is_uninterrupted`] kills; nothing by itself.
#[test]
fn runs_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    whole(&arguments(&folder, &folder.join("killed"), &[]));
}

/// A run is killed where a file of each stage has come up, or at some instant after it.
#[test]
fn killed_is_uninterrupted() {
    let _alone = alone();
    let given = given();
    let [expected, killed] = ["whole", "killed"].map(|name| given.path().join(name));
    whole(&arguments(given.path(), &expected, &[]));
    let mut random = Random(0);
    let files = [
        "given.json",
        "retriever-mined/mined.json",
        "retriever-mined/encoder",
        "retriever-mined/prior.json",
        "runs/sequence-n2-mined-seed0/train/last",
        "runs/sequence-n2-mined-seed0/answers.json",
    ];
    let mut kills = 0;
    for file in files.map(|name| killed.join(name)) {
        // The process before this one may have written it too.
        if file.exists() {
            continue;
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["runs_until_killed", "--exact", "--nocapture"])
            .env(FOLDER, given.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !file.exists() {
            let status = child.try_wait().unwrap();
            assert_eq!(status, None, "ended without {}", file.display());
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(random.below(30)));
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert!(kills > 0);
    whole(&arguments(given.path(), &killed, &[]));
    assert_same(&killed, &expected);
}

/// Confidences are fitted to the questions about one thing and measured on those about the other; what an earlier call asked
/// again does not change what a later one reports.
#[test]
fn trust_is_of_what_was_asked_for() {
    let _alone = alone();
    let folder = given();
    let output = folder.path().join("output");
    let of = |again: &str| {
        let more = "--negatives untuned --setting zero-shot --missing-passages";
        let more: Vec<&str> = more.split(' ').chain([again]).collect();
        without_times(whole(&arguments(folder.path(), &output, &more)))
    };
    let [none, one, all] = ["0", "1", "100"].map(of);
    for (results, again) in [(&none, None), (&one, Some(1)), (&all, Some(4))] {
        let trust = results.trust.as_ref().unwrap();
        assert_eq!((trust.fitted, trust.measured), (5, 4));
        assert_eq!(trust.provenance.left_out.map(|of| of.questions), again);
        assert_eq!(trust.right_without_passage.is_some(), again.is_some());
    }
    assert_eq!([of("1"), of("0")], [one, none]);
    let page = fs::read_to_string(output.join("runs/zero-shot-n2-untuned-seed0/report.html"));
    assert!(page.unwrap().contains("How far the answers can be trusted"));
}

#[test]
fn another_encoder_model_corpus_or_setting_is_refused() {
    let _alone = alone();
    let folder = given();
    let given = folder.path();
    let output = given.join("output");
    let untuned = |more: &[&str]| {
        let more = [&["--negatives", "untuned", "--setting", "zero-shot"], more].concat();
        arguments(given, &output, &more)
    };
    whole(&untuned(&[]));
    let refused = |arguments: &Arguments, what: &str| {
        let error = run(arguments, &|| false).unwrap_err().to_string();
        assert!(
            error.contains(&format!("begun with another {what}")),
            "{error}"
        );
        assert!(error.contains("give what it was begun with"), "{error}");
    };
    refused(
        &untuned(&["--n-docs", "3", "--name", "zero-shot-n2-untuned-seed0"]),
        "n_docs",
    );
    refused(&untuned(&["--prior-questions", "5"]), "prior_questions");
    let tuned = ["--negatives", "in-batch", "--setting", "zero-shot"];
    let tuned = [&tuned[..], &["--name", "zero-shot-n2-untuned-seed0"]].concat();
    refused(&arguments(given, &output, &tuned), "negatives");

    write_model(&given.join("model"), 2);
    refused(&untuned(&[]), "language model");
    write_model(&given.join("model"), 1);
    common::context_encoder(8)
        .save(given.join("encoder"), Role::Question)
        .unwrap();
    refused(&untuned(&[]), "encoder");
    common::context_encoder(7)
        .save(given.join("encoder"), Role::Question)
        .unwrap();
    let pairs = given.join("corpus/dev/qa.jsonl");
    let text = fs::read_to_string(&pairs).unwrap();
    fs::write(&pairs, text.replace("green", "yellow")).unwrap();
    refused(&untuned(&[]), "corpus");
    fs::write(&pairs, text).unwrap();
    whole(&untuned(&[]));

    let error = run(&untuned(&["--questions", "3"]), &|| false).unwrap_err();
    assert!(
        error.to_string().contains("answers to other questions"),
        "{error}"
    );
    let error = run(&untuned(&["--batch", "0"]), &|| false).unwrap_err();
    assert!(error.to_string().contains("--batch is 0"), "{error}");
}

/// Settings of one output folder share a retriever, and stand in one table.
#[test]
fn settings_stand_in_one_table() {
    let _alone = alone();
    let folder = given();
    let output = folder.path().join("output");
    let of = |more: &[&str]| whole(&arguments(folder.path(), &output, more));
    let gold = of(&["--setting", "gold"]);
    let given = of(&["--setting", "gold", "--answer-from", "gold"]);
    let runs = [
        of(&["--setting", "emdr2", "--n-docs", "3"]),
        gold.clone(),
        given.clone(),
        of(&["--setting", "token", "--lora"]),
        of(&["--setting", "zero-shot"]),
    ];
    // Eight questions with a passage, and one that no passage answers.
    for results in &runs {
        assert_eq!(results.questions, 9);
        assert_eq!(results.scores.len(), 7);
        assert!(results.scores["recall_20"].estimate >= results.scores["recall_1"].estimate);
        assert!(results.scores["log_likelihood_per_token"].high < 0.0);
        // Where other passages are read than those found, none of these can be missing.
        let trust = results.trust.as_ref().unwrap();
        let again = trust.provenance.left_out.map(|of| of.questions);
        let is_given = results.run == given.run;
        assert_eq!(again, (!is_given).then_some(4), "{}", results.run);
        assert!(!is_given || trust.provenance.any.accepted == 1.0);
        let untrained = results.run.starts_with("zero");
        assert_eq!(results.seconds[0] == 0.0, untrained, "{}", results.run);
    }
    assert_eq!(given.run, format!("{}, gold passage given", gold.run));
    assert_eq!(given.scores["recall_1"], gold.scores["recall_1"]);
    let likelihood = "log_likelihood_per_token";
    assert_ne!(given.scores[likelihood], gold.scores[likelihood]);
    assert!(
        output
            .join("runs/token-n2-lora8-mined-seed0/adapters/generator")
            .is_dir()
    );

    let table = open_qa::table(std::slice::from_ref(&output)).unwrap();
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 2 + runs.len(), "{table}");
    let columns = rows[0].matches("| ").count();
    for (row, results) in rows[2..].iter().zip(&runs) {
        assert!(
            row.starts_with(&format!("| {} | 9 |", results.run)),
            "{row}"
        );
        assert_eq!(row.matches("| ").count(), columns, "{row}");
    }
    let error = open_qa::table(&[folder.path().join("corpus")]).unwrap_err();
    assert!(error.to_string().contains("runs"), "{error}");
}

#[test]
fn documents_with_pairs_are_a_corpus() {
    let _alone = alone();
    let folder = given();
    let documents = folder.path().join("corpus");
    let read = |name: &str| fs::read_to_string(documents.join(name)).unwrap();
    let texts = read("train/passages.jsonl");
    let pairs = read("train/qa.jsonl");
    fs::remove_dir_all(&documents).unwrap();
    fs::create_dir(&documents).unwrap();
    for (at, line) in texts.lines().enumerate() {
        let row: Value = serde_json::from_str(line).unwrap();
        let text = row["text"].as_str().unwrap();
        fs::write(documents.join(format!("{at}.txt")), text).unwrap();
    }
    // Without the passages' names: a passage with the answer in it counts.
    let pairs = pairs.lines().map(|line| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        row.as_object_mut().unwrap().remove("passage_id");
        row
    });
    let path = folder.path().join("pairs.jsonl");
    write_lines(&path, &pairs.collect::<Vec<_>>());
    let output = folder.path().join("output");
    let path = path.to_str().unwrap();
    let more = ["--setting", "sequence", "--steps", "9", "--pairs", path];
    let results = whole(&arguments(folder.path(), &output, &more));
    // A fifth of seventeen that can be used, rounded up.
    assert_eq!(results.questions, 4);
    // Thirteen are left to train on: two a step, some of them twice.
    let log = output.join("runs/sequence-n2-mined-seed0/train/metrics.jsonl");
    let events = MetricsLog::read(log).unwrap().into_iter();
    let steps = events.filter(|event| matches!(event, Event::Step(_)));
    assert_eq!(steps.count(), 9);

    let error = run(&arguments(folder.path(), &output, &[]), &|| false).unwrap_err();
    assert!(error.to_string().contains("--pairs"), "{error}");
}
