//! A process that is killed while it saves leaves the old whole state or the new one.

#![allow(clippy::unwrap_used)]
#![cfg(unix)]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use burn_rag::{
    core::Passage,
    generate::Rag,
    retrieve::{KnowledgeBase, Storage, TextEncoder, build_knowledge_base},
};
use common::{Kind, Random, context_encoder, cpu, rag_of_seed};

/// Names the folder to the process that is going to be killed.
const FOLDER: &str = "BURN_RAG_KILLED_WHILE_SAVING";

const ROUNDS: usize = 40;
const LONGEST: Duration = Duration::from_secs(6);
/// The child lives no longer at first; longer where that is too short for whole saves.
const LIFE: u64 = 20_000;

type Files = BTreeMap<String, Vec<u8>>;

fn folder_to_save_to() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// The process that [`a_killed_save_leaves_a_whole_rag`] kills; nothing by itself.
#[test]
fn saves_a_rag_until_killed() {
    let Some(folder) = folder_to_save_to() else {
        return;
    };
    let rags = rags();
    save_until_killed(&folder, |round| {
        rags[round % 2].save(folder.join("saved")).unwrap()
    });
}

/// The process that [`a_killed_save_leaves_a_whole_knowledge_base`] kills; nothing by itself.
#[test]
fn saves_a_knowledge_base_until_killed() {
    let Some(folder) = folder_to_save_to() else {
        return;
    };
    let bases = knowledge_bases();
    save_until_killed(&folder, |round| {
        bases[round % 2].save(folder.join("saved")).unwrap()
    });
}

fn save_until_killed(folder: &Path, save: impl Fn(usize)) {
    fs::write(folder.join("ready"), "").unwrap();
    for attempt in 1.. {
        save(attempt);
    }
}

fn rags() -> [Rag; 2] {
    [1, 2].map(|seed| rag_of_seed(Kind::Bart, seed))
}

fn knowledge_bases() -> [KnowledgeBase; 2] {
    let encoder: TextEncoder = context_encoder(7);
    [60, 90].map(|count| {
        let passages = (0..count)
            .map(|i| {
                Passage::new(
                    i.to_string(),
                    "Rain",
                    format!("It rained {i} times. 下雨了。"),
                )
            })
            .collect();
        build_knowledge_base(passages, &encoder, Storage::F32, |_| ()).unwrap()
    })
}

#[test]
fn a_killed_save_leaves_a_whole_rag() {
    let rags = rags();
    let knowledge = rags[0].retriever.local().unwrap().clone();
    let answers = rags.each_ref().map(|rag| rag.ask("rain?").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let whole = saved_apart(|i, folder| rags[i].save(folder).unwrap());
    rags[0].save(folder.path().join("saved")).unwrap();
    kill_repeatedly("saves_a_rag_until_killed", folder.path(), |saved| {
        let found = common::files(saved);
        let which = whole.iter().position(|files| *files == found);
        let which = which.unwrap_or_else(|| panic!("a mixture: {:?}", found.keys()));
        let loaded = Rag::load(saved, knowledge.clone(), &cpu()).unwrap();
        assert_eq!(loaded.ask("rain?").unwrap(), answers[which]);
        which
    });
    rags[0].save(folder.path().join("saved")).unwrap();
    assert_eq!(common::files(&folder.path().join("saved")), whole[0]);
}

#[test]
fn a_killed_save_leaves_a_whole_knowledge_base() {
    let bases = knowledge_bases();
    let folder = tempfile::tempdir().unwrap();
    let whole = saved_apart(|i, folder| bases[i].save(folder).unwrap());
    bases[0].save(folder.path().join("saved")).unwrap();
    kill_repeatedly(
        "saves_a_knowledge_base_until_killed",
        folder.path(),
        |saved| {
            let opened = KnowledgeBase::open(saved).unwrap();
            let which = bases
                .iter()
                .position(|base| base.len() == opened.len())
                .unwrap();
            let found = common::files(saved);
            let kept = whole[which]
                .iter()
                .all(|(name, bytes)| found.get(name) == Some(bytes));
            assert!(kept, "{:?}", found.keys());
            assert_eq!(opened.index().rows(0..60), bases[which].index().rows(0..60));
            for (opened, expected) in opened.passages().zip(bases[which].passages()) {
                assert_eq!(opened.unwrap(), expected.unwrap());
            }
            which
        },
    );
    // The next save clears away what the killed ones left.
    bases[0].save(folder.path().join("saved")).unwrap();
    assert_eq!(common::files(&folder.path().join("saved")), whole[0]);
}

/// The files of both states.
fn saved_apart(save: impl Fn(usize, &Path)) -> [Files; 2] {
    [0, 1].map(|i| {
        let folder = tempfile::tempdir().unwrap();
        let saved = folder.path().join("saved");
        save(i, &saved);
        common::files(&saved)
    })
}

/// Kills the process of `test` at random moments, and looks each time at what it left.
fn kill_repeatedly(test: &str, folder: &Path, look: impl Fn(&Path) -> usize) {
    let start = Instant::now();
    let mut random = Random(u64::from(std::process::id()));
    let mut interrupted = 0;
    let mut seen = [0; 2];
    let mut microseconds = LIFE;
    for _ in 0..ROUNDS {
        if start.elapsed() > LONGEST {
            break;
        }
        let ready = folder.join("ready");
        let _ = fs::remove_file(&ready);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env(FOLDER, folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !ready.exists() {
            assert!(
                child.try_wait().unwrap().is_none(),
                "the saving process ended by itself"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(random.below(microseconds)));
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        seen[look(&folder.join("saved"))] += 1;
        if 4 * seen.iter().min().unwrap() < seen.iter().sum() {
            microseconds += microseconds / 4;
        }
        let remains = remains(folder)
            .into_iter()
            .chain(remains(&folder.join("saved")));
        let remains: Vec<_> = remains.collect();
        interrupted += usize::from(!remains.is_empty());
        for path in remains.iter().filter(|path| path.is_dir()) {
            fs::remove_dir_all(path).unwrap();
        }
    }
    println!("{interrupted} saves cut off half-way, old and new found {seen:?} times");
    assert!(
        interrupted > 0,
        "no save was cut off half-way; this shows nothing"
    );
    assert!(
        !seen.contains(&0),
        "only one of the states was ever found: {seen:?}"
    );
}

fn remains(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let begun =
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".writing-"));
    begun.map(|entry| entry.path()).collect()
}
