//! A knowledge base that changes: what is committed is what a rebuild would give, no crash loses or tears
//! it, no reader sees a mixture.

// Long because: one folder of documents goes through every change, with the helpers that write and compare it.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use burn_rag::{
    core::Passage,
    retrieve::{
        Changes, DocumentError, Embedder, Error, Filter, Fingerprint, Index, IndexError,
        KnowledgeBase, KnowledgeError, KnowledgeWriter, Result, Storage,
    },
};
use common::{
    Random,
    hashes::{DIMENSION, Hashes},
};
use ndarray::Array2;

/// The passages that a knowledge base should hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    /// The passage `step` says which it is.
    passages: BTreeMap<String, Passage>,
    version: u64,
}

/// A change of a knowledge base between two commits.
enum Step {
    Upsert(Vec<Passage>),
    Delete(Vec<String>),
    Sync(Vec<Passage>),
    Compact,
    Reembed,
}

fn step_passage(step: u64) -> Passage {
    Passage::new("step", "", step.to_string())
}

fn passage(id: u64, text: u64) -> Passage {
    let passage = Passage::new(id.to_string(), "标题", format!("text {text}\n of {id}"));
    passage
        .with("text", text as f64)
        .with("even", id.is_multiple_of(2))
}

impl Step {
    /// The `n`th of a script that is always the same.
    fn of(n: u64) -> Self {
        let mut random = Random(n);
        let mut some = |count: usize| -> BTreeMap<u64, Passage> {
            let ids = (0..count).map(|_| random.below(300));
            // Every third text has been there before.
            ids.map(|id| (id, passage(id, if id % 3 == 0 { 0 } else { n })))
                .collect()
        };
        match n % 11 {
            1 | 2 | 4 | 6 | 8 | 10 => Self::Upsert(some(25).into_values().collect()),
            3 | 7 => Self::Delete(some(20).into_keys().map(|id| id.to_string()).collect()),
            5 => Self::Sync(some(120).into_values().collect()),
            9 => Self::Compact,
            _ => Self::Reembed,
        }
    }
}

impl State {
    /// After the first step, which builds.
    fn first() -> Self {
        let passages = (0..100).map(|id| passage(id, 0));
        let mut state = Self::default();
        state.add(passages.chain([step_passage(0)]));
        state
    }

    fn add(&mut self, passages: impl IntoIterator<Item = Passage>) {
        let by_id = passages
            .into_iter()
            .map(|passage| (passage.id.clone(), passage));
        self.passages.extend(by_id);
    }

    fn after(mut self, n: u64) -> Self {
        match Step::of(n) {
            Step::Upsert(passages) => self.add(passages),
            Step::Delete(ids) => self.passages.retain(|id, _| !ids.contains(id)),
            Step::Sync(passages) => {
                self.passages.clear();
                self.add(passages);
            }
            Step::Compact => {}
            Step::Reembed => self.version = n,
        }
        self.add([step_passage(n)]);
        self
    }

    fn save(&self, folder: &Path) {
        let passages: Vec<Passage> = self.passages.values().cloned().collect();
        let encoder = Hashes::version(self.version);
        let vectors = encoder.embed_passages(&passages).unwrap();
        let fingerprint = encoder.fingerprint().unwrap();
        let knowledge = KnowledgeBase::new(passages, vectors, Storage::F32, fingerprint);
        knowledge.unwrap().save(folder).unwrap();
    }

