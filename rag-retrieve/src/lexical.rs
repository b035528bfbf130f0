//! Lexical search: the passages that share words with a question, by BM25 (Robertson and Zaragoza
//! 2009) with k1 = 1.2 and b = 0.75.

use std::{
    sync::{Arc, LazyLock},
    vec,
};

use jieba_rs::Jieba;
use rag_core::Passage;
use tantivy::{
    DocAddress, IndexWriter, Order, ReloadPolicy, Searcher, TantivyDocument, TantivyError, Term,
    collector::{
        FilterCollector, TopDocs,
        sort_key::{SortBySimilarityScore, SortByStaticFastValue},
    },
    indexer::NoMergePolicy,
    query::{BooleanQuery, EnableScoring, Occur, Query, TermQuery},
    schema::{FAST, Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions},
    tokenizer::{Language, LowerCaser, Stemmer, TextAnalyzer, Token, TokenStream, Tokenizer},
};
use unicode_segmentation::UnicodeSegmentation;

use crate::{
    error::{Error, Result},
    index::{Hit, error::IndexError},
    knowledge::error::KnowledgeError,
};

/// An inverted index over the words of titles and texts, in memory.
///
/// Words are those of Unicode's segmentation, in lower case and reduced to their English stem; runs of
/// Chinese characters are segmented by jieba. A text may mix both.
///
/// ```
/// use rag_core::Passage;
/// use rag_retrieve::LexicalIndex;
///
/// let passages = [
///     Passage::new("1", "Hamlet", "A prince of Denmark avenges his father."),
///     Passage::new("2", "长江", "长江是中国最长的河流。"),
/// ];
/// let index = LexicalIndex::new(passages.into_iter().map(Ok))?;
/// assert_eq!(index.search("Which princes are Danish, or in Denmark?", 10)?[0].position, 0);
/// assert_eq!(index.search("中国最长的河流是哪条？", 10)?[0].position, 1);
/// # Ok::<(), rag_retrieve::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LexicalIndex {
    searcher: Searcher,
    words: Field,
    /// Where the passage of each position is.
    addresses: Arc<[DocAddress]>,
    /// Over the ids of the passages, in their order.
    ids: blake3::Hash,
}

/// Name of the field that holds a passage's position.
const POSITION: &str = "position";
/// Name under which the index knows [`analyzer`].
const ANALYZER: &str = "words";
/// Bytes of postings that are collected before they are compressed.
const BUFFER: usize = 256 << 20;

