mod choose;

use std::sync::Arc;

use ndarray::Array2;
use rag_core::Passage;

use crate::{
    Error, Result,
    encoder::{Embedder, TextEncoder},
    filter::Filter,
    index::{Hit, Index},
    knowledge::{Knowledge, KnowledgeBase, Selection},
    lexical::LexicalIndex,
    prior::{PriorWeights, Relevance},
    rerank::Reranker,
};

/// A passage that was found for a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Retrieved {
    /// The passage.
    pub passage: Passage,
    /// Its place in the knowledge base.
    pub position: usize,
    /// What speaks for it.
    pub relevance: Relevance,
    /// The sum of it, weighed; P(z|x) is the softmax of these over what was retrieved. Without weights of
    /// the retriever's own it is the raw inner product of the question's and the passage's vectors.
    pub score: f32,
}

/// Questions to passages: the question's vector against all passages of a knowledge base, and where it is
/// told so their words, a reranker, and a wish for passages that differ.
///
/// What is found by several ways is put in one order by [reciprocal rank
/// fusion](crate::reciprocal_rank_fusion), or by P(z|x) where the retriever has [weights](PriorWeights) for it.
#[derive(Clone, Debug)]
pub struct Retriever {
    /// Encodes questions; this is the half that training moves.
    pub question_encoder: TextEncoder,
    /// Encodes passages; frozen, since the knowledge base holds what it said.
    pub context_encoder: TextEncoder,
    /// Weighs what speaks for a passage, in P(z|x) and in the order of passages; training moves it too.
    pub prior: Option<PriorWeights>,
    knowledge: Arc<dyn Knowledge>,
    /// Of the knowledge base when the retriever was given it.
    passages: usize,
    /// Searched in the place of the knowledge base's own.
    index: Option<Arc<dyn Index>>,
    n_docs: usize,
    lexical: Option<Arc<LexicalIndex>>,
    reranker: Option<Arc<dyn Reranker>>,
    candidates: usize,
    /// λ of maximal marginal relevance.
    diversity: Option<f32>,
    /// What is searched; all for `None`.
    among: Option<Selection>,
}

/// Passages that are compared before the best are chosen, where they are compared by more than one number.
const CANDIDATES: usize = 50;

/// Times that a question is searched while passages that it finds are deleted before they are read.
const SEARCHES: usize = 5;

impl Retriever {
    /// A retriever of the best `n_docs` passages.
    ///
    /// # Errors
    /// [`Error::Encoder`] where the knowledge base was made by another encoder than
    /// `context_encoder`; [`Error::TooFewPassages`]; those of [`Knowledge::count`].
    pub fn new(
        question_encoder: TextEncoder,
        context_encoder: TextEncoder,
        knowledge: impl Knowledge + 'static,
        n_docs: usize,
    ) -> Result<Self> {
        knowledge.encoder().check(&context_encoder.fingerprint()?)?;
        let retriever = Self {
            question_encoder,
            context_encoder,
            prior: None,
            passages: knowledge.count()?,
            knowledge: Arc::new(knowledge),
            index: None,
            n_docs: 0,
            lexical: None,
            reranker: None,
            candidates: CANDIDATES,
            diversity: None,
            among: None,
        };
        retriever.top_k(n_docs)
    }

    /// The same retriever over the same passages, embedded anew. An [index](Retriever::with_index) of the
    /// old vectors is given up.
    ///
    /// # Errors
    /// Those of [`Retriever::new`] and [`Retriever::with_lexical`].
    pub fn with_knowledge(
        self,
        context_encoder: TextEncoder,
        knowledge: impl Knowledge + 'static,
    ) -> Result<Self> {
        knowledge.encoder().check(&context_encoder.fingerprint()?)?;
        let among = match self.among {
            Some(among) => Some(select(&knowledge, &among.filter)?),
            None => None,
        };
        let retriever = Self {
            context_encoder,
            passages: knowledge.count()?,
            knowledge: Arc::new(knowledge),
            index: None,
            among,
            ..self
        };
        if let Some(lexical) = &retriever.lexical {
            same_passages(retriever.local()?, lexical)?;
        }
        let n_docs = retriever.n_docs;
        retriever.top_k(n_docs)
    }

