//! The weights of vectors and words that a retriever has by default, learnt from the passages alone.

use unicode_segmentation::UnicodeSegmentation;

use super::{Retriever, one_each};
use crate::{
    error::Result,
    index::{Index, check_queries},
    knowledge::KnowledgeBase,
    prior::PriorWeights,
    retriever::error::RetrieverError,
};

/// Passages that questions are made of, and that each question's passage is told from.
const PASSAGES: usize = 128;
/// Questions that are embedded at once.
const AT_ONCE: usize = 32;
/// Bytes of a question: six English words, twelve Chinese characters.
const BYTES: usize = 36;
/// Most bytes of a question, where a word is a page long.
const MOST_BYTES: usize = 2 * BYTES;
/// The share of each of the two opinions.
const SHARE: f32 = 0.5;
/// Standard deviation of what is believed of τ beforehand, for scores of root mean square 1. It matters only where all
/// of a few passages are found, and any larger τ would be likelier.
const BELIEVED: f64 = 10.0;
/// Times that the interval with the likeliest τ is halved.
const HALVINGS: usize = 60;

impl Retriever {
    /// The weights of vectors and words by default: two opinions on P(z|x), multiplied with equal shares (the logarithmic
    /// opinion pool; Genest and Zidek 1986),
    ///
    /// ```text
    /// P(z|x) ∝ exp(τ · dense)^½ · exp(BM25)^½
    /// ```
    ///
    /// BM25 is an estimate of the log-odds of relevance (Robertson and Zaragoza 2009), and needs no scale. The
    /// inner product's, τ, is learnt: a run of words of a passage stands for a question, of which the passage is the
    /// right one, as in the inverse cloze task (Lee, Chang and Toutanova 2019). τ makes the right passages likeliest
    /// among 128, which are spread evenly over all: the likeliest scale among passages drawn at random is, but for chance,
    /// that among all (McFadden 1978). Where an encoder cannot tell passages apart, it is 0.
    pub(super) fn pooled(&self) -> Result<PriorWeights> {
        let knowledge = self.local()?;
        let clozes = clozes(knowledge)?;
        let scores = self.cloze_scores(knowledge, &clozes);
        let scores = scores.map_err(|source| RetrieverError::DefaultWeights {
            source: Box::new(source),
        })?;
        Ok(PriorWeights {
            dense: SHARE * likeliest_scale(&scores) as f32,
            lexical: SHARE,
            rerank: 0.0,
        })
    }

    /// For each question, how far the scores of the other questions' passages lie above the score of its own.
    fn cloze_scores(
        &self,
        knowledge: &KnowledgeBase,
        clozes: &[(usize, String)],
    ) -> Result<Vec<Vec<f64>>> {
        let (positions, questions): (Vec<usize>, Vec<&str>) = clozes
            .iter()
            .map(|(position, text)| (*position, text.as_str()))
            .unzip();
        if questions.is_empty() {
            return Ok(Vec::new());
        }
        let index = knowledge.index();
        let passages = index.gather(&positions);
        let mut differences = Vec::with_capacity(questions.len());
        for some in questions.chunks(AT_ONCE) {
            let vectors = self.question_encoder.embed_questions(some)?;
            one_each(some, &vectors)?;
            check_queries(vectors.view(), index.dimension())?;
            for scores in vectors.dot(&passages.t()).rows() {
                let own = differences.len();
                let others = scores.iter().enumerate().filter(|(other, _)| *other != own);
                let difference = |(_, score): (_, &f32)| f64::from(*score) - f64::from(scores[own]);
                differences.push(others.map(difference).collect());
            }
        }
        Ok(differences)
    }
}

/// Positions of passages, evenly spread, each with a run of its words.
fn clozes(knowledge: &KnowledgeBase) -> Result<Vec<(usize, String)>> {
    let count = PASSAGES.min(knowledge.len());
    let mut clozes = Vec::with_capacity(count);
    for which in 0..count {
        let position = which * knowledge.len() / count;
        let passage = knowledge.passage(position)?;
        // Multiples of the golden section are spread evenly, however many there are.
        let at = (which as f64 * 0.618_033_988_75).fract();
        if let Some(words) = run_of_words(&passage.text, at) {
            clozes.push((position, words.to_owned()));
        }
    }
    Ok(clozes)
}