impl LexicalIndex {
    /// Indexes passages in their order, such as [`KnowledgeBase::passages`](crate::KnowledgeBase::passages)
    /// gives them; a [`Hit::position`] counts them from 0.
    ///
    /// # Errors
    /// Those of the passages; [`IndexError::Lexical`](crate::IndexError::Lexical).
    pub fn new(passages: impl IntoIterator<Item = Result<Passage>>) -> Result<Self> {
        let mut schema = Schema::builder();
        let indexing = TextFieldIndexing::default()
            .set_tokenizer(ANALYZER)
            .set_index_option(IndexRecordOption::WithFreqs);
        let words = schema.add_text_field(
            "words",
            TextOptions::default().set_indexing_options(indexing),
        );
        let position = schema.add_u64_field(POSITION, FAST);
        let index = tantivy::Index::create_in_ram(schema.build());
        index.tokenizers().register(ANALYZER, analyzer());

        let mut writer: IndexWriter = index.writer_with_num_threads(1, BUFFER).map_err(failed)?;
        writer.set_merge_policy(Box::new(NoMergePolicy));
        let mut len = 0;
        let mut ids = blake3::Hasher::new();
        for passage in passages {
            let passage = passage?;
            add_id(&mut ids, &passage);
            let mut document = TantivyDocument::default();
            document.add_text(words, &passage.title);
            document.add_text(words, &passage.text);
            document.add_u64(position, len as u64);
            writer.add_document(document).map_err(failed)?;
            len += 1;
        }
        writer.commit().map_err(failed)?;
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual);
        let searcher = reader.try_into().map_err(failed)?.searcher();
        Ok(Self {
            addresses: addresses(&searcher, len).map_err(failed)?,
            searcher,
            words,
            ids: ids.finalize(),
        })
    }

    /// Whether it is of these passages, by their ids and in this order.
    pub(crate) fn is_of(
        &self,
        passages: impl IntoIterator<Item = Result<Passage>>,
    ) -> Result<bool> {
        let mut ids = blake3::Hasher::new();
        for passage in passages {
            add_id(&mut ids, &passage?);
        }
        Ok(ids.finalize() == self.ids)
    }

    /// The best `k` of the passages that share a word with `question`, best first, among equals the
    /// lower position. The question is plain text: no sign in it has a meaning. A word that it repeats
    /// counts as often.
    ///
    /// # Errors
    /// [`IndexError::Lexical`](crate::IndexError::Lexical).
    pub fn search(&self, question: &str, k: usize) -> Result<Vec<Hit>> {
        self.search_among(question, k, None)
    }

    /// Like [`LexicalIndex::search`], of the passages at the positions `among`, which rise; of all for `None`.
    ///
    /// # Errors
    /// [`IndexError::Lexical`](crate::IndexError::Lexical).
    ///
    /// # Panics
    /// If a position is not below [`LexicalIndex::len`].
    pub fn search_among(
        &self,
        question: &str,
        k: usize,
        among: Option<&[usize]>,
    ) -> Result<Vec<Hit>> {
        let k = k.min(among.map_or(self.len(), <[usize]>::len));
        let words = self.words(question);
        if words.is_empty() || k == 0 {
            return Ok(Vec::new());
        }
        // The position is part of the order since segments stand in no order of their own.
        let best = TopDocs::with_limit(k).order_by((
            (SortBySimilarityScore, Order::Desc),
            (
                SortByStaticFastValue::<u64>::for_field(POSITION),
                Order::Asc,
            ),
        ));
        let query = BooleanQuery::new(words);
        let found = match among {
            Some(among) => {
                let mut allowed = vec![false; self.len()];
                among.iter().for_each(|&position| allowed[position] = true);
                // Every segment takes a copy.
                let allowed: Arc<[bool]> = allowed.into();
                let allowed = move |position: u64| allowed[position as usize];
                let best = FilterCollector::new(POSITION.to_owned(), allowed, best);
                self.searcher.search(&query, &best)
            }
            None => self.searcher.search(&query, &best),
        };
        Ok(found
            .map_err(failed)?
            .into_iter()
            .filter_map(|((score, position), _)| {
                let position = position? as usize;
                Some(Hit { position, score })
            })
            .collect())
    }

    /// The scores for `question` of the passages at `positions`, in their order: what
    /// [`LexicalIndex::search`] gives those that it finds, 0 for those that share no word.
    ///
    /// # Errors
    /// [`IndexError::Lexical`](crate::IndexError::Lexical), [`KnowledgeError::Position`].
    pub fn scores(&self, question: &str, positions: &[usize]) -> Result<Vec<f32>> {
        let len = self.len();
        let mut wanted = Vec::with_capacity(positions.len());
        for (place, &position) in positions.iter().enumerate() {
            let address = self.addresses.get(position);
            let address =
                address.ok_or(Error::Knowledge(KnowledgeError::Position { position, len }))?;
            wanted.push((*address, place));
        }
        let mut scores = vec![0.0; positions.len()];
        let words = self.words(question);
        if words.is_empty() {
            return Ok(scores);
        }
        // Postings are read forwards only.
        wanted.sort_unstable();
        let segment = |(address, _): &(DocAddress, usize)| address.segment_ord;
        let read = || -> tantivy::Result<()> {
            let scoring = EnableScoring::enabled_from_searcher(&self.searcher);
            let weight = BooleanQuery::new(words).weight(scoring)?;
            for some in wanted.chunk_by(|a, b| segment(a) == segment(b)) {
                let postings = self.searcher.segment_reader(segment(&some[0]));
                let mut scorer = weight.scorer(postings, 1.0)?;
                for &(DocAddress { doc_id, .. }, place) in some {
                    if scorer.doc() < doc_id {
                        scorer.seek(doc_id);
                    }
                    if scorer.doc() == doc_id {
                        scores[place] = scorer.score();
                    }
                }
            }
            Ok(())
        };
        read().map_err(failed)?;
        Ok(scores)
    }

    /// Passages in the index.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Whether the index holds no passage.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    fn words(&self, question: &str) -> Vec<(Occur, Box<dyn Query>)> {
        let mut words: Vec<(Occur, Box<dyn Query>)> = Vec::new();
        analyzer().token_stream(question).process(&mut |token| {
            let term = Term::from_field_text(self.words, &token.text);
            let query = TermQuery::new(term, IndexRecordOption::WithFreqs);
            words.push((Occur::Should, Box::new(query)));
        });
        words
    }
}

fn add_id(ids: &mut blake3::Hasher, passage: &Passage) {
    ids.update(&passage.id.len().to_le_bytes());
    ids.update(passage.id.as_bytes());
}