    /// Retrieves `n_docs` passages for each question.
    ///
    /// # Errors
    /// [`Error::TooFewPassages`] where the knowledge base has fewer.
    pub fn top_k(mut self, n_docs: usize) -> Result<Self> {
        let passages = self.searched();
        if n_docs == 0 || n_docs > passages {
            return Err(Error::TooFewPassages { n_docs, passages });
        }
        self.n_docs = n_docs;
        Ok(self)
    }

    /// Searches `index`, which is of the vectors of the knowledge base in their order, such as a
    /// [`DeviceIndex`](crate::DeviceIndex) on a GPU.
    ///
    /// # Errors
    /// [`Error::OtherIndex`] where it holds another number of vectors, or of another dimension; those of
    /// [`Retriever::local`].
    pub fn with_index(self, index: impl Index + 'static) -> Result<Self> {
        let own = self.local()?.index();
        if (index.len(), index.dimension()) != (own.len(), own.dimension()) {
            return Err(Error::OtherIndex {
                expected: own.len(),
                dimension: own.dimension(),
                found: index.len(),
                found_dimension: index.dimension(),
            });
        }
        Ok(Self {
            index: Some(Arc::new(index)),
            ..self
        })
    }

    /// Looks for the words of questions too; `lexical` is of the passages of the knowledge base, in
    /// their order.
    ///
    /// # Errors
    /// [`Error::LexicalIndex`] where it holds other passages, or in another order; those of
    /// [`KnowledgeBase::passage`] and [`Retriever::local`].
    pub fn with_lexical(self, lexical: impl Into<Arc<LexicalIndex>>) -> Result<Self> {
        let lexical = lexical.into();
        same_passages(self.local()?, &lexical)?;
        Ok(Self {
            lexical: Some(lexical),
            ..self
        })
    }

    /// Lets `reranker` judge what was found. Unless the retriever has weights of its own, P(z|x) is then
    /// the softmax of what it says.
    #[must_use]
    pub fn with_reranker(self, reranker: impl Reranker + 'static) -> Self {
        Self {
            reranker: Some(Arc::new(reranker)),
            ..self
        }
    }

    /// Sets [`Retriever::prior`].
    #[must_use]
    pub fn with_prior(self, weights: PriorWeights) -> Self {
        Self {
            prior: Some(weights),
            ..self
        }
    }

    /// Compares so many passages, 50 if not told, before the best `n_docs` are chosen. It counts only
    /// where passages are found or judged by more than their vectors.
    #[must_use]
    pub fn with_candidates(self, candidates: usize) -> Self {
        Self { candidates, ..self }
    }

    /// Chooses passages by [maximal marginal relevance](crate::maximal_marginal_relevance): λ = 1 asks for
    /// relevance alone, less for passages that differ.
    ///
    /// # Errors
    /// [`Error::Lambda`] for a λ outside 0 to 1.
    pub fn with_diversity(self, lambda: f32) -> Result<Self> {
        if !(0.0..=1.0).contains(&lambda) {
            return Err(Error::Lambda { lambda });
        }
        Ok(Self {
            diversity: Some(lambda),
            ..self
        })
    }

    /// The same retriever, over those of its passages that `filter` means, and over as many of them as there
    /// are where they are fewer than it retrieves.
    ///
    /// # Errors
    /// [`Error::NoMatch`] where there is no such passage; those of [`Knowledge::select`].
    pub fn among(&self, filter: &Filter) -> Result<Self> {
        let filter = match &self.among {
            Some(already) => already.filter.clone() & filter.clone(),
            None => filter.clone(),
        };
        let among = select(&*self.knowledge, &filter)?;
        Ok(Self {
            n_docs: self.n_docs.min(among.passages),
            among: Some(among),
            ..self.clone()
        })
    }

    /// The weights that P(z|x) is made with: the retriever's own, else, with a reranker, its word alone;
    /// `None` for the inner product alone.
    pub fn weights(&self) -> Option<PriorWeights> {
        let reranker = PriorWeights {
            dense: 0.0,
            lexical: 0.0,
            rerank: 1.0,
        };
        self.prior.or(self.reranker.is_some().then_some(reranker))
    }

    /// The passages of each question, best first.
    ///
    /// # Errors
    /// [`Error::EmptyQuestion`], [`Error::QuestionTooLong`], [`Error::NoSource`]; those of the index.
    pub fn retrieve(&self, questions: &[&str]) -> Result<Vec<Vec<Retrieved>>> {
        not_empty(questions)?;
        let vectors = self.question_encoder.embed_questions(questions)?;
        self.search(questions, &vectors)
    }

