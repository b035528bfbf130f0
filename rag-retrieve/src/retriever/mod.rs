mod choose;
pub(crate) mod error;
mod pool;

pub use error::RetrieverError;

use std::sync::{Arc, OnceLock};

use ndarray::Array2;
use rag_core::Passage;

use crate::{
    encoder::{Embedder, Role, TextEncoder, error::EncoderError},
    error::{Error, Result},
    filter::Filter,
    fuse::Fusion,
    index::{Hit, Index},
    knowledge::{Knowledge, KnowledgeBase, Selection, error::KnowledgeError},
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
    /// Its scores by vectors, words and reranker.
    pub relevance: Relevance,
    /// The sum of it, weighed by [`Retriever::weights`]; P(z|x) is the softmax of these over what was retrieved. Without
    /// weights it is the raw inner product of the question's and the passage's vectors.
    pub score: f32,
}

/// Finds the passages for a question: by its vector among all passages of a knowledge base and, as configured, by its
/// words, with a reranker, and with a preference for passages that differ.
///
/// Passages that vectors and words found are put in one order by P(z|x), with [weights](PriorWeights) of the retriever's
/// own or else with those that it learns from the passages; [`Fusion`] has the other way.
///
/// Any [`Embedder`] serves for searching. Training, LoRA and saving ask for the weights of a [`TextEncoder`], and fail
/// with [`EncoderError::NotATextEncoder`] where the retriever has another embedder. Clones share everything and cost
/// next to nothing.
#[derive(Clone, Debug)]
pub struct Retriever {
    /// Encodes questions; this is the half that training moves.
    question_encoder: Arc<dyn Embedder>,
    /// Encodes passages; frozen, since the knowledge base holds the vectors that it made.
    context_encoder: Arc<dyn Embedder>,
    /// The weights of P(z|x) and of the order of passages; training moves them too.
    prior: Option<PriorWeights>,
    knowledge: Arc<dyn Knowledge>,
    /// Passages of the knowledge base when the retriever was given it.
    passages: usize,
    /// An index that is searched in the place of the knowledge base's own.
    index: Option<Arc<dyn Index>>,
    n_docs: usize,
    lexical: Option<Arc<LexicalIndex>>,
    fusion: Fusion,
    /// The factor of inner products that nothing else weighs.
    scale: f32,
    /// The weights that [`Fusion::Weights`] learns, once they were asked for.
    pooled: Arc<OnceLock<PriorWeights>>,
    reranker: Option<Arc<dyn Reranker>>,
    candidates: usize,
    /// λ of maximal marginal relevance.
    diversity: Option<f32>,
    /// The passages that are searched; all for `None`.
    among: Option<Selection>,
}

/// Passages that are compared before the best are chosen, where they have more than one score.
const CANDIDATES: usize = 50;

/// Searches at most for one question, when passages are deleted between search and reading.
const SEARCHES: usize = 5;