/// Where the passages of positions 0 to `len` are.
fn addresses(searcher: &Searcher, len: usize) -> tantivy::Result<Arc<[DocAddress]>> {
    let mut addresses = vec![DocAddress::new(0, 0); len];
    for (segment, reader) in searcher.segment_readers().iter().enumerate() {
        let positions = reader.fast_fields().u64(POSITION)?;
        for document in 0..reader.max_doc() {
            if let Some(position) = positions.first(document) {
                addresses[position as usize] = DocAddress::new(segment as u32, document);
            }
        }
    }
    Ok(addresses.into())
}

fn failed(source: TantivyError) -> Error {
    Error::Index(IndexError::Lexical {
        source: Box::new(source),
    })
}

/// The same for passages and questions.
fn analyzer() -> TextAnalyzer {
    TextAnalyzer::builder(Words)
        .filter(LowerCaser)
        .filter(Stemmer::new(Language::English))
        .build()
}

/// Splits a text in any mixture of scripts into words.
#[derive(Clone)]
struct Words;

struct WordStream {
    rest: vec::IntoIter<Token>,
    token: Token,
}

impl Tokenizer for Words {
    type TokenStream<'a> = WordStream;

    fn token_stream(&mut self, text: &str) -> WordStream {
        let tokens: Vec<Token> = words(text)
            .into_iter()
            .enumerate()
            .map(|(position, word)| Token {
                position,
                text: word.to_owned(),
                ..Token::default()
            })
            .collect();
        WordStream {
            rest: tokens.into_iter(),
            token: Token::default(),
        }
    }
}

impl TokenStream for WordStream {
    fn advance(&mut self) -> bool {
        let next = self.rest.next();
        let found = next.is_some();
        self.token = next.unwrap_or_default();
        found
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}

fn words(text: &str) -> Vec<&str> {
    static JIEBA: LazyLock<Jieba> = LazyLock::new(Jieba::new);
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest
            .find(|next| is_han(next) != is_han(first))
            .unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        if is_han(first) {
            // Search mode gives the parts of a long word beside it, so that a question may use either.
            // Words that the dictionary lacks stay characters: jieba's model would guess them by what
            // stands around them, which is not the same in a question as in a passage.
            let found = JIEBA.cut_for_search(run, false);
            words.extend(found.into_iter().map(|token| token.word));
        } else {
            words.extend(run.unicode_words());
        }
        rest = after;
    }
    words
}