    /// Compares passages, vectors, and the answers of searches.
    fn check(&self, knowledge: &KnowledgeBase) {
        let encoder = Hashes::version(self.version);
        knowledge
            .check_encoder(&encoder.fingerprint().unwrap())
            .unwrap();
        assert_eq!(knowledge.len(), self.passages.len());
        let mut positions = BTreeMap::new();
        for (position, passage) in knowledge.passages().enumerate() {
            let passage = passage.unwrap();
            let vectors = knowledge.index().rows(position..position + 1);
            assert_eq!(vectors.row(0), encoder.vector(&passage), "{}", passage.id);
            positions.insert(passage.id.clone(), position);
            assert_eq!(Some(&passage), self.passages.get(&passage.id));
        }
        let query = Array2::from_shape_fn((1, DIMENSION), |(_, i)| (i as f32 - 3.5) * 0.25);
        for filter in [
            None,
            Some(Filter::is("even", true) & Filter::within("text", 1..)),
        ] {
            let among = filter.as_ref().map(|filter| knowledge.matching(filter));
            let among = match among {
                Some(Err(Error::Knowledge(KnowledgeError::UnknownField { .. }))) => continue,
                among => among.map(Result::unwrap),
            };
            let found = knowledge
                .index()
                .search_among(query.view(), 7, among.as_deref())
                .unwrap();
            let mut expected: Vec<(f32, usize)> = (self.passages.values())
                .filter(|passage| filter.as_ref().is_none_or(|filter| filter.matches(passage)))
                .map(|passage| {
                    (
                        encoder.vector(passage).dot(&query.row(0)),
                        positions[&passage.id],
                    )
                })
                .collect();
            expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            expected.truncate(7);
            let found: Vec<_> = found[0]
                .iter()
                .map(|hit| (hit.score, hit.position))
                .collect();
            assert_eq!(found, expected);
        }
    }
}

/// Which step a knowledge base is at.
fn step_of(knowledge: &KnowledgeBase) -> u64 {
    let mut passages = knowledge.passages().map(|passage| passage.unwrap());
    let step = passages.find(|passage| passage.id == "step").unwrap();
    step.text.parse().unwrap()
}

/// Takes the `n`th step and commits it; `version` is the encoder's before and after.
fn take(writer: &mut KnowledgeWriter, n: u64, version: &mut u64) -> KnowledgeBase {
    let encoder = Hashes::version(*version);
    match Step::of(n) {
        Step::Upsert(passages) => {
            writer.upsert(passages, &encoder, |_| {}).unwrap();
        }
        Step::Delete(ids) => {
            writer.delete(&ids);
        }
        Step::Sync(mut passages) => {
            passages.push(step_passage(n));
            writer.sync(passages, &encoder, |_| {}).unwrap();
        }
        Step::Compact | Step::Reembed => {}
    }
    writer
        .upsert(vec![step_passage(n)], &encoder, |_| {})
        .unwrap();
    match Step::of(n) {
        Step::Compact => writer.compact().unwrap(),
        Step::Reembed => {
            // Seen with the old encoder before it is seen with the new.
            *version = n;
            writer
                .reembed(&Hashes::version(n), Storage::F32, |_| {})
                .unwrap()
        }
        _ => writer.commit().unwrap(),
    }
}

#[test]
fn what_is_committed_is_what_a_rebuild_would_give() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = State::first();
    state.save(folder.path());
    let mut version = 0;
    let mut writer = KnowledgeWriter::open(&folder).unwrap();
    let mut snapshots = Vec::new();
    for n in 1..=80 {
        state = state.after(n);
        let knowledge = take(&mut writer, n, &mut version);
        state.check(&knowledge);
        state.check(&KnowledgeBase::open(&folder).unwrap());
        assert_eq!(writer.len(), state.passages.len());
        snapshots.push((knowledge, state.clone()));
        if n % 13 == 0 {
            drop(writer);
            writer = KnowledgeWriter::open(&folder).unwrap();
        }
        if n % 20 == 0 {
            for (knowledge, state) in snapshots.drain(..) {
                state.check(&knowledge);
            }
        }
    }
    let knowledge = writer.compact().unwrap();
    state.check(&knowledge);
    assert_eq!(knowledge.manifest().segments.len(), 1);
    assert_eq!(
        common::files(folder.path()).len(),
        5,
        "nothing is left behind"
    );
}

