use std::collections::BTreeMap;

/// A list of answers to choose from, as a constraint: after each prefix, the tokens with which some answer goes on.
///
/// The answers are kept in a trie over their tokens, each ending with the end-of-sequence token.
///
/// ```
/// # use rag_generate::decode::AllowedAnswers;
/// let (yes, no, way, end) = (5, 6, 7, 2);
/// let answers = AllowedAnswers::new([vec![yes], vec![no], vec![no, way]], end);
/// let start = 2;
/// assert_eq!(answers.after(&[start]), [yes, no]);
/// assert_eq!(answers.after(&[start, no]), [end, way]);
/// ```
///
/// In a search: `let allowed = answers.callback();` and then `Control::default().with_allowed(&allowed)`. The longest answer
/// has to fit, so set `max_new_tokens` to [`longest`](Self::longest) or more.
#[derive(Debug, Clone)]
pub struct AllowedAnswers {
    nodes: Vec<BTreeMap<u32, usize>>,
    root: usize,
    longest: usize,
}

impl AllowedAnswers {
    /// The answers as token sequences without a start token; `end` is added where a sequence does not end with it.
    pub fn new(answers: impl IntoIterator<Item = impl AsRef<[u32]>>, end: u32) -> Self {
        let mut trie = Self {
            nodes: vec![BTreeMap::new()],
            root: 0,
            longest: 0,
        };
        for answer in answers {
            let answer = answer.as_ref();
            let body = answer.strip_suffix(&[end]).unwrap_or(answer);
            trie.insert(body.iter().copied().chain([end]));
            trie.longest = trie.longest.max(body.len() + 1);
        }
        trie
    }

    /// Puts `bos` before every answer: for models with `forced_bos_token_id`, where the answers lack that token.
    #[must_use]
    pub fn with_bos(mut self, bos: u32) -> Self {
        self.nodes.push(BTreeMap::from([(bos, self.root)]));
        self.root = self.nodes.len() - 1;
        self.longest += 1;
        self
    }

    /// Tokens of the longest answer, the end token included and the start token not.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The tokens that may follow `prefix`, whose first token is the start token, in ascending order; none after a complete
    /// answer, and none where the prefix begins no answer.
    pub fn after(&self, prefix: &[u32]) -> Vec<u32> {
        let answer = prefix.get(1..).unwrap_or_default();
        let node = answer.iter().try_fold(self.root, |node, token| {
            self.nodes[node].get(token).copied()
        });
        node.map(|node| self.nodes[node].keys().copied().collect())
            .unwrap_or_default()
    }

    /// The constraint for all searches of a batch, for [`Control::with_allowed`](super::Control::with_allowed).
    pub fn callback(&self) -> impl Fn(usize, &[u32]) -> Vec<u32> + '_ {
        |_, prefix| self.after(prefix)
    }

    fn insert(&mut self, tokens: impl Iterator<Item = u32>) {
        let mut node = self.root;
        for token in tokens {
            let unused = self.nodes.len();
            node = *self.nodes[node].entry(token).or_insert(unused);
            if node == unused {
                self.nodes.push(BTreeMap::new());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u32 = 2;
    const END: u32 = 2;

    #[test]
    fn walks_every_answer_and_nothing_else() {
        let answers = AllowedAnswers::new([vec![5], vec![6, 7], vec![6, 7, END], vec![]], END);
        assert_eq!(answers.after(&[START]), [END, 5, 6]);
        assert_eq!(answers.after(&[START, 6]), [7]);
        assert_eq!(answers.after(&[START, 6, 7]), [END]);
        assert!(answers.after(&[START, 6, 7, END]).is_empty());
        assert!(answers.after(&[START, 7]).is_empty());
        assert_eq!(answers.longest(), 3);
    }

    #[test]
    fn the_prompts_end_starts_answers_too() {
        let answers = AllowedAnswers::new([vec![5], vec![6, 7]], END);
        let start = crate::decode::GenerationConfig::PROMPT_END;
        assert_eq!(answers.after(&[start]), [5, 6]);
        assert_eq!(answers.after(&[start, 6]), [7]);
    }

    #[test]
    fn a_bos_comes_before_every_answer() {
        let answers = AllowedAnswers::new([[5], [6]], END).with_bos(0);
        assert_eq!(answers.after(&[START]), [0]);
        assert_eq!(answers.after(&[START, 0]), [5, 6]);
        assert_eq!(answers.longest(), 3);
    }
}
