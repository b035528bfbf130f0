//! Whether the passages that an answer names are those that it came from.

use std::fmt;

use rag_generate::{Answer, AnswerToken, Evidence};
use serde::{Deserialize, Serialize};

use super::{
    asked::{Asked, LeftOut, highest},
    has_answer::has_answer,
    table::{Table, or_dash, percent},
};
use crate::error::{Error, Result};

/// How often the passages that a model names for its answers are those that hold them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Answers that were looked at.
    pub questions: usize,
    /// Of the passage of the highest P(z|x).
    pub prior: Holds,
    /// Of the passage of the highest P(z|x,y).
    pub posterior: Holds,
    /// Of the passage that is most similar to the answer, over the answers for which that is known.
    pub similar: Option<Holds>,
    /// Of a passage drawn at random from the retrieved ones: what naming any would reach.
    pub random: Holds,
    /// Of any of the retrieved passages: no choice among them can reach more.
    pub any: Holds,
    /// The change of answers where a passage is missing, over those for which that is known.
    pub left_out: Option<Changed>,
    /// The tokens that some of the retrieved passages hold and others do not; `None` where there are none.
    pub tokens: Option<TokenShares>,
}

/// The share of answers for which a passage holds what it should, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Holds {
    /// It [holds the right answer](crate::QuestionAnswer::is_answered_by), whatever the model said.
    pub accepted: f64,
    /// Its title or text holds the model's answer, as [`has_answer`] sees it, right or wrong.
    pub given: f64,
}

/// The share of answers that change where one of their passages is missing, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// Answers that were asked for again.
    pub questions: usize,
    /// Without the passage of the highest P(z|x,y).
    pub best: f64,
    /// Without that of the lowest.
    pub least: f64,
}

/// Where the shares P(z|x,y_i,y_<i) of tokens point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenShares {
    /// Tokens with a text that one of the retrieved passages holds, as letters that follow each other in its title or
    /// text, and another does not.
    pub tokens: usize,
    /// Share of them for which the passage of the largest share holds the token.
    pub largest: f64,
    /// The same of the passage of the highest P(z|x).
    pub prior: f64,
    /// The same of a passage drawn at random.
    pub random: f64,
    /// Share of them for which the passage of the largest share holds the whole answer.
    pub whole: f64,
}

impl Provenance {
    /// Of answers. Those of RAG-Sequence draw all their tokens from one passage, so that each token's shares are
    /// P(z|x,y).
    ///
    /// # Errors
    /// [`Error::NoExamples`].
    pub fn of(asked: &[Asked]) -> Result<Self> {
        if asked.is_empty() {
            return Err(Error::NoExamples);
        }
        let held: Vec<Vec<[bool; 2]>> = asked.iter().map(held).collect();
        let at = |place: fn(&Asked) -> Option<usize>| {
            let of = asked.iter().zip(&held);
            let found = of.map(|(asked, held)| place(asked).map_or([false; 2], |z| held[z]));
            Holds::mean(found.map(|held| held.map(share)))
        };
        let shares = |of: fn(&[bool]) -> f64| {
            let found = held.iter().map(|held| {
                [0, 1].map(|i| of(&held.iter().map(|held| held[i]).collect::<Vec<_>>()))
            });
            Holds::mean(found)
        };
        let similar: Vec<_> = (asked.iter().zip(&held))
            .filter_map(|(asked, held)| {
                let place = asked.left_out.as_ref()?.similar?;
                Some(held.get(place)?.map(share))
            })
            .collect();
        Ok(Self {
            questions: asked.len(),
            prior: at(|asked| highest(&asked.answer.evidence, |passage| passage.prior)),
            posterior: at(|asked| highest(&asked.answer.evidence, |passage| passage.posterior)),
            similar: (!similar.is_empty()).then(|| Holds::mean(similar.into_iter())),
            random: shares(part),
            any: shares(|held| share(held.contains(&true))),
            left_out: Changed::of(asked),
            tokens: TokenShares::of(asked),
        })
    }
}

/// Whether each passage holds the right answer, and the given one.
fn held(asked: &Asked) -> Vec<[bool; 2]> {
    let Answer { text, evidence, .. } = &asked.answer;
    let of = |passage: &Evidence| {
        [
            asked.pair.is_answered_by(&passage.passage),
            has_answer(&whole(passage), &[text]),
        ]
    };
    evidence.iter().map(of).collect()
}

/// Title and text.
fn whole(evidence: &Evidence) -> String {
    format!("{}\n{}", evidence.passage.title, evidence.passage.text)
}

fn share(is: bool) -> f64 {
    f64::from(u8::from(is))
}