impl Retriever {
    /// A retriever of the best `n_docs` passages. `question_encoder` embeds questions, `context_encoder` is the embedder
    /// that made the vectors of `knowledge`; they may be the same, as an [`Arc`] or a clone.
    ///
    /// # Errors
    /// [`KnowledgeError::OtherEncoder`] where the knowledge base was made by another encoder than
    /// `context_encoder`; [`RetrieverError::TooFewPassages`]; those of [`Knowledge::count`].
    pub fn new(
        question_encoder: impl Embedder + 'static,
        context_encoder: impl Embedder + 'static,
        knowledge: impl Knowledge + 'static,
        n_docs: usize,
    ) -> Result<Self> {
        knowledge.encoder().check(&context_encoder.fingerprint()?)?;
        let retriever = Self {
            question_encoder: Arc::new(question_encoder),
            context_encoder: Arc::new(context_encoder),
            prior: None,
            passages: knowledge.count()?,
            knowledge: Arc::new(knowledge),
            index: None,
            n_docs: 0,
            lexical: None,
            fusion: Fusion::default(),
            scale: 1.0,
            pooled: Arc::default(),
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
        context_encoder: impl Embedder + 'static,
        knowledge: impl Knowledge + 'static,
    ) -> Result<Self> {
        knowledge.encoder().check(&context_encoder.fingerprint()?)?;
        let among = match self.among {
            Some(among) => Some(select(&knowledge, &among.filter)?),
            None => None,
        };
        let retriever = Self {
            context_encoder: Arc::new(context_encoder),
            passages: knowledge.count()?,
            knowledge: Arc::new(knowledge),
            index: None,
            pooled: Arc::default(),
            among,
            ..self
        };
        if let Some(lexical) = &retriever.lexical {
            same_passages(retriever.local()?, lexical)?;
        }
        let n_docs = retriever.n_docs;
        retriever.top_k(n_docs)
    }

    /// Sets how many passages are retrieved for each question.
    ///
    /// # Errors
    /// [`RetrieverError::TooFewPassages`] where the knowledge base has fewer.
    pub fn top_k(mut self, n_docs: usize) -> Result<Self> {
        let passages = self.searched();
        if n_docs == 0 || n_docs > passages {
            return Err(RetrieverError::TooFewPassages { n_docs, passages }.into());
        }
        self.n_docs = n_docs;
        Ok(self)
    }

    /// Searches `index`, which is of the vectors of the knowledge base in their order, such as a
    /// [`DeviceIndex`](crate::DeviceIndex) on a GPU.
    ///
    /// # Errors
    /// [`RetrieverError::OtherIndex`] where it holds another number of vectors, or of another dimension; those of
    /// [`Retriever::local`].
    pub fn with_index(self, index: impl Index + 'static) -> Result<Self> {
        let own = self.local()?.index();
        if (index.len(), index.dimension()) != (own.len(), own.dimension()) {
            return Err(RetrieverError::OtherIndex {
                expected: own.len(),
                dimension: own.dimension(),
                found: index.len(),
                found_dimension: index.dimension(),
            }
            .into());
        }
        Ok(Self {
            index: Some(Arc::new(index)),
            ..self
        })
    }

    /// Also searches by words; `lexical` holds the passages of the knowledge base, in their order. Unless the retriever
    /// has a [prior](Retriever::with_prior), P(z|x) and the order of passages then weigh vectors and words, as
    /// [`Fusion::Weights`] says.
    ///
    /// # Errors
    /// [`RetrieverError::LexicalIndex`] where it holds other passages, or in another order; those of
    /// [`KnowledgeBase::passage`] and [`Retriever::local`].
    pub fn with_lexical(self, lexical: impl Into<Arc<LexicalIndex>>) -> Result<Self> {
        let lexical = lexical.into();
        same_passages(self.local()?, &lexical)?;
        Ok(Self {
            lexical: Some(lexical),
            ..self
        })
    }

    /// Scores the passages that were found with `reranker`. Unless the retriever has weights of its own, P(z|x) is then
    /// the softmax of its scores.
    #[must_use]
    pub fn with_reranker(self, reranker: impl Reranker + 'static) -> Self {
        Self {
            reranker: Some(Arc::new(reranker)),
            ..self
        }
    }

    /// Embeds questions with another embedder, such as the same encoder after training.
    #[must_use]
    pub fn with_question_encoder(self, encoder: impl Embedder + 'static) -> Self {
        Self {
            question_encoder: Arc::new(encoder),
            pooled: Arc::default(),
            ..self
        }
    }

    /// Sets how what vectors and words found is put in one order where the retriever has no
    /// [prior](Retriever::with_prior).
    #[must_use]
    pub fn with_fusion(self, fusion: Fusion) -> Self {
        Self { fusion, ..self }
    }

    /// Sets the factor of the inner product in P(z|x) where neither a [prior](Retriever::with_prior) nor words nor a
    /// reranker weigh it; 1 by default. Sentence encoders give cosines, of which the softmax is almost flat.
    #[must_use]
    pub fn with_scale(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    /// Sets [`Retriever::prior`].
    #[must_use]
    pub fn with_prior(self, weights: PriorWeights) -> Self {
        Self {
            prior: Some(weights),
            ..self
        }
    }

    /// Takes away what [`Retriever::with_prior`] set.
    #[must_use]
    pub fn without_prior(self) -> Self {
        Self {
            prior: None,
            ..self
        }
    }

    /// Sets how many passages vectors and words each find before the best `n_docs` are chosen, and how many of them a
    /// reranker judges; 50 by default. It matters only where passages are found or judged by more than their vectors.
    #[must_use]
    pub fn with_candidates(self, candidates: usize) -> Self {
        Self { candidates, ..self }
    }

    /// Chooses passages by [maximal marginal relevance](crate::maximal_marginal_relevance): λ = 1 asks for
    /// relevance alone, less for passages that differ.
    ///
    /// # Errors
    /// [`RetrieverError::Lambda`] for a λ outside 0 to 1.
    pub fn with_diversity(self, lambda: f32) -> Result<Self> {
        if !(0.0..=1.0).contains(&lambda) {
            return Err(RetrieverError::Lambda { lambda }.into());
        }
        Ok(Self {
            diversity: Some(lambda),
            ..self
        })
    }

    /// The same retriever, limited to the passages that match `filter`. Where they are fewer than `n_docs`, it retrieves
    /// all of them.
    ///
    /// # Errors
    /// [`KnowledgeError::NoMatch`] where there is no such passage; those of [`Knowledge::select`].
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

    /// The embedder of questions.
    pub fn question_encoder(&self) -> &Arc<dyn Embedder> {
        &self.question_encoder
    }

    /// The embedder of passages, which made the vectors of the knowledge base.
    pub fn context_encoder(&self) -> &Arc<dyn Embedder> {
        &self.context_encoder
    }

    /// The encoder of questions with its weights, for training and saving.
    ///
    /// # Errors
    /// [`EncoderError::NotATextEncoder`] where the retriever has another embedder.
    pub fn question_text_encoder(&self) -> Result<&TextEncoder> {
        text_encoder(&*self.question_encoder, Role::Question)
    }

    /// The encoder of passages with its weights, for training and saving.
    ///
    /// # Errors
    /// [`EncoderError::NotATextEncoder`] where the retriever has another embedder.
    pub fn context_text_encoder(&self) -> Result<&TextEncoder> {
        text_encoder(&*self.context_encoder, Role::Context)
    }

    /// The weights of P(z|x) that the retriever was given, for its saving and training; [`Retriever::weights`] has those
    /// that count where it was given none.
    pub fn prior(&self) -> Option<PriorWeights> {
        self.prior
    }

    /// The weights that P(z|x) is made with: the retriever's own, else, with a reranker, its word alone, else, with words,
    /// those that [`Fusion::Weights`] learns from the passages, else the inner product's [factor](Retriever::with_scale);
    /// `None` for the inner product alone.
    ///
    /// # Errors
    /// [`RetrieverError::DefaultWeights`]; those of [`KnowledgeBase::passage`].
    pub fn weights(&self) -> Result<Option<PriorWeights>> {
        Ok(self.weights_of_order()?.or(self.scaled()))
    }

    /// The weights of inner products alone, where they have a factor.
    fn scaled(&self) -> Option<PriorWeights> {
        (self.scale != 1.0).then_some(PriorWeights {
            dense: self.scale,
            ..PriorWeights::default()
        })
    }

    /// The weights that passages are put in order by; `None` for the order of what found them.
    fn weights_of_order(&self) -> Result<Option<PriorWeights>> {
        let reranker = PriorWeights {
            dense: 0.0,
            lexical: 0.0,
            rerank: 1.0,
        };
        match self.prior.or(self.reranker.is_some().then_some(reranker)) {
            Some(weights) => Ok(Some(weights)),
            None => self.default_weights(),
        }
    }

    /// The weights of vectors and words where [`Fusion::Weights`] is to learn them. They depend on all passages, also of
    /// a retriever that is limited to some.
    fn default_weights(&self) -> Result<Option<PriorWeights>> {
        if self.lexical.is_none() || self.fusion != Fusion::Weights {
            return Ok(None);
        }
        let weights = match self.pooled.get() {
            Some(weights) => *weights,
            // Two threads that come here learn the same.
            None => {
                let weights = self.pooled()?;
                *self.pooled.get_or_init(|| weights)
            }
        };
        Ok(Some(weights))
    }

    /// The passages of each question, best first.
    ///
    /// # Errors
    /// [`RetrieverError::EmptyQuestion`], [`EncoderError::QuestionTooLong`](crate::EncoderError::QuestionTooLong), [`RetrieverError::NoSource`]; those of
    /// [`Retriever::weights`] and of the index.
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
        one_each(&queries, &vectors)?;
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
    /// [`RetrieverError::NoSource`]; [`EncoderError::Vectors`] for more or fewer vectors than questions; those of
    /// [`Retriever::weights`] and of the index.
    pub fn search(&self, questions: &[&str], vectors: &Array2<f32>) -> Result<Vec<Vec<Retrieved>>> {
        one_each(questions, vectors)?;
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

    /// The passages and vectors that are searched.
    pub fn knowledge(&self) -> &dyn Knowledge {
        &*self.knowledge
    }

    /// The knowledge base, where it is in this process: for what looks at all of its passages.
    ///
    /// # Errors
    /// [`KnowledgeError::NotLocal`] for one that a database keeps.
    pub fn local(&self) -> Result<&KnowledgeBase> {
        self.knowledge
            .local()
            .ok_or(Error::Knowledge(KnowledgeError::NotLocal))
    }

    /// Passages that are searched: all that there were when the retriever was made, or those that a filter
    /// left.
    pub fn searched(&self) -> usize {
        (self.among.as_ref()).map_or(self.passages, |among| among.passages)
    }

    /// The index that is searched in the place of the knowledge base's own.
    pub fn index(&self) -> Option<&dyn Index> {
        self.index.as_deref()
    }

    /// The index over words, where the retriever looks for them.
    pub fn lexical(&self) -> Option<&LexicalIndex> {
        self.lexical.as_deref()
    }

    /// The positions of those passages, in a knowledge base of this process; `None` for all.
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
        true => Err(RetrieverError::EmptyQuestion.into()),
        false => Ok(()),
    }
}

fn text_encoder(embedder: &dyn Embedder, role: Role) -> Result<&TextEncoder> {
    // Its `Debug` may be a whole table, or hold the key of a service.
    let found = || match embedder.fingerprint() {
        Ok(fingerprint) => fingerprint.description,
        Err(_) => "another embedder".into(),
    };
    (embedder.text_encoder()).ok_or_else(|| {
        EncoderError::NotATextEncoder {
            role,
            found: found(),
        }
        .into()
    })
}

fn one_each(questions: &[&str], vectors: &Array2<f32>) -> Result<()> {
    let (expected, found) = (questions.len(), vectors.nrows());
    match expected == found {
        true => Ok(()),
        false => Err(EncoderError::Vectors { expected, found }.into()),
    }
}

fn same_passages(knowledge: &KnowledgeBase, lexical: &LexicalIndex) -> Result<()> {
    let (expected, found) = (knowledge.len(), lexical.len());
    if expected == found && lexical.is_of(knowledge.passages())? {
        return Ok(());
    }
    Err(RetrieverError::LexicalIndex { expected, found }.into())
}

/// The passages that `filter` means; at least one.
fn select(knowledge: &dyn Knowledge, filter: &Filter) -> Result<Selection> {
    let selection = knowledge.select(filter)?;
    match selection.passages {
        0 => Err(KnowledgeError::NoMatch {
            filter: filter.clone(),
        }
        .into()),
        _ => Ok(selection),
    }
}

/// Searches again where what was found is gone before it is read.
fn settled<T>(search: impl Fn() -> Result<T>) -> Result<T> {
    for _ in 1..SEARCHES {
        match search() {
            Err(Error::Knowledge(KnowledgeError::Gone { .. })) => {}
            found => return found,
        }
    }
    search()
}