#[test]
fn only_what_changed_is_read_and_written() {
    let folder = tempfile::tempdir().unwrap();
    State::first().save(folder.path());
    let mut writer = KnowledgeWriter::open(&folder).unwrap();
    let encoder = Hashes::default();
    let mut passages: Vec<Passage> = State::first().passages.into_values().collect();
    let read_again = writer.sync(passages.clone(), &encoder, |_| {}).unwrap();
    let unchanged = Changes {
        unchanged: 101,
        ..Changes::default()
    };
    assert_eq!((read_again, encoder.read()), (unchanged, 0));
    let before = common::files(folder.path());
    writer.commit().unwrap();
    assert_eq!(common::files(folder.path()), before);

    passages[0].text.push_str(", mended");
    passages[1].id = "renamed".to_owned();
    passages[2] = passages[2].clone().with("language", "zh");
    passages.remove(3);
    passages.push(Passage::new("new", "", "news"));
    let mut heard = Vec::new();
    let changes = writer
        .sync(passages, &encoder, |done| heard.push(done))
        .unwrap();
    let expected = Changes {
        added: 2,
        changed: 2,
        deleted: 2,
        unchanged: 97,
        embedded: 2,
    };
    assert_eq!((changes, encoder.read(), heard), (expected, 2, vec![2]));
    let knowledge = writer.commit().unwrap();
    assert_eq!(knowledge.manifest().segments.len(), 2);
    assert_eq!(
        knowledge
            .matching(&Filter::is("language", "zh"))
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn what_cannot_be_done_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::first();
    state.save(folder.path());
    let mut writer = KnowledgeWriter::open(&folder).unwrap();
    assert!(matches!(
        KnowledgeWriter::open(&folder),
        Err(Error::Knowledge(KnowledgeError::Busy { .. }))
    ));
    let encoder = Hashes::default();
    let mut refused = |passages: Vec<Passage>, encoder: &Hashes| {
        let error = writer.upsert(passages, encoder, |_| {}).unwrap_err();
        state.check(&writer.commit().unwrap());
        error
    };
    let new = |id: &str| Passage::new(id, "", "new");
    let error = refused(vec![new("a")], &Hashes::version(3));
    assert!(
        matches!(error, Error::Knowledge(KnowledgeError::OtherEncoder { .. })),
        "{error}"
    );
    let error = refused(vec![new("a"), new("a")], &encoder);
    assert!(
        matches!(error, Error::Document(DocumentError::DuplicateId { .. })),
        "{error}"
    );
    let error = refused(vec![new("a").with("size", f64::NAN)], &encoder);
    assert!(
        matches!(error, Error::Knowledge(KnowledgeError::Metadata { .. })),
        "{error}"
    );
    let failing = Hashes {
        fails_after: Some(1),
        ..Hashes::default()
    };
    refused(vec![new("a"), Passage::new("b", "", "b")], &failing);

    let ids: Vec<&String> = state.passages.keys().collect();
    assert_eq!(writer.delete(&["nobody"]), 0);
    assert_eq!(writer.delete(&ids), 101);
    assert!(writer.is_empty());
    assert!(matches!(
        writer.commit(),
        Err(Error::Knowledge(KnowledgeError::Empty))
    ));
    state.check(&KnowledgeBase::open(&folder).unwrap());
    writer.upsert(vec![new("a")], &encoder, |_| {}).unwrap();
    assert_eq!(writer.commit().unwrap().len(), 1);

    let other = tempfile::tempdir().unwrap();
    let error = KnowledgeWriter::open(&other).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Knowledge(KnowledgeError::NotAKnowledgeBase { .. })
        ),
        "{error}"
    );
    assert!(common::files(other.path()).is_empty());
}

#[test]
fn what_changes_while_segments_merge_stays_changed() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = State::first();
    state.save(folder.path());
    let mut writer = KnowledgeWriter::open(&folder).unwrap();
    let encoder = Hashes::default();
    for n in 1000..1100 {
        // Of the last segments, which are those that merge, one passage changes and one goes.
        let fresh = [passage(n, 1), passage(n + 1000, 1), passage(n - 1, 2)];
        let gone = (n + 999).to_string();
        writer.upsert(fresh.to_vec(), &encoder, |_| {}).unwrap();
        writer.delete(std::slice::from_ref(&gone));
        let knowledge = writer.commit().unwrap();
        state.add(fresh);
        state.passages.remove(&gone);
        state.check(&knowledge);
        let segments = knowledge.manifest().segments.len();
        assert!(segments < 20, "{segments} segments");
    }
    state.check(&KnowledgeBase::open(&folder).unwrap());
}

