use rag_core::Passage;
use rag_generate::{Answer, AnswerToken, Evidence};

use super::*;
use crate::{
    data::pairs::QuestionAnswer,
    error::Error,
    evaluate::{Changed, Holds, LeftOut},
};

/// An answer of probability `p` from two passages, of which the first has the posterior.
fn answer(text: &str, p: f32, posterior: f32, passages: [&str; 2]) -> Answer {
    let evidence = [("right", posterior), ("other", 1.0 - posterior)];
    let evidence = evidence.iter().zip(passages);
    let share = |text: &str, shares: [f32; 2]| AnswerToken {
        id: 0,
        text: text.into(),
        log_probability: p.ln() / 2.0,
        shares: shares.into(),
    };
    Answer {
        question: "问?".into(),
        text: text.into(),
        log_likelihood: p.ln(),
        confidence: None,
        tokens: vec![
            share(text, [posterior, 1.0 - posterior]),
            share("", [posterior, 1.0 - posterior]),
        ],
        evidence: evidence
            .map(|(&(id, posterior), text)| Evidence {
                passage: Passage::new(id, "", text),
                score: 0.0,
                prior: 0.5,
                posterior,
            })
            .collect(),
    }
}

fn pair(accepted: &str, passage: Option<&str>) -> QuestionAnswer {
    QuestionAnswer {
        passage: passage.map(str::to_owned),
        ..QuestionAnswer::new("问?", accepted)
    }
}

/// A question whose right answer is Paris, answered with `text`.
fn asked(text: &str, p: f32, posterior: f32) -> Asked {
    let passages = ["Paris is in France.", "Rome is in Italy."];
    Asked::new(
        pair("Paris", Some("right")),
        answer(text, p, posterior, passages),
    )
}

/// Right answers are sure and from one passage, wrong ones are neither, but for some.
fn half(shift: usize) -> Vec<Asked> {
    (0..40)
        .map(|i| {
            let i = (7 * i + shift) % 40;
            let p = 0.05 + 0.02 * i as f32;
            let posterior = 0.5 + 0.012 * i as f32;
            let is_right = i > 25 || [0, 5, 10, 15, 20, 25].contains(&i);
            let mut asked = asked(if is_right { "Paris" } else { "Rome" }, p, posterior);
            let passages = ["Rome is in Italy.", "Berlin is in Germany."];
            asked.removed = Some(answer("Rome", p / 3.0, 0.5, passages));
            asked
        })
        .collect()
}

#[test]
fn measures_are_those_of_the_questions_that_were_not_fitted_to() {
    let (fit, measure) = (half(0), half(3));
    let trust = Trust::of(&fit, &measure).unwrap();
    assert_eq!((trust.fitted, trust.measured), (40, 40));
    assert_eq!(trust.exact_match, 20.0 / 40.0);
    assert_eq!(trust.calibration(), calibrate(&judged(&fit)).unwrap());
    let kinds: Vec<_> = trust.confidences.iter().map(|one| one.kind).collect();
    use ConfidenceKind::{All, Entropy, Probability, Temperature};
    assert_eq!(kinds, [Probability, Temperature, Entropy, All]);
    for confidence in &trust.confidences {
        let of = |answer: &Answer| confidence.calibration.confidence(answer.signals());
        let measured: Vec<_> = (measure.iter())
            .map(|asked| (of(&asked.answer), asked.is_right()))
            .collect();
        assert_eq!(confidence.brier, brier(&measured).unwrap());
        assert_eq!(confidence.auroc, auroc(&measured).unwrap());
        assert_eq!(confidence.area, RiskCoverage::of(&measured).unwrap().area());
        let counts = confidence.reliability.bins.iter().map(|bin| bin.count);
        assert_eq!(counts.sum::<usize>(), 40);
        assert_eq!(confidence.abstention.len(), 6);
        for abstention in &confidence.abstention {
            let answered: Vec<_> = (measured.iter())
                .filter(|one| one.0 >= abstention.threshold)
                .collect();
            assert_eq!(abstention.coverage, answered.len() as f64 / 40.0);
            let right = answered.iter().filter(|one| one.1).count();
            let exact = right as f64 / answered.len() as f64;
            assert_eq!(abstention.exact_match, Some(exact));
            let removed = measure
                .iter()
                .filter(|asked| of(asked.removed.as_ref().unwrap()) < abstention.threshold);
            let abstained = removed.count() as f64 / 40.0;
            assert_eq!(abstention.abstained_removed, Some(abstained));
            // Both halves have the same answers, in another order.
            assert!(abstention.coverage >= abstention.wanted - 1e-9);
        }
    }
    // A temperature does not change what ranks alone decide.
    let [probability, temperature, ..] = &trust.confidences[..] else {
        panic!("four confidences")
    };
    assert_eq!(probability.auroc, temperature.auroc);
    assert_eq!(probability.auroc_removed, temperature.auroc_removed);
    assert!(temperature.brier < probability.brier);
    assert_eq!(trust.right_without_passage, Some(0.0));
}

