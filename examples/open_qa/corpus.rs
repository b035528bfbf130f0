//! Passages, and questions about them: to train on, and to measure on.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
};

use burn_rag::{prelude::*, train::unanswerable};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::{Failure, arguments::Tuning, output::fingerprint};

/// Passages to answer from, and questions with answers.
pub struct Corpus {
    /// All of them: those of the training questions first.
    pub passages: Vec<Passage>,
    /// How many of them the training questions are about.
    pub train_passages: usize,
    /// Tells this corpus from others.
    pub fingerprint: String,
    /// In an order of their own, which is the same in every run.
    train: Vec<QuestionAnswer>,
    dev: Vec<QuestionAnswer>,
}

/// Words of a passage that is cut from a document.
const WORDS: usize = 100;
/// One question in so many is held out, where nobody has done it.
const HELD_OUT: usize = 5;

impl Corpus {
    /// A folder with `train` and `dev`; or documents, with `pairs` in a file.
    pub fn read(folder: &Path, pairs: Option<&Path>) -> Result<Self, Failure> {
        let (mut corpus, unusable) = match pairs {
            Some(pairs) => Self::of_documents(folder, pairs)?,
            None => Self::of_splits(folder)?,
        };
        if unusable > 0 {
            eprintln!("warning: {unusable} pairs without a question or an answer are left out");
        }
        for (what, pairs) in [("train", &corpus.train), ("measure", &corpus.dev)] {
            if pairs.is_empty() {
                return Err(format!("{}: no question to {what} on", folder.display()).into());
            }
        }
        corpus.train.shuffle(&mut StdRng::seed_from_u64(0));
        Ok(corpus)
    }

    fn of_splits(folder: &Path) -> Result<(Self, usize), Failure> {
        if !folder.join("train").is_dir() || !folder.join("dev").is_dir() {
            return Err(format!(
                "{}: expected the folders train and dev, each with passages.jsonl and qa.jsonl; of documents, give the \
                 questions with --pairs",
                folder.display()
            )
            .into());
        }
        let (mut train, unusable) = Split::read(folder, "train")?;
        let (dev, more) = Split::read(folder, "dev")?;
        let files = ["train", "dev"].map(|split| fingerprint(&folder.join(split)));
        let train_passages = train.passages.len();
        train.passages.extend(dev.passages);
        let corpus = Self {
            passages: train.passages,
            train_passages,
            fingerprint: files.into_iter().collect::<Result<Vec<_>, _>>()?.join("+"),
            train: train.pairs,
            dev: dev.pairs,
        };
        Ok((corpus, unusable + more))
    }

    fn of_documents(documents: &Path, path: &Path) -> Result<(Self, usize), Failure> {
        let passages = Documents::read(documents, &Chunking::words(WORDS))?;
        eprintln!("{passages}");
        let (pairs, unusable) = pairs(path)?;
        let (train, dev) = split(pairs);
        let corpus = Self {
            train_passages: passages.passages.len(),
            passages: passages.passages,
            fingerprint: format!("{}+{}", fingerprint(documents)?, fingerprint(path)?),
            train,
            dev,
        };
        Ok((corpus, unusable))
    }

    /// Questions to tune the encoder on.
    pub fn pairs_for_encoder(&self, tuning: &Tuning) -> &[QuestionAnswer] {
        &self.train[..tuning.tuning_questions.min(self.train.len())]
    }

    /// Questions to fit the weights of P(z|x) to: the encoder has not learnt them, where there are enough.
    pub fn pairs_for_prior(&self, tuning: &Tuning) -> &[QuestionAnswer] {
        let rest = &self.train[self.pairs_for_encoder(tuning).len()..];
        let enough = rest.len() >= tuning.prior_questions;
        let from = if enough { rest } else { &self.train };
        &from[..tuning.prior_questions.min(from.len())]
    }

    /// `count` questions to train the language model on, drawn by `seed`: the retriever has not learnt them, where there
    /// are enough. Where there are too few of all, they come again.
    pub fn pairs_for_generator(
        &self,
        tuning: &Tuning,
        count: usize,
        seed: u64,
    ) -> Vec<QuestionAnswer> {
        let learnt = tuning.tuning_questions + tuning.prior_questions;
        let rest = self.train.get(learnt..).unwrap_or_default();
        let mut drawn = match rest.len() >= count {
            true => rest.to_vec(),
            false => self.train.clone(),
        };
        drawn.shuffle(&mut StdRng::seed_from_u64(seed));
        drawn.into_iter().cycle().take(count).collect()
    }

    /// `count` held-out questions, evenly spread, or all.
    pub fn questions(&self, count: usize) -> Vec<QuestionAnswer> {
        let all = self.dev.len();
        let count = count.clamp(1, all);
        (0..count)
            .map(|i| self.dev[i * all / count].clone())
            .collect()
    }

    /// The passage that answers, where the pair names one.
    pub fn gold(&self, pair: &QuestionAnswer) -> Option<&Passage> {
        let name = pair.passage.as_ref()?;
        self.passages.iter().find(|passage| passage.id == *name)
    }