/// Programs that open, change, commit and end.
#[test]
fn short_lived_writers_merge_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = State::first();
    state.save(folder.path());
    for n in 1..=40 {
        let mut writer = KnowledgeWriter::open(&folder).unwrap();
        let new = passage(1000 + n, n);
        writer
            .upsert(vec![new.clone()], &Hashes::default(), |_| {})
            .unwrap();
        let knowledge = writer.commit().unwrap();
        state.add([new]);
        state.check(&knowledge);
        let segments = knowledge.manifest().segments.len();
        assert!(segments <= 10, "{segments} segments after {n} commits");
    }
}

#[test]
fn an_encoder_that_breaks_its_word_is_refused() {
    #[derive(Debug)]
    struct Broken(usize, usize);

    impl Embedder for Broken {
        fn embed_passages(&self, passages: &[Passage]) -> Result<Array2<f32>> {
            Ok(Array2::ones((passages.len() - self.0, DIMENSION + self.1)))
        }

        fn embed_questions(&self, _: &[&str]) -> Result<Array2<f32>> {
            unreachable!()
        }

        fn fingerprint(&self) -> Result<Fingerprint> {
            Hashes::default().fingerprint()
        }
    }

    let folder = tempfile::tempdir().unwrap();
    State::first().save(folder.path());
    let mut writer = KnowledgeWriter::open(&folder).unwrap();
    let new = || vec![passage(1000, 7)];
    let error = writer.upsert(new(), &Broken(1, 0), |_| {}).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Knowledge(KnowledgeError::Counts {
                passages: 1,
                vectors: 0
            })
        ),
        "{error}"
    );
    let error = writer.upsert(new(), &Broken(0, 1), |_| {}).unwrap_err();
    assert!(
        matches!(error, Error::Index(IndexError::Dimension { found: 9, .. })),
        "{error}"
    );
    State::first().check(&writer.commit().unwrap());
}

#[test]
fn filters_know_their_fields() {
    let folder = tempfile::tempdir().unwrap();
    State::first().save(folder.path());
    let knowledge = KnowledgeBase::open(&folder).unwrap();
    let error = knowledge
        .matching(&Filter::is("odd", true))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("\"odd\"") && error.contains("even, text"),
        "{error}"
    );
}

#[test]
fn embedding_anew_goes_on_where_it_was_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let passages: Vec<Passage> = (0..10_000).map(|id| passage(id, id)).collect();
    let mut state = State::default();
    state.add(passages);
    state.save(folder.path());
    let mut writer = KnowledgeWriter::open(&folder).unwrap();
    let failing = Hashes {
        version: 1,
        fails_after: Some(9_000),
        ..Hashes::default()
    };
    assert!(writer.reembed(&failing, Storage::F16, |_| {}).is_err());
    state.check(&writer.commit().unwrap());
    drop(writer);

    let mut writer = KnowledgeWriter::open(&folder).unwrap();
    let encoder = Hashes::version(1);
    let mut heard = Vec::new();
    let knowledge = writer
        .reembed(&encoder, Storage::F16, |done| heard.push(done))
        .unwrap();
    state.version = 1;
    state.check(&knowledge);
    assert_eq!(knowledge.index().storage(), Storage::F16);
    // Two blocks of 4096 were there.
    assert_eq!(encoder.read(), 10_000 - 2 * 4096);
    assert!(
        heard.is_sorted() && heard.last() == Some(&10_000),
        "{heard:?}"
    );
    assert_eq!(common::files(folder.path()).len(), 5);
    state.check(&KnowledgeBase::open(&folder).unwrap());
}

/// Names the folder to the process that is going to be killed, or starved.
const FOLDER: &str = "BURN_RAG_LIVING_KNOWLEDGE";