/// Words of `text` in a row, [`BYTES`] long or a little longer; of all that could be, the one that begins `at` of the
/// way, 0 to 1, from the first to the last.
fn run_of_words(text: &str, at: f64) -> Option<&str> {
    let words: Vec<(usize, usize)> = text
        .unicode_word_indices()
        .map(|(start, word)| (start, start + word.len()))
        .collect();
    let &(_, end) = words.last()?;
    let full = words
        .partition_point(|(start, _)| end - start >= BYTES)
        .max(1);
    let first = ((at * full as f64) as usize).min(full - 1);
    let (start, _) = words[first];
    let reaches = |&&(_, stop): &&(usize, usize)| stop - start >= BYTES;
    let stop = words[first..]
        .iter()
        .find(reaches)
        .map_or(end, |word| word.1);
    let stop = text.floor_char_boundary(stop.min(start + MOST_BYTES));
    Some(&text[start..stop])
}

/// The τ ≥ 0 that maximises `Σ log P(right)`, where `P(right) = 1 / (1 + Σ exp(τ · difference))` for each question's
/// differences, with a wide normal belief about τ around 0.
fn likeliest_scale(differences: &[Vec<f64>]) -> f64 {
    let all = || differences.iter().flatten();
    let squares: f64 = all().map(|difference| difference * difference).sum();
    let size = (squares / all().count().max(1) as f64).sqrt();
    if size == 0.0 || !size.is_finite() {
        return 0.0;
    }
    // Falls as τ rises, so that it has one zero at most.
    let slope = |scale: f64| {
        let of_questions = differences.iter().map(|differences| {
            let most = differences.iter().copied().fold(0.0, f64::max) / size;
            let (mut weights, mut sum) = ((-scale * most).exp(), 0.0);
            for difference in differences {
                let difference = difference / size;
                let weight = (scale * (difference - most)).exp();
                weights += weight;
                sum += weight * difference;
            }
            -sum / weights
        });
        of_questions.sum::<f64>() - scale / (BELIEVED * BELIEVED)
    };
    if slope(0.0) <= 0.0 {
        return 0.0;
    }
    let mut most = 1.0;
    while slope(most) > 0.0 {
        most *= 2.0;
    }
    let mut least = 0.0;
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(least, most);
        match slope(middle) > 0.0 {
            true => least = middle,
            false => most = middle,
        }
    }
    least / size
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2};
    use rag_core::Passage;

    use super::*;
    use crate::{
        encoder::Embedder,
        filter::Filter,
        fuse::Fusion,
        index::Storage,
        knowledge::{Fingerprint, build_knowledge_base},
        lexical::LexicalIndex,
    };

    const DIMENSION: usize = 256;
    const WORDS: u64 = 300;

    /// Vectors of texts in an artificial language, in which `xa12` is another word for `a12`.
    #[derive(Clone, Copy, Debug)]
    enum Synthetic {
        /// The sum of the vectors of the words.
        Understands,
        /// The same, of words of the first half of the vocabulary alone.
        UnderstandsHalf,
        /// A vector that says nothing of the text.
        Random,
    }

    impl Synthetic {
        fn vectors<'a>(self, texts: impl ExactSizeIterator<Item = &'a str>) -> Array2<f32> {
            let mut vectors = Array2::zeros((texts.len(), DIMENSION));
            for (text, mut row) in texts.zip(vectors.rows_mut()) {
                let mut sum: Array1<f32> = noise(text) * 1e-3;
                match self {
                    Self::Random => sum = noise(text),
                    _ => {
                        let words = text.split(' ').map(|word| word.trim_start_matches('x'));
                        let is_read = |word: &str| {
                            let number = word[1..].parse::<u64>().unwrap();
                            matches!(self, Self::Understands) || number < WORDS / 2
                        };
                        words
                            .filter(|word| is_read(word))
                            .for_each(|word| sum += &noise(word));
                    }
                }
                row.assign(&(&sum / sum.dot(&sum).sqrt()));
            }
            vectors
        }
    }

    impl Embedder for Synthetic {
        fn embed_passages(&self, passages: &[Passage]) -> Result<Array2<f32>> {
            Ok(self.vectors(passages.iter().map(|passage| passage.text.as_str())))
        }

        fn embed_questions(&self, questions: &[&str]) -> Result<Array2<f32>> {
            Ok(self.vectors(questions.iter().copied()))
        }

        fn fingerprint(&self) -> Result<Fingerprint> {
            Ok(Fingerprint::new(
                format!("{self:?}"),
                "an artificial language",
            ))
        }
    }

    fn noise(of: &str) -> Array1<f32> {
        let mut bytes = [0; DIMENSION];
        let mut hasher = blake3::Hasher::new();
        hasher.update(of.as_bytes()).finalize_xof().fill(&mut bytes);
        bytes.iter().map(|&byte| f32::from(byte) - 127.5).collect()
    }

    fn draw(of: &str, below: u64) -> u64 {
        let hash = blake3::hash(of.as_bytes());
        let bytes: [u8; 8] = hash.as_bytes()[..8].try_into().unwrap();
        u64::from_le_bytes(bytes) % below
    }

    /// Passages of 30 words, and for each a question of six of its words.
    fn corpus() -> (Vec<Passage>, Vec<String>) {
        let texts: Vec<Vec<String>> = (0..200)
            .map(|passage| {
                let word = |at| format!("a{}", draw(&format!("{passage} {at}"), WORDS));
                (0..30).map(word).collect()
            })
            .collect();
        let questions = texts.iter().map(|words| words[8..14].join(" "));
        let questions = questions.collect();
        let passages = texts.iter().zip(0..).map(|(words, n)| {
            Passage::new(n.to_string(), "", words.join(" ")).with("even", n % 2 == 0)
        });
        (passages.collect(), questions)
    }

    fn retriever(encoder: Synthetic) -> Retriever {
        let (passages, _) = corpus();
        let knowledge = build_knowledge_base(passages, &encoder, Storage::F32, |_| ()).unwrap();
        Retriever::new(encoder, encoder, knowledge, 1).unwrap()
    }

    fn hybrid(encoder: Synthetic) -> Retriever {
        let retriever = retriever(encoder);
        let words = LexicalIndex::new(retriever.local().unwrap().passages()).unwrap();
        retriever.with_lexical(words).unwrap()
    }

    /// The share of questions whose passage comes first: by vectors, by words, by both, and by both ranks.
    fn recall(encoder: Synthetic, questions: &[String]) -> [f32; 4] {
        let questions: Vec<&str> = questions.iter().map(String::as_str).collect();
        let share = |first: Vec<Option<usize>>| {
            let right = first
                .iter()
                .zip(0..)
                .filter(|(first, at)| **first == Some(*at));
            right.count() as f32 / questions.len() as f32
        };
        let both = hybrid(encoder);
        let by_words = questions.iter().map(|question| {
            let best = both.lexical().unwrap().search(question, 1).unwrap();
            best.first().map(|hit| hit.position)
        });
        let by_words = share(by_words.collect());
        let ranks = both.clone().with_fusion(Fusion::Ranks);
        let [vectors, both, ranks] = [retriever(encoder), both, ranks].map(|retriever| {
            let found = retriever.retrieve(&questions).unwrap();
            share(found.iter().map(|found| Some(found[0].position)).collect())
        });
        [vectors, by_words, both, ranks]
    }

    #[test]
    fn vectors_that_tell_nothing_change_nothing() {
        let (_, questions) = corpus();
        let [vectors, words, both, ranks] = recall(Synthetic::Random, &questions);
        assert!(vectors < 0.05 && words > 0.95, "{vectors} {words}");
        assert!(both >= words, "{both} {words}");
        assert!(ranks < words - 0.2, "{ranks} {words}");
    }

    #[test]
    fn words_that_never_match_change_nothing() {
        let (_, mut questions) = corpus();
        for question in &mut questions {
            *question = format!("x{}", question.replace(' ', " x"));
        }
        let [vectors, words, both, _] = recall(Synthetic::Understands, &questions);
        assert!(vectors > 0.5 && words < 0.05, "{vectors} {words}");
        assert_eq!(both, vectors);
    }

    /// Questions of which vectors read some words, and BM25 the others.
    #[test]
    fn two_halves_are_better_than_either() {
        let (_, mut questions) = corpus();
        for question in &mut questions {
            let words = question.split(' ').map(|word| {
                let number: u64 = word[1..].parse().unwrap();
                match number < WORDS / 2 {
                    true => format!("x{word}"),
                    false => word.to_owned(),
                }
            });
            *question = words.collect::<Vec<_>>().join(" ");
        }
        let [vectors, words, both, _] = recall(Synthetic::UnderstandsHalf, &questions);
        assert!(both > vectors.max(words) + 0.1, "{both} {vectors} {words}");
    }

    #[test]
    fn weights_are_of_all_passages_and_the_same_each_time() {
        let whole = hybrid(Synthetic::Understands);
        let even = whole.among(&Filter::is("even", true)).unwrap();
        let weights = even.weights().unwrap().unwrap();
        assert!(weights.dense > 0.0 && weights.lexical == 0.5 && weights.rerank == 0.0);
        let again = hybrid(Synthetic::Understands).weights().unwrap().unwrap();
        assert_eq!(weights, again);
        assert_eq!(Some(weights), whole.weights().unwrap());
        // Another encoder of questions is another opinion.
        let blind = whole.with_question_encoder(Synthetic::Random);
        assert_eq!(blind.weights().unwrap().unwrap().dense, 0.0);
        let ranks = even.with_fusion(Fusion::Ranks);
        assert_eq!(ranks.weights().unwrap(), None);
        assert_eq!(retriever(Synthetic::Random).weights().unwrap(), None);
    }

    #[test]
    fn passages_without_words_and_one_passage_alone_have_weights() {
        for texts in [vec!["a1 a2 a3"], vec!["?!", " "], vec!["a7", "a7", "a7"]] {
            let encoder = Synthetic::Random;
            let passages = texts.iter().zip(0..);
            let passages = passages.map(|(text, n)| Passage::new(n.to_string(), "", *text));
            let knowledge =
                build_knowledge_base(passages.collect(), &encoder, Storage::F32, |_| ()).unwrap();
            let words = LexicalIndex::new(knowledge.passages()).unwrap();
            let dense = Retriever::new(encoder, encoder, knowledge, 1).unwrap();
            let retriever = dense.clone().with_lexical(words).unwrap();
            let weights = retriever.weights().unwrap().unwrap();
            assert_eq!(<[f32; 3]>::from(weights), [0.0, 0.5, 0.0], "{texts:?}");
            // Vectors decide where weights leave passages equal.
            let [found, by_vectors] =
                [retriever, dense].map(|one| one.retrieve(&["a1"]).unwrap()[0][0].position);
            assert_eq!(found, by_vectors, "{texts:?}");
        }
    }

    #[test]
    fn the_scale_is_where_the_likelihood_is_highest() {
        let differences = [
            vec![-0.3, -0.5, 0.1],
            vec![-0.2, 0.05],
            vec![0.2, -0.4, -0.1, -0.6],
            vec![-0.7],
            vec![],
        ];
        let likelihood = |scale: f64| -> f64 {
            let questions = differences.iter().map(|differences| {
                let others: f64 = differences.iter().map(|d| (scale * d).exp()).sum();
                -(1.0 + others).ln()
            });
            questions.sum()
        };
        let scale = likeliest_scale(&differences);
        assert!(scale > 1.0, "{scale}");
        // The belief draws τ a little towards 0.
        assert!(likelihood(scale) > likelihood(scale * 0.95));
        assert!(likelihood(scale) > likelihood(scale * 1.05));
        // In other units it is the same opinion.
        let larger = differences.map(|all| all.iter().map(|d| 40.0 * d).collect::<Vec<_>>());
        assert!((likeliest_scale(&larger) * 40.0 / scale - 1.0).abs() < 1e-9);
    }

    #[test]
    fn what_tells_nothing_weighs_nothing_and_what_tells_all_is_finite() {
        assert_eq!(likeliest_scale(&[]), 0.0);
        assert_eq!(likeliest_scale(&[vec![], vec![0.0, 0.0]]), 0.0);
        assert_eq!(likeliest_scale(&[vec![0.5, -0.2], vec![0.1]]), 0.0);
        let scale = likeliest_scale(&[vec![-1.0; 5], vec![-1.0; 5]]);
        assert!((1.0..20.0).contains(&scale), "{scale}");
        let huge = likeliest_scale(&[vec![-1e30, -3e30, 1e29]]);
        assert!(huge > 0.0 && huge.is_finite(), "{huge}");
        assert_eq!(likeliest_scale(&[vec![-1.0, f64::NEG_INFINITY]]), 0.0);
    }

    #[test]
    fn runs_of_words_begin_and_end_with_words() {
        let text = "One two, three; four five six seven, eight nine ten. Eleven twelve!";
        for at in 0..100 {
            let run = run_of_words(text, f64::from(at) / 100.0).unwrap();
            assert!((BYTES..MOST_BYTES).contains(&run.len()), "{run}");
            assert!(run.starts_with(char::is_alphabetic) && run.ends_with(char::is_alphabetic));
        }
        assert!(run_of_words(text, 0.0).unwrap().starts_with("One"));
        assert!(run_of_words(text, 0.999).unwrap().ends_with("twelve"));
        let chinese = "长江是中国最长的河流，发源于青藏高原，注入东海。";
        assert_eq!(run_of_words(chinese, 0.0).unwrap().chars().count(), 12);
        assert_eq!(run_of_words(" short ", 0.7), Some("short"));
        assert_eq!(run_of_words(" ?! ", 0.5), None);
        let long = "é".repeat(500);
        assert_eq!(run_of_words(&long, 0.9).unwrap().len(), MOST_BYTES);
    }
}