fn is_han(character: char) -> bool {
    matches!(character, '\u{3005}'..='\u{3007}' | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}'
        | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(texts: &[&str]) -> LexicalIndex {
        let passages = texts.iter().map(|text| Ok(Passage::new("", "", *text)));
        LexicalIndex::new(passages).unwrap()
    }

    fn positions(index: &LexicalIndex, question: &str) -> Vec<usize> {
        let hits = index.search(question, 100).unwrap();
        hits.iter().map(|hit| hit.position).collect()
    }

    #[test]
    fn scores_are_bm25_worked_by_hand() {
        // Lengths 3, 1, 2: the mean is 2. "cat" is in 2 of 3 passages, "dog" in 1.
        let index = index(&["cat cat mat", "dog", "cat hat"]);
        let idf = |with: f32| (1.0 + (3.0 - with + 0.5) / (with + 0.5)).ln();
        let bm25 = |with: f32, count: f32, length: f32| {
            idf(with) * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * length / 2.0))
        };
        let hits = index.search("Cats, cats and a dog", 3).unwrap();
        let found: Vec<_> = hits.iter().map(|hit| (hit.position, hit.score)).collect();
        // "cat" stands twice in the question.
        let expected = [
            (0, 2.0 * bm25(2.0, 2.0, 3.0)),
            (1, bm25(1.0, 1.0, 1.0)),
            (2, 2.0 * bm25(2.0, 1.0, 2.0)),
        ];
        for (position, score) in expected {
            let (_, found) = found.iter().find(|(found, _)| *found == position).unwrap();
            assert!((found - score).abs() < 1e-5, "{position}: {found} {score}");
        }
        assert!(found.windows(2).all(|pair| pair[0].1 >= pair[1].1));
    }

    #[test]
    fn words_of_two_scripts_in_one_text() {
        let words = words("“Don't” 南京市长江大桥 TGF-β，3.14《红楼梦》U.S.");
        for word in ["Don't", "长江", "大桥", "TGF", "β", "3.14", "红楼梦", "U.S"] {
            assert!(words.contains(&word), "{word} in {words:?}");
        }
        assert!(!words.iter().any(|word| word.contains(['，', '《', '“'])));
    }

    #[test]
    fn stems_case_and_titles_count() {
        let titled = [
            Passage::new("", "Running", "far away"),
            Passage::new("", "", "THE RUNNER'S runs"),
            Passage::new("", "", "walks"),
        ];
        let index = LexicalIndex::new(titled.into_iter().map(Ok)).unwrap();
        let mut found = positions(&index, "run");
        found.sort_unstable();
        assert_eq!(found, [0, 1]);
    }

    #[test]
    fn chinese_is_found_by_words_not_characters() {
        let index = index(&["李白是唐代诗人。", "白天的李子树", "iPhone手机价格"]);
        assert_eq!(positions(&index, "李白"), [0]);
        assert_eq!(positions(&index, "诗人是谁？")[0], 0);
        assert_eq!(positions(&index, "IPHONE 多少钱"), [2]);
    }

    #[test]
    fn a_question_has_no_syntax() {
        let index = index(&["cats and dogs", "cats", "birds"]);
        let plain = index.search("cats dogs", 9).unwrap();
        for question in [
            "cats -dogs",
            "\"cats dogs",
            "words: cats (dogs",
            "+cats^2 dogs~ \\",
            "cats* dogs]",
        ] {
            let hits = index.search(question, 9).unwrap();
            let found: Vec<_> = hits.iter().map(|hit| hit.position).collect();
            assert_eq!(found, [0, 1], "{question}");
        }
        assert_eq!(plain, index.search("cats' \"dogs\"", 9).unwrap());
        // "NOT" and "AND" are words; the last is in a passage.
        assert_eq!(positions(&index, "birds NOT cats")[0], 2);
    }

    #[test]
    fn scores_of_chosen_passages_are_those_of_the_search() {
        let texts: Vec<String> = (0..500)
            .map(|i| format!("{} dog {}", "cat ".repeat(i % 4), "mat ".repeat(i % 3)))
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let index = index(&texts);
        let question = "cats on a mat, cat";
        let mut expected = vec![0.0; texts.len()];
        for hit in index.search(question, texts.len()).unwrap() {
            expected[hit.position] = hit.score;
        }
        let positions = [499, 0, 12, 7, 7, 251];
        let found = index.scores(question, &positions).unwrap();
        for (position, score) in positions.into_iter().zip(found) {
            assert!((score - expected[position]).abs() < 1e-5, "{position}");
        }
        assert_eq!(expected[0], 0.0);
        assert_eq!(index.scores("?!", &[3]).unwrap(), [0.0]);
        let error = index.scores("cat", &[500]).unwrap_err();
        assert!(matches!(
            error,
            Error::Knowledge(KnowledgeError::Position {
                position: 500,
                len: 500
            })
        ));

        let mut best = index.search(question, texts.len()).unwrap();
        best.retain(|hit| hit.position % 5 == 2);
        best.truncate(7);
        let among: Vec<usize> = (2..500).step_by(5).collect();
        let found = index.search_among(question, 7, Some(&among)).unwrap();
        assert_eq!(found, best);
    }

    #[test]
    fn no_word_in_common_is_no_hit() {
        let index = index(&["cats", ""]);
        for question in ["", " ?!", "horse", "马"] {
            assert!(positions(&index, question).is_empty(), "{question}");
        }
        assert!(index.search("cats", 0).unwrap().is_empty());
        let empty = LexicalIndex::new([]).unwrap();
        assert!(empty.is_empty() && positions(&empty, "cats").is_empty());
    }

    #[test]
    fn equals_stand_by_position_and_k_cuts_there() {
        let texts: Vec<String> = (0..6000).map(|i| format!("the cat {}", i % 3)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let index = index(&texts);
        let hits = index.search("cat 1 the", 2500).unwrap();
        let found: Vec<_> = hits.iter().map(|hit| hit.position).collect();
        let with_1 = (1..6000).step_by(3);
        let others = (0..6000).filter(|i| i % 3 != 1);
        let expected: Vec<_> = with_1.chain(others).take(2500).collect();
        assert_eq!(found, expected);
        assert_eq!(hits, index.search("cat 1 the", 2500).unwrap());
    }

    #[test]
    fn errors_of_passages_are_kept() {
        let failed = LexicalIndex::new([Err(KnowledgeError::Empty.into())]);
        assert!(matches!(
            failed,
            Err(Error::Knowledge(KnowledgeError::Empty))
        ));
    }
}