fn child(test: &str, folder: &Path) -> Command {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args([test, "--exact", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    child
}

/// The process that [`a_killed_writer_loses_nothing`] kills; nothing by itself.
#[test]
fn writes_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = Path::new(&folder);
    let saved = folder.join("saved");
    let mut writer = KnowledgeWriter::open(&saved).unwrap();
    let begun = writer.commit().unwrap();
    let mut version = u64::from_str_radix(&begun.manifest().encoder.hash, 16).unwrap();
    let step = step_of(&begun);
    fs::write(folder.join("ready"), "").unwrap();
    for n in step + 1.. {
        take(&mut writer, n, &mut version);
        fs::write(folder.join("committed"), n.to_string()).unwrap();
    }
}

#[test]
fn a_killed_writer_loses_nothing() {
    if std::env::var_os(FOLDER).is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("saved");
    let mut state = State::first();
    state.save(&saved);
    let mut at = 0;
    let mut random = Random(u64::from(std::process::id()));
    let mut left_behind = 0;
    for _ in 0..100 {
        let ready = folder.path().join("ready");
        let _ = fs::remove_file(&ready);
        let mut child = child("writes_until_killed", folder.path()).spawn().unwrap();
        while !ready.exists() {
            assert!(
                child.try_wait().unwrap().is_none(),
                "the writer ended by itself"
            );
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(random.below(60_000)));
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        let committed = fs::read_to_string(folder.path().join("committed"));
        let committed: u64 = committed.map_or(0, |step| step.parse().unwrap_or(0));
        let knowledge = KnowledgeBase::open(&saved).unwrap();
        let found = step_of(&knowledge);
        assert!(
            found >= committed,
            "step {committed} was committed, {found} is there"
        );
        for n in at + 1..=found {
            state = state.after(n);
        }
        at = found;
        // Re-embedding commits the passages before the vectors.
        let reembeds = matches!(Step::of(found), Step::Reembed);
        if reembeds && knowledge.manifest().encoder.hash != format!("{:016x}", state.version) {
            let encoder = &knowledge.manifest().encoder.hash;
            let version = u64::from_str_radix(encoder, 16).unwrap();
            let before = State {
                version,
                ..state.clone()
            };
            before.check(&knowledge);
            // The writer goes on with the next step, and its encoder.
            state.version = version;
        } else {
            state.check(&knowledge);
        }
        left_behind += usize::from(
            common::files(&saved)
                .keys()
                .any(|name| name.contains(".writing-")),
        );
    }
    println!("{at} steps, {left_behind} of 100 writes cut off half-way");
    assert!(
        left_behind > 0 && at > 20,
        "the test shows nothing: {left_behind}, {at}"
    );
}

#[test]
fn eight_readers_and_a_writer_for_a_minute() {
    let folder = tempfile::tempdir().unwrap();
    let first = State::first();
    first.save(folder.path());
    let done = AtomicBool::new(false);
    let reads = AtomicUsize::new(0);
    thread::scope(|scope| {
        for reader in 0..8 {
            let (folder, done, reads) = (folder.path(), &done, &reads);
            let mut states = vec![State::first()];
            scope.spawn(move || {
                let mut held: Option<(KnowledgeBase, State)> = None;
                while !done.load(Ordering::Relaxed) {
                    let knowledge = KnowledgeBase::open(folder).unwrap();
                    let step = step_of(&knowledge) as usize;
                    while states.len() <= step {
                        let next = states.len() as u64;
                        states.push(states[states.len() - 1].clone().after(next));
                    }
                    let encoder = &knowledge.manifest().encoder.hash;
                    let state = State {
                        version: u64::from_str_radix(encoder, 16).unwrap(),
                        ..states[step].clone()
                    };
                    let reembeds = matches!(Step::of(step as u64), Step::Reembed);
                    assert!(reembeds || state.version == states[step].version);
                    state.check(&knowledge);
                    if let Some((knowledge, state)) = &held {
                        state.check(knowledge);
                    }
                    if reads.fetch_add(1, Ordering::Relaxed) % 8 == reader {
                        held = Some((knowledge, state));
                    }
                }
            });
        }
        let begun = Instant::now();
        let mut writer = KnowledgeWriter::open(&folder).unwrap();
        let mut version = 0;
        let mut n = 0;
        while begun.elapsed() < Duration::from_secs(60) {
            n += 1;
            take(&mut writer, n, &mut version);
        }
        done.store(true, Ordering::Relaxed);
        println!("{n} commits, {} reads", reads.load(Ordering::Relaxed));
        assert!(n > 20 && reads.load(Ordering::Relaxed) > 20);
    });
}

/// The process whose disk is full in [`a_full_disk_is_an_error_and_nothing_is_lost`].
#[test]
fn writes_to_a_full_disk() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let mut writer = KnowledgeWriter::open(&folder).unwrap();
    let many = (0..20_000).map(|id| passage(id, id)).collect();
    let error = writer.upsert(many, &Hashes::default(), |_| {}).unwrap_err();
    assert!(matches!(error, Error::Core(_)), "{error}");
    State::first().check(&writer.commit().unwrap());
    writer
        .upsert(vec![step_passage(7)], &Hashes::default(), |_| {})
        .unwrap();
    assert_eq!(step_of(&writer.commit().unwrap()), 7);
    fs::write(Path::new(&folder).join("seen"), "").unwrap();
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_and_nothing_is_lost() {
    if std::env::var_os(FOLDER).is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    State::first().save(folder.path());
    let child = child("writes_to_a_full_disk", folder.path());
    // Files of at most 512 KiB; writing more is an error instead of a signal.
    let starved = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 1024; exec \"$@\"", "sh"])
        .arg(child.get_program())
        .args(child.get_args())
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    assert!(
        starved.status.success(),
        "{}",
        String::from_utf8_lossy(&starved.stdout)
    );
    assert!(folder.path().join("seen").exists());
    assert_eq!(step_of(&KnowledgeBase::open(&folder).unwrap()), 7);
}