    /// The passages of a question, best first, of those that it or one of `rewrites` finds: the same
    /// question in other words, its translation, its parts. They only help to find; what is found is
    /// judged by the question itself.
    ///
    /// # Errors
    /// Those of [`Retriever::retrieve`].
    pub fn retrieve_with(&self, question: &str, rewrites: &[&str]) -> Result<Vec<Retrieved>> {
        let queries = [&[question], rewrites].concat();
        not_empty(&queries)?;
        let vectors = self.question_encoder.embed_questions(&queries)?;
        let candidates = self.compared(queries.len());
        settled(|| {
            let found = self.nearest(&vectors, candidates)?;
            self.choose(&queries, vectors.row(0), found)
        })
    }

    /// The passages of each question, best first, of which `vectors` `[questions, dimension]` are the
    /// vectors.
    ///
    /// # Errors
    /// [`Error::NoSource`]; those of the index.
    pub fn search(&self, questions: &[&str], vectors: &Array2<f32>) -> Result<Vec<Vec<Retrieved>>> {
        settled(|| {
            let found = self.nearest(vectors, self.compared(1))?;
            questions
                .iter()
                .zip(vectors.rows())
                .zip(found)
                .map(|((question, vector), hits)| self.choose(&[question], vector, vec![hits]))
                .collect()
        })
    }

    /// The `k` best by vector for each of `vectors` `[questions, dimension]`.
    fn nearest(&self, vectors: &Array2<f32>, k: usize) -> Result<Vec<Vec<Hit>>> {
        match &self.index {
            Some(index) => index.search_among(vectors.view(), k, self.positions()),
            None => (self.knowledge).search(vectors.view(), k, self.among.as_ref()),
        }
    }

    /// Passages that are looked at more closely, found by so many queries.
    fn compared(&self, queries: usize) -> usize {
        let plain = queries == 1 && self.lexical.is_none() && self.reranker.is_none();
        match plain && self.diversity.is_none() {
            true => self.n_docs,
            false => self.candidates.max(self.n_docs),
        }
    }

    /// What is searched, and with which encoder.
    pub fn knowledge(&self) -> &dyn Knowledge {
        &*self.knowledge
    }

    /// The knowledge base, where it is in this process: for what looks at all of its passages.
    ///
    /// # Errors
    /// [`Error::NotLocal`] for one that a database keeps.
    pub fn local(&self) -> Result<&KnowledgeBase> {
        self.knowledge.local().ok_or(Error::NotLocal)
    }

    /// Passages that are searched: all that there were when the retriever was made, or those that a filter
    /// left.
    pub fn searched(&self) -> usize {
        (self.among.as_ref()).map_or(self.passages, |among| among.passages)
    }

    /// Where they are, in a knowledge base of this process; `None` for all.
    fn positions(&self) -> Option<&[usize]> {
        self.among.as_ref()?.positions.as_deref()
    }

    /// Passages retrieved for each question.
    pub fn n_docs(&self) -> usize {
        self.n_docs
    }
}

fn not_empty(questions: &[&str]) -> Result<()> {
    match questions.iter().any(|question| question.trim().is_empty()) {
        true => Err(Error::EmptyQuestion),
        false => Ok(()),
    }
}

fn same_passages(knowledge: &KnowledgeBase, lexical: &LexicalIndex) -> Result<()> {
    let (expected, found) = (knowledge.len(), lexical.len());
    if expected == found && lexical.is_of(knowledge.passages())? {
        return Ok(());
    }
    Err(Error::LexicalIndex { expected, found })
}

/// The passages that `filter` means; at least one.
fn select(knowledge: &dyn Knowledge, filter: &Filter) -> Result<Selection> {
    let selection = knowledge.select(filter)?;
    match selection.passages {
        0 => Err(Error::NoMatch {
            filter: filter.clone(),
        }),
        _ => Ok(selection),
    }
}

/// Searches again where what was found is gone before it is read.
fn settled<T>(search: impl Fn() -> Result<T>) -> Result<T> {
    for _ in 1..SEARCHES {
        match search() {
            Err(Error::Gone { .. }) => {}
            found => return found,
        }
    }
    search()
}