/// The part that is true; 0 of nothing.
fn part(of: &[bool]) -> f64 {
    of.iter().map(|&is| share(is)).sum::<f64>() / of.len().max(1) as f64
}

impl Holds {
    fn mean(of: impl ExactSizeIterator<Item = [f64; 2]>) -> Self {
        let count = of.len() as f64;
        let [accepted, given] = of.fold([0.0; 2], |sum, held| [sum[0] + held[0], sum[1] + held[1]]);
        Self {
            accepted: accepted / count,
            given: given / count,
        }
    }
}

impl Changed {
    fn of(asked: &[Asked]) -> Option<Self> {
        let known: Vec<_> = (asked.iter())
            .filter_map(|asked| Some((asked, asked.left_out.as_ref()?)))
            .collect();
        let changed = |other: fn(&LeftOut) -> &Answer| {
            let differs = known
                .iter()
                .map(|(asked, left_out)| asked.differs(other(left_out)));
            part(&differs.collect::<Vec<_>>())
        };
        (!known.is_empty()).then(|| Self {
            questions: known.len(),
            best: changed(|left_out| &left_out.best),
            least: changed(|left_out| &left_out.least),
        })
    }
}

impl TokenShares {
    fn of(asked: &[Asked]) -> Option<Self> {
        let mut found = Self::default();
        for asked in asked {
            let Answer {
                tokens,
                evidence,
                text,
                ..
            } = &asked.answer;
            let texts: Vec<String> = (evidence.iter())
                .map(|passage| whole(passage).to_lowercase())
                .collect();
            let Some(prior) = highest(evidence, |passage| passage.prior) else {
                continue;
            };
            let whole: Vec<bool> = texts
                .iter()
                .map(|passage| has_answer(passage, &[text]))
                .collect();
            for AnswerToken { text, shares, .. } in tokens {
                let token = text.trim().to_lowercase();
                let holds: Vec<bool> = texts
                    .iter()
                    .map(|passage| passage.contains(&token))
                    .collect();
                if token.is_empty() || part(&holds) == 0.0 || part(&holds) == 1.0 {
                    continue;
                }
                let places = 0..holds.len().min(shares.len());
                let Some(largest) = places.reduce(|a, b| if shares[b] > shares[a] { b } else { a })
                else {
                    continue;
                };
                found.tokens += 1;
                found.largest += share(holds[largest]);
                found.prior += share(holds[prior]);
                found.random += part(&holds);
                found.whole += share(whole[largest]);
            }
        }
        let tokens = found.tokens as f64;
        (found.tokens > 0).then(|| Self {
            tokens: found.tokens,
            largest: found.largest / tokens,
            prior: found.prior / tokens,
            random: found.random / tokens,
            whole: found.whole / tokens,
        })
    }
}

impl Provenance {
    /// The passages that hold the answers.
    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new([
            "passage",
            "holds the right answer, %",
            "holds the given answer, %",
        ]);
        let rows = [
            ("of the highest P(z|x)", Some(self.prior)),
            ("of the highest P(z|x,y)", Some(self.posterior)),
            ("most similar to the answer", self.similar),
            ("drawn at random", Some(self.random)),
            ("any of those retrieved", Some(self.any)),
        ];
        for (name, holds) in rows {
            table.rows.push(vec![
                name.to_owned(),
                or_dash(holds.map(|holds| holds.accepted), percent),
                or_dash(holds.map(|holds| holds.given), percent),
            ]);
        }
        table
    }

    /// The rest, in sentences.
    pub(crate) fn sentences(&self) -> Vec<String> {
        let left_out = self.left_out.map(|changed| {
            format!(
                "Of {} answers, {} % change without the passage of the highest P(z|x,y), {} % without that of the \
                 lowest.",
                changed.questions,
                percent(changed.best),
                percent(changed.least)
            )
        });
        let tokens = self.tokens.map(|shares| {
            format!(
                "Of {} tokens that some of the passages hold and others do not, the passage of the largest share \
                 P(z|x,y_i,y_<i) holds {} %, that of the highest P(z|x) {} %, one drawn at random {} %; the passage of \
                 the largest share holds the whole answer for {} %.",
                shares.tokens,
                percent(shares.largest),
                percent(shares.prior),
                percent(shares.random),
                percent(shares.whole)
            )
        });
        left_out.into_iter().chain(tokens).collect()
    }
}

/// Markdown.
impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.table())?;
        let sentences = self.sentences();
        if sentences.is_empty() {
            return Ok(());
        }
        // Signs of Markdown in the mathematics stay signs.
        writeln!(
            f,
            "{}",
            sentences.join(" ").replace('_', "\\_").replace('<', "\\<")
        )
    }
}