/// A folder of three segments, two with deleted passages.
fn several_segments(folder: &Path) {
    State::first().save(folder);
    let mut writer = KnowledgeWriter::open(folder).unwrap();
    for n in [1, 2] {
        let passages = (0..6).map(|id| passage(300 * n + id, n));
        writer
            .upsert(passages.collect(), &Hashes::default(), |_| {})
            .unwrap();
        writer.delete(&[(300 * n).to_string(), n.to_string()]);
        writer.commit().unwrap();
    }
}

#[test]
fn a_flipped_byte_anywhere_is_found() {
    let folder = tempfile::tempdir().unwrap();
    several_segments(folder.path());
    let mut looked_at = 0;
    for (name, bytes) in common::files(folder.path()) {
        if name == ".lock" {
            continue;
        }
        let path = folder.path().join(&name);
        for at in (0..bytes.len()).step_by(1 + bytes.len() / 400) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            fs::write(&path, changed).unwrap();
            let error = KnowledgeBase::open(&folder).unwrap_err().to_string();
            assert!(error.contains(&name), "{name}, byte {at}: {error}");
            looked_at += 1;
        }
        fs::write(&path, bytes).unwrap();
    }
    assert!(looked_at > 1000, "{looked_at}");
    KnowledgeBase::open(&folder).unwrap();
}

/// Files of any content are refused, or give errors; never a panic, and never an endless loop.
#[test]
fn whatever_the_files_hold_nothing_panics() {
    let folder = tempfile::tempdir().unwrap();
    several_segments(folder.path());
    let files: Vec<(String, Vec<u8>)> = common::files(folder.path()).into_iter().collect();
    let mut random = Random(5);
    let mut opened = 0;
    for _ in 0..4000 {
        let (name, bytes) = &files[random.below(files.len() as u64) as usize];
        let mut changed = bytes.clone();
        for _ in 0..=random.below(4) {
            if changed.is_empty() {
                break;
            }
            let at = random.below(changed.len() as u64) as usize;
            let end = at + random.below((changed.len() - at) as u64 + 1) as usize;
            match random.below(6) {
                0 => changed.truncate(at),
                1 => drop(changed.drain(at..end)),
                2 => changed[at..end].fill(random.next() as u8),
                3 => changed[at..end].reverse(),
                4 => changed.extend_from_slice(&bytes[..bytes.len().min(at)]),
                _ => changed[at] = random.next() as u8,
            }
        }
        let path = folder.path().join(name);
        fs::write(&path, &changed).unwrap();
        if changed != *bytes && name != ".lock" {
            assert!(KnowledgeBase::open(&folder).is_err(), "{name}");
        }
        if let Ok(knowledge) = KnowledgeBase::open_unverified(&folder) {
            opened += 1;
            for passage in knowledge.passages() {
                let _ = passage;
            }
            let query = Array2::from_elem((1, DIMENSION), 0.5);
            let _ = knowledge.index().search(query.view(), 3);
            let _ = knowledge.matching(&Filter::is("even", true));
        }
        fs::write(&path, bytes).unwrap();
    }
    assert!(opened > 100, "{opened}");
}