    /// The document that the pair is about, as far as that is known: the title of its passage, or what it names; else the
    /// question itself.
    pub fn document<'a>(&'a self, pair: &'a QuestionAnswer) -> &'a str {
        let title = self.gold(pair).map(|passage| &passage.title[..]);
        let title = title.filter(|title| !title.is_empty());
        title.or(pair.passage.as_deref()).unwrap_or(&pair.question)
    }

    /// Says what no training can mend.
    pub fn warn(
        &self,
        rag: &Rag,
        pairs: &[QuestionAnswer],
        questions: &[QuestionAnswer],
    ) -> Result<(), Failure> {
        let longest = rag.generation().max_new_tokens.unwrap_or(usize::MAX);
        let of = [(pairs, "training"), (questions, "held-out")];
        for (pairs, which) in of {
            let unanswerable = unanswerable(pairs, &self.passages);
            if let Some(&first) = unanswerable.first() {
                eprintln!(
                    "warning: of {} of the {} {which} questions no accepted answer is in any passage, such as {:?}",
                    unanswerable.len(),
                    pairs.len(),
                    pairs[first].question
                );
            }
            let mut long = Vec::new();
            for pair in pairs {
                // Training reads the first answer; a held-out question may be answered by any.
                let read = if which == "training" { 1 } else { usize::MAX };
                let lengths = pair.answers.iter().take(read);
                let lengths = lengths.map(|answer| Ok(rag.answer_tokens(answer)?.len()));
                let lengths: Vec<usize> = lengths.collect::<burn_rag::Result<_>>()?;
                long.extend((lengths.iter().all(|&length| length > longest)).then_some(pair));
            }
            if let Some(first) = long.first() {
                eprintln!(
                    "warning: of {} of the {} {which} questions the answer takes more than --new-tokens {longest}, such as \
                     {:?} of {:?}",
                    long.len(),
                    pairs.len(),
                    first.answers[0],
                    first.question
                );
            }
        }
        Ok(())
    }
}

/// One folder of a corpus.
struct Split {
    passages: Vec<Passage>,
    pairs: Vec<QuestionAnswer>,
}

impl Split {
    /// Ids get the folder's name: both folders may count from 0.
    fn read(folder: &Path, name: &str) -> Result<(Self, usize), Failure> {
        let folder = folder.join(name);
        let whole = Chunking::words(usize::MAX);
        let mut passages = Documents::read(folder.join("passages.jsonl"), &whole)?.passages;
        let ids: HashSet<String> = passages.iter().map(|passage| passage.id.clone()).collect();
        for passage in &mut passages {
            passage.id = format!("{name}/{}", passage.id);
        }
        let (mut pairs, unusable) = pairs(&folder.join("qa.jsonl"))?;
        for pair in &mut pairs {
            // Others name a title.
            if let Some(id) = pair.passage.as_mut().filter(|id| ids.contains(*id)) {
                *id = format!("{name}/{id}");
            }
        }
        Ok((Self { passages, pairs }, unusable))
    }
}

/// The pairs of a file, and how many have no question or no answer.
fn pairs(path: &Path) -> Result<(Vec<QuestionAnswer>, usize), Failure> {
    let text = fs::read_to_string(path).map_err(burn_rag::core::Error::io(path))?;
    let (mut pairs, mut unusable) = (Vec::new(), 0);
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let pair: QuestionAnswer = serde_json::from_str(line).map_err(|error| {
            format!(
                "{}, line {number}: expected {{\"question\", \"answers\", \"passage_id\"?}}: {error}",
                path.display()
            )
        })?;
        let answered = pair
            .answers
            .first()
            .is_some_and(|answer| !answer.trim().is_empty());
        match answered && !pair.question.trim().is_empty() {
            true => pairs.push(pair),
            false => unusable += 1,
        }
    }
    Ok((pairs, unusable))
}

/// Holds out a part of the pairs: all that name one passage, or none of them.
fn split(pairs: Vec<QuestionAnswer>) -> (Vec<QuestionAnswer>, Vec<QuestionAnswer>) {
    let most = pairs.len().div_ceil(HELD_OUT);
    let mut groups: Vec<Vec<QuestionAnswer>> = Vec::new();
    let mut of_passage: HashMap<String, usize> = HashMap::new();
    for pair in pairs {
        let next = groups.len();
        let group = match &pair.passage {
            Some(name) => *of_passage.entry(name.clone()).or_insert(next),
            None => next,
        };
        match groups.get_mut(group) {
            Some(group) => group.push(pair),
            None => groups.push(vec![pair]),
        }
    }
    groups.shuffle(&mut StdRng::seed_from_u64(0));
    let (mut train, mut dev) = (Vec::new(), Vec::new());
    for group in groups {
        let side = match dev.len() + group.len() <= most {
            true => &mut dev,
            false => &mut train,
        };
        side.extend(group);
    }
    (train, dev)
}