#[test]
fn the_posterior_is_judged_where_the_right_passage_was_retrieved() {
    let mut measure = vec![asked("Paris", 0.9, 0.8), asked("Rome", 0.9, 0.4)];
    measure.push(Asked::new(
        pair("Paris", Some("elsewhere")),
        answer("Rome", 0.5, 0.9, ["", ""]),
    ));
    let fit = [asked("Paris", 0.9, 0.8), asked("Rome", 0.9, 0.2)];
    let documents = Trust::of(&fit, &measure).unwrap().documents.unwrap();
    assert_eq!((documents.questions, documents.accuracy), (2, 0.5));
    // 1/2 · (1 - 0.8) + 1/2 · 0.6
    assert!((documents.before - 0.4).abs() < 1e-6, "{documents:?}");
    // Right once at 0.8 and wrong once at 0.8: nothing is known.
    assert!(documents.temperature.0 > 0.99 * super::Temperature::MOST);
    assert!((documents.after - 0.5).abs() < 1e-3, "{documents:?}");
    let elsewhere = &measure[2..];
    assert_eq!(Trust::of(&fit, elsewhere).unwrap().documents, None);
}

#[test]
fn provenance_by_hand() {
    // The answer is in the passage of the highest posterior.
    let mut first = asked("Paris", 0.9, 0.8);
    first.left_out = Some(LeftOut {
        best: answer("Rome", 0.5, 0.5, ["", ""]),
        least: answer("PARIS!", 0.9, 0.9, ["", ""]),
        similar: Some(1),
    });
    // A wrong answer, from the wrong passage, that points at the right one.
    let mut second = asked("Rome", 0.9, 0.8);
    second.left_out = Some(LeftOut {
        best: answer("Rome", 0.5, 0.5, ["", ""]),
        least: answer("Rome.", 0.9, 0.9, ["", ""]),
        similar: Some(1),
    });
    // In Chinese, without a known passage; nothing was left out.
    let third = Asked::new(
        pair("北京", None),
        answer("北京", 0.9, 0.3, ["首都是北京。", "上海。"]),
    );
    let found = Provenance::of(&[first, second, third]).unwrap();
    let close = |found: Holds, accepted: f64, given: f64| {
        assert!((found.accepted - accepted).abs() < 1e-12, "{found:?}");
        assert!((found.given - given).abs() < 1e-12, "{found:?}");
    };
    // Equal priors: the first passage.
    close(found.prior, 1.0, 2.0 / 3.0);
    close(found.posterior, 2.0 / 3.0, 1.0 / 3.0);
    close(found.similar.unwrap(), 0.0, 0.5);
    close(found.random, 0.5, 0.5);
    close(found.any, 1.0, 1.0);
    let changed = Changed {
        questions: 2,
        best: 0.5,
        least: 0.0,
    };
    assert_eq!(found.left_out, Some(changed));
    // Each answer is one token, which one of two passages holds.
    let tokens = found.tokens.unwrap();
    assert_eq!(tokens.tokens, 3);
    assert!((tokens.largest - 1.0 / 3.0).abs() < 1e-12);
    assert!((tokens.prior - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!(tokens.random, 0.5);
    assert!((tokens.whole - 1.0 / 3.0).abs() < 1e-12);
}

#[test]
fn provenance_of_answers_without_passages_tokens_or_text() {
    let bare = Answer {
        tokens: Vec::new(),
        evidence: Vec::new(),
        ..answer("", 0.5, 0.5, ["", ""])
    };
    let found = Provenance::of(&[Asked::new(pair("x", None), bare)]).unwrap();
    let nothing = Provenance {
        questions: 1,
        ..Provenance::default()
    };
    assert_eq!(found, nothing);
    let empty = Provenance::of(&[asked("", 0.5, 0.5)]).unwrap();
    assert_eq!((empty.any.given, empty.tokens), (0.0, None));
    assert!(matches!(Provenance::of(&[]), Err(Error::NoExamples)));
}

#[test]
fn questions_that_are_all_right_or_all_wrong_have_numbers_too() {
    for (text, exact) in [("Paris", 1.0), ("Rome", 0.0)] {
        let all: Vec<_> = [0.2, 0.5, 0.9].map(|p| asked(text, p, 0.6)).into();
        let trust = Trust::of(&all, &all).unwrap();
        assert_eq!(trust.exact_match, exact);
        for confidence in &trust.confidences {
            assert_eq!(confidence.auroc, None);
            assert!((confidence.area - (1.0 - exact)).abs() < 1e-12);
            assert_eq!(confidence.auroc_removed, None);
            assert_eq!(confidence.abstention[0].abstained_removed, None);
        }
        // The rule of succession.
        let last = trust.calibration().confidence(all[0].answer.signals());
        let expected = if exact == 1.0 { 0.8 } else { 0.2 };
        assert!((last - expected).abs() < 1e-9, "{last}");
    }
}

#[test]
fn nothing_to_measure_and_no_number_are_refused() {
    let some = [asked("Paris", 0.5, 0.5)];
    assert!(matches!(Trust::of(&[], &some), Err(Error::NoExamples)));
    assert!(matches!(Trust::of(&some, &[]), Err(Error::NoExamples)));
    let nan = [asked("Paris", f32::NAN, 0.5)];
    assert!(matches!(Trust::of(&nan, &some), Err(Error::Number { .. })));
    assert!(matches!(Trust::of(&some, &nan), Err(Error::Number { .. })));
}

#[test]
fn it_prints_tables_reads_back_and_is_a_page() {
    let trust = Trust::of(&half(0), &half(3)).unwrap();
    let printed = trust.to_string();
    let rows: Vec<_> = printed
        .lines()
        .filter(|line| line.starts_with('|'))
        .collect();
    // Heads, rules, 4 confidences, 6 thresholds of 3 confidences, 5 passages.
    assert_eq!(rows.len(), 3 * 2 + 4 + 18 + 5, "{printed}");
    assert!(
        printed.contains("| P(y\\|x), tokens and entropy |"),
        "{printed}"
    );
    assert!(
        printed.starts_with("Fitted to 40 questions and measured on 40 others, of which 50.0 %")
    );
    assert!(!printed.contains("NaN"));
    for table in printed.split("\n\n").filter(|part| part.contains("---")) {
        let columns = |row: &str| row.replace("\\|", "").matches('|').count();
        let mut rows = table.trim().lines().map(columns);
        let first = rows.next().unwrap();
        assert!(rows.all(|columns| columns == first), "{table}");
    }
    let json = serde_json::to_string(&trust).unwrap();
    let read: Trust = serde_json::from_str(&json).unwrap();
    // JSON is read to the last digit but one.
    assert_eq!(read.to_string(), printed);
    assert_eq!(read.confidences.len(), 4);
    let asked = serde_json::to_string(&half(0)).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Asked>>(&asked).unwrap(), half(0));

    let page = trust.to_html("开放 <b>");
    assert!(page.contains("开放 &lt;b&gt;") && page.ends_with("</html>\n"));
    for chart in [
        "Reliability by mean confidence",
        "Risk and coverage by questions answered",
    ] {
        assert!(page.contains(chart), "{chart}");
    }
    assert_eq!(page.matches("<svg").count(), 2);
    assert_eq!(page.matches("path class=\"curve\"").count(), 5 + 4);
    assert!(!page.contains("NaN"));
}
