//! The retriever by itself: contrastive training of its encoders, hard negatives for it, and the weights of
//! P(z|x).

pub mod contrastive;
pub(crate) mod fit_prior;
pub(crate) mod mine;
