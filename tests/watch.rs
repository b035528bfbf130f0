//! A run is watched: monitors warn of bad runs and of no good one, the log survives a kill, the report
//! shows everything.

// Long because: each thing that goes wrong in a run is told by the same made-up run.

#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, io::Write};

use burn_rag::train::{
    Error,
    watch::{
        Action, EvaluationMetrics, Event, ExamplePassage, ExampleRow, MetricsLog, Monitor,
        MonitorConfig, Observation, QuestionObservation, RunReport, StepMetrics, Warning,
        WarningKind,
    },
};
use common::Random;
use serde_json::json;

/// Passages of each question.
const N_DOCS: usize = 5;

const KNOWLEDGE: usize = 1_000;

/// A retrieved passage.
#[derive(Clone, Copy)]
struct Found {
    passage: usize,
    score: f64,
    /// log P(y|x,z).
    likelihood: f64,
}

/// The passages that a question retrieves, by its number.
type World = fn(usize, &mut Random) -> [Found; N_DOCS];

/// Passages of its own for each question; scores are flat.
fn own_passages(question: usize, mut likelihood: impl FnMut(usize) -> f64) -> [Found; N_DOCS] {
    std::array::from_fn(|rank| Found {
        passage: (question * 7 + rank * 131) % KNOWLEDGE,
        score: -0.3 * rank as f64,
        likelihood: likelihood(rank),
    })
}

/// The passage that holds the answer is at any rank, and the generator reads it.
fn healthy(question: usize, random: &mut Random) -> [Found; N_DOCS] {
    let gold = random.below(N_DOCS as u64) as usize;
    own_passages(question, |rank| answered(rank == gold, random))
}

/// The best passage holds every answer.
fn perfect_retriever(question: usize, random: &mut Random) -> [Found; N_DOCS] {
    own_passages(question, |rank| answered(rank == 0, random))
}

/// The same where the retriever knows: P(z|x,y) is P(z|x), nearly.
fn perfect_and_sure(question: usize, random: &mut Random) -> [Found; N_DOCS] {
    let mut found = perfect_retriever(question, random);
    found[0].score = 12.0;
    found
}

/// The generator prefers the second passage by a factor of e³, whatever it says.
fn second_slot(question: usize, random: &mut Random) -> [Found; N_DOCS] {
    own_passages(question, |rank| {
        let likelihood = if rank == 1 { -3.0 } else { -6.0 };
        likelihood + 0.1 * f64::from(random.unit())
    })
}

fn ignored(question: usize, random: &mut Random) -> [Found; N_DOCS] {
    own_passages(question, |_| -4.0 + 0.01 * f64::from(random.unit()))
}

/// The same passages for every question, which explain nothing.
fn collapsed(_question: usize, random: &mut Random) -> [Found; N_DOCS] {
    [7, 3, 9, 1, 4].map(|passage| Found {
        passage,
        score: 0.2 * f64::from(random.unit()),
        likelihood: -6.0 + f64::from(random.unit()),
    })
}

/// Six passages take turns and explain nothing.
fn six_useless_passages(question: usize, random: &mut Random) -> [Found; N_DOCS] {
    std::array::from_fn(|rank| Found {
        passage: (question + rank) % 6,
        score: 0.0,
        likelihood: -6.0 + f64::from(random.unit()),
    })
}

/// The knowledge base is large, but all questions are about six of its passages.
fn about_six_passages(question: usize, random: &mut Random) -> [Found; N_DOCS] {
    std::array::from_fn(|rank| Found {
        passage: (question + rank) % 6,
        score: 0.0,
        likelihood: answered(rank == 0, random),
    })
}

/// All questions are rightly about one passage, and the retriever is sure of it.
fn about_one_passage(question: usize, random: &mut Random) -> [Found; N_DOCS] {
    let mut found = about_six_passages(question, random);
    found[0].passage = 7;
    found[0].score = 9.0;
    found
}

/// log P(y|x,z) of a generator that reads: answers are more or less hard to guess without their passage.
fn answered(gold: bool, random: &mut Random) -> f64 {
    let guess = -8.0 + 4.0 * f64::from(random.unit());
    if gold { -0.5 } else { guess }
}

fn softmax(logits: [f64; N_DOCS]) -> Vec<f32> {
    let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
    logits
        .iter()
        .map(|logit| (logit.exp() / sum) as f32)
        .collect()
}

/// A run of eight questions a step, out of 200 that come again and again.
struct Steps {
    step: usize,
    random: Random,
    knowledge: usize,
}

impl Steps {
    fn new() -> Self {
        Self {
            step: 0,
            random: Random(1),
            knowledge: KNOWLEDGE,
        }
    }

    fn next(&mut self, world: World) -> Observation {
        let questions = (0..8).map(|i| {
            let number = (self.step * 8 + i) % 200;
            let found = world(number, &mut self.random);
            QuestionObservation {
                question: format!("question {number}"),
                passages: found.map(|found| found.passage).to_vec(),
                prior: softmax(found.map(|found| found.score)),
                posterior: softmax(found.map(|found| found.score + found.likelihood)),
            }
        });
        let questions = questions.collect();
        self.step += 1;
        Observation {
            step: self.step,
            knowledge: self.knowledge,
            questions,
            loss_per_token: 0.8,
            ..Observation::default()
        }
    }

    /// All warnings of 150 steps.
    fn watch(mut self, world: World) -> Vec<Warning> {
        let mut monitor = Monitor::new(MonitorConfig::default()).unwrap();
        (0..150)
            .flat_map(|_| monitor.observe(&self.next(world)))
            .collect()
    }
}

fn kinds(warnings: &[Warning]) -> Vec<WarningKind> {
    warnings.iter().map(Warning::kind).collect()
}

#[test]
fn good_runs_are_silent() {
    let good: [(&str, World); 5] = [
        ("healthy", healthy),
        ("about one passage", about_one_passage),
        ("about six passages", about_six_passages),
        ("perfect retriever", perfect_retriever),
        ("perfect and sure", perfect_and_sure),
    ];
    for (name, world) in good {
        assert_eq!(Steps::new().watch(world), [], "{name}");
    }
}

#[test]
fn collapse_is_seen_once() {
    let worlds: [World; 2] = [collapsed, six_useless_passages];
    for world in worlds {
        let warnings = Steps::new().watch(world);
        assert_eq!(kinds(&warnings), [WarningKind::Collapse]);
        let Warning::Collapse {
            questions,
            distinct,
            expected,
            odds,
            ..
        } = warnings[0]
        else {
            unreachable!()
        };
        // 32 questions are the first to be looked at: 1000 (1 - 0.995³²) passages.
        assert_eq!(questions, 32);
        assert!((expected - 148.2).abs() < 0.1, "{expected}");
        assert!(distinct <= 6 && odds < 3.0);
    }
    let warning = &Steps::new().watch(collapsed)[0];
    let Warning::Collapse { share, passage, .. } = *warning else {
        unreachable!()
    };
    assert_eq!((share, passage), (1.0, 7));
    let text = warning.to_string();
    for told in ["100.0 %", "position 7", "5 different", "148", "checkpoint"] {
        assert!(text.contains(told), "{told}: {text}");
    }
}

/// Where there are few passages, any search finds the same ones.
#[test]
fn a_tiny_knowledge_base_does_not_collapse() {
    let steps = Steps {
        knowledge: 4 * N_DOCS - 1,
        ..Steps::new()
    };
    assert_eq!(steps.watch(collapsed), []);
    let steps = Steps {
        knowledge: 4 * N_DOCS,
        ..Steps::new()
    };
    assert_eq!(kinds(&steps.watch(collapsed)), [WarningKind::Collapse]);
}

#[test]
fn a_preferred_slot_is_seen() {
    let warnings = Steps::new().watch(second_slot);
    assert_eq!(kinds(&warnings), [WarningKind::SlotBias]);
    let Warning::SlotBias {
        rank,
        posterior,
        prior,
        spread,
        ..
    } = warnings[0]
    else {
        unreachable!()
    };
    // P(z|x) of the second of five scores 0.3 apart, and its odds times e³.
    let weights: Vec<f64> = (0..5).map(|i| (-0.3 * f64::from(i)).exp()).collect();
    let expected = weights[1] / weights.iter().sum::<f64>();
    let odds = expected / (1.0 - expected) * 3f64.exp();
    assert_eq!(rank, 2);
    assert!((prior - expected).abs() < 1e-6);
    assert!((posterior - odds / (1.0 + odds)).abs() < 0.01);
    assert!(spread < 0.1);
}

#[test]
fn ignored_passages_are_seen_after_the_warmup() {
    let mut monitor = Monitor::new(MonitorConfig::default()).unwrap();
    let mut steps = Steps::new();
    for step in 1..=150 {
        let mut observation = steps.next(ignored);
        observation.loss_per_token = 1.5;
        let warnings = monitor.observe(&observation);
        if step == 101 {
            assert_eq!(kinds(&warnings), [WarningKind::GeneratorIgnoresPassages]);
            assert!(warnings[0].to_string().contains("learn to read"));
        } else {
            assert_eq!(warnings, [], "{step}");
        }
    }
    let by_heart = Warning::GeneratorIgnoresPassages {
        questions: 200,
        spread: 0.01,
        divergence: 1e-4,
        loss_per_token: 0.01,
    };
    assert!(by_heart.to_string().contains("known by heart"));
}

/// A warning is over where it is better than nine tenths of its threshold, and may come again then.
#[test]
fn a_warning_comes_again_only_after_it_went_away() {
    let actions = [(WarningKind::StaleIndex, Action::RefreshIndex)];
    let mut monitor = Monitor::new(MonitorConfig {
        actions: actions.into(),
        ..MonitorConfig::default()
    })
    .unwrap();
    let mut observe = |recall_stored, cosine| {
        let warnings = monitor.observe(&Observation {
            recall_stored,
            recall_fresh: Some(0.7),
            probe_cosine: Some(cosine),
            ..Observation::default()
        });
        kinds(&warnings)
    };
    use WarningKind::{QueryDrift, StaleIndex};
    assert_eq!(observe(Some(0.68), 0.9), []);
    assert_eq!(observe(Some(0.6), 0.9), [StaleIndex]);
    assert_eq!(observe(Some(0.5), 0.4), [QueryDrift]);
    assert_eq!(observe(None, 0.4), [], "not measured is not better");
    assert_eq!(observe(Some(0.6), 0.52), []);
    assert_eq!(observe(Some(0.653), 0.49), [], "hardly better");
    assert_eq!(observe(Some(0.6), 0.6), []);
    assert_eq!(observe(Some(0.69), -0.1), [QueryDrift]);
    assert_eq!(observe(Some(0.6), f64::NAN), [StaleIndex]);
    assert_eq!(monitor.action(StaleIndex), Action::RefreshIndex);
    assert_eq!(monitor.action(QueryDrift), Action::Warn);
}

#[test]
fn a_resumed_monitor_warns_as_it_would_have() {
    let world = |step: usize| -> World {
        match step {
            0..30 | 90..130 => healthy,
            30..90 => collapsed,
            130..180 => second_slot,
            _ => ignored,
        }
    };
    let warn = |resume_at: &[usize]| {
        let mut monitor = Monitor::new(MonitorConfig {
            window: 64,
            ..MonitorConfig::default()
        })
        .unwrap();
        let mut steps = Steps::new();
        let mut warnings = Vec::new();
        for step in 0..240 {
            if resume_at.contains(&step) {
                let state = serde_json::to_string(&monitor).unwrap();
                let resumed: Monitor = serde_json::from_str(&state).unwrap();
                assert_eq!(resumed, monitor);
                monitor = resumed;
            }
            let found = monitor.observe(&steps.next(world(step)));
            warnings.extend(found.into_iter().map(|warning| (step, warning)));
        }
        warnings
    };
    let uninterrupted = warn(&[]);
    let seen: Vec<_> = uninterrupted
        .iter()
        .map(|(_, warning)| warning.kind())
        .collect();
    use WarningKind::{Collapse, GeneratorIgnoresPassages, SlotBias};
    assert_eq!(seen, [Collapse, SlotBias, GeneratorIgnoresPassages]);
    assert_eq!(warn(&[10, 35, 60, 132, 200]), uninterrupted);
}

#[test]
fn broken_observations_are_passed_over_and_settings_checked() {
    let mut monitor = Monitor::new(MonitorConfig::default()).unwrap();
    let fresh = monitor.clone();
    let whole = QuestionObservation {
        question: "x".into(),
        passages: vec![1, 2],
        prior: vec![0.5, 0.5],
        posterior: vec![0.5, 0.5],
    };
    let broken = vec![
        QuestionObservation {
            prior: vec![f32::NAN, 0.5],
            ..whole.clone()
        },
        QuestionObservation {
            posterior: vec![1.0],
            ..whole.clone()
        },
        QuestionObservation::default(),
    ];
    let mut observation = Observation {
        questions: broken,
        ..Observation::default()
    };
    assert_eq!(monitor.observe(&observation), []);
    assert_eq!(monitor, fresh);
    observation.questions = vec![whole];
    assert!((observation.prior_entropy() - 2f64.ln()).abs() < 1e-12);
    assert_eq!(observation.distinct_passages(), 2);

    for config in [
        MonitorConfig {
            window: 10,
            ..MonitorConfig::default()
        },
        MonitorConfig {
            slot_spread: f64::NAN,
            ..MonitorConfig::default()
        },
    ] {
        assert!(matches!(Monitor::new(config), Err(Error::Setting { .. })));
    }
}

fn step(step: usize) -> Event {
    Event::Step(StepMetrics {
        step,
        epoch: 1 + step / 1_000,
        examples: 8,
        tokens: 40,
        loss: 100.0,
        loss_per_token: 0.25 + 4.0 / (1.0 + step as f64 / 400.0),
        gradient_norm: (!step.is_multiple_of(97)).then_some(0.5),
        learning_rate: 3e-5,
        retriever_learning_rate: 1e-5,
        loss_scale: 1.0,
        taken: !step.is_multiple_of(97),
        skipped_steps: step / 97,
        seconds: 0.5,
        examples_per_second: 16.0,
        prior_entropy: 1.25,
        posterior_entropy: 0.75,
        distinct_passages: 30,
        resident_bytes: Some(3 << 30),
    })
}

fn evaluation(step: usize) -> Event {
    Event::Evaluation(EvaluationMetrics {
        step,
        epoch: 1,
        questions: 50,
        exact_match: 0.5,
        f1: 0.625,
        recall: vec![(1, 0.5), (5, 0.75)],
        loss_per_token: Some(1.5),
        seconds: 2.0,
    })
}

fn not_finite(step: usize) -> Event {
    Event::Warning {
        step,
        action: Action::Stop,
        warning: Warning::NotFinite {
            tensor: "loss".into(),
            batch: vec!["长江有多长？".into(), "<script>alert(1)</script>".into()],
        },
    }
}

#[test]
fn every_event_is_a_line_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run/metrics.jsonl");
    let events = vec![
        step(1),
        step(97),
        evaluation(97),
        not_finite(97),
        Event::Refresh {
            step: 97,
            generation: 2,
        },
        Event::Checkpoint { step: 97 },
    ];
    let mut log = MetricsLog::create(&path).unwrap();
    for (i, event) in events.iter().enumerate() {
        log.append(event).unwrap();
        let written = fs::read_to_string(&path).unwrap();
        assert_eq!(written.lines().count(), i + 1, "written at once");
    }
    assert_eq!(MetricsLog::read(&path).unwrap(), events);
    let written = fs::read_to_string(&path).unwrap();
    let names = [
        "step",
        "step",
        "evaluation",
        "warning",
        "refresh",
        "checkpoint",
    ];
    for (line, name) in written.lines().zip(names) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["event"], name);
    }
    // Numbers that are not finite come back as such.
    let lost = Event::Step(StepMetrics {
        step: 98,
        loss: f64::INFINITY,
        loss_per_token: f64::NAN,
        ..StepMetrics::default()
    });
    log.append(&lost).unwrap();
    let read = MetricsLog::read(&path).unwrap();
    let Some(Event::Step(read)) = read.last() else {
        panic!("{read:?}")
    };
    assert!(read.loss.is_nan() && read.loss_per_token.is_nan() && read.step == 98);
}

#[test]
fn a_resumed_log_has_no_doubles() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let mut log = MetricsLog::resume(&path, 5).unwrap();
    let kept = [
        step(1),
        step(2),
        evaluation(2),
        Event::Checkpoint { step: 2 },
    ];
    let redone = [not_finite(2), step(3), Event::Checkpoint { step: 3 }];
    for event in kept.iter().chain(&redone) {
        log.append(event).unwrap();
    }
    drop(log);
    // Killed in the middle of a character.
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"event\":\"warning\",\"batch\":[\"\xe9\x95")
        .unwrap();
    assert_eq!(
        MetricsLog::read(&path).unwrap(),
        [&kept[..], &redone[..]].concat()
    );

    let mut log = MetricsLog::resume(&path, 2).unwrap();
    assert_eq!(MetricsLog::read(&path).unwrap(), kept);
    log.append(&step(3)).unwrap();
    assert_eq!(
        MetricsLog::read(&path).unwrap(),
        [&kept[..], &[step(3)]].concat()
    );
    // A step without the line of its checkpoint.
    MetricsLog::resume(&path, 1).unwrap();
    assert_eq!(MetricsLog::read(&path).unwrap(), kept[..1]);
    // All of the only line is torn.
    fs::write(&path, "{\"event\"").unwrap();
    MetricsLog::resume(&path, 1).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"");

    fs::write(&path, "{\"event\":\"checkpoint\",\"step\":1}\nnonsense\n").unwrap();
    for error in [
        MetricsLog::read(&path).unwrap_err(),
        MetricsLog::resume(&path, 9).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Metrics { line: 2, .. }), "{error}");
    }
}

fn report(events: Vec<Event>) -> RunReport {
    let passage = |title: &str, prior, posterior, gold| ExamplePassage {
        title: title.into(),
        text: "长江是亚洲第一长河。<b>".repeat(100),
        prior,
        posterior,
        gold,
    };
    let example = ExampleRow {
        question: "<script>alert('x')</script> 长江?".into(),
        accepted: vec!["6,300 km".into(), "\"六千\"".into()],
        answer: "6,300 km & more".into(),
        exact: false,
        passages: vec![
            passage("长江", 0.25, 0.875, true),
            passage("Nile <i>", 0.75, 0.125, false),
        ],
    };
    RunReport {
        title: "Run <1>".into(),
        model: "BART, 长".into(),
        versions: vec![("burn-rag".into(), "0.1.0".into())],
        seed: 42,
        settings: json!({"epochs": 3, "decay": 0.001_f32, "monitor": {"window": 256, "rate": 3e-5, "actions": {}}, "path": "</td>"}),
        events,
        trust: None,
        examples: vec![example; 12],
    }
}

#[test]
fn a_report_of_a_long_run_shows_everything_and_stays_small() {
    let mut events = Vec::new();
    for i in 1..=10_000 {
        events.push(step(i));
        if i % 50 == 0 {
            events.push(evaluation(i));
        }
        if i % 30 == 0 {
            events.push(not_finite(i));
        }
        if i % 1_000 == 0 {
            events.push(Event::Refresh {
                step: i,
                generation: i / 1_000,
            });
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    report(events).write(&path).unwrap();
    let page = fs::read_to_string(path).unwrap();
    assert!(page.len() < 1_000_000, "{}", page.len());
    for title in [
        "Loss per token",
        "Held-out answers",
        "Held-out recall",
        "Entropy over passages",
        "Different passages retrieved",
        "Gradient norm",
        "Speed",
        "Learning rate",
    ] {
        assert!(page.contains(&format!("<h3>{title}</h3>")), "{title}");
    }
    for name in [
        "training, mean",
        "held out",
        "F1",
        "exact match",
        "recall@1",
        "recall@5",
        "P(z|x), mean",
        "P(z|x,y), mean",
        "generator",
        "retriever",
    ] {
        assert!(page.contains(&format!("</i>{name}</span>")), "{name}");
    }
    let curves = page.matches("class=\"curve\" d=\"M").count();
    assert_eq!(curves, 3 + 2 + 2 + 4 + 2 + 2 + 2 + 2);
    for path in page.split("class=\"curve\" d=\"").skip(1) {
        let points = path.split('"').next().unwrap();
        assert!(points.matches(['M', 'L']).count() <= 600);
        assert!(!points.contains("NaN") && !points.contains("inf"));
    }
    assert_eq!(page.matches("class=\"example\"").count(), 10);
    assert_eq!(page.matches("<li>").count(), 100);
    assert!(page.contains("And 233 more, which the metrics file has."));
    assert!(page.contains("step 97 was skipped"));
    assert!(page.contains("<th>monitor.window</th><td dir=\"auto\">256</td>"));
    assert!(page.contains("<th>decay</th><td dir=\"auto\">0.001</td>"));
    // Nothing is fetched from elsewhere.
    for outside in ["http", "src=", "<link", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn nothing_of_the_texts_becomes_markup() {
    let page = report(vec![step(1), not_finite(1), evaluation(1)]).to_html();
    for kept_out in [
        "<script",
        "<b>长",
        "Nile <i>",
        "</td></td>",
        "Run <1>",
        "km & ",
    ] {
        assert!(!page.contains(kept_out), "{kept_out}");
    }
    assert!(page.contains("&lt;script&gt;alert('x')&lt;/script&gt; 长江?"));
    assert!(page.contains("&quot;&lt;script&gt;alert(1)&lt;/script&gt;&quot;"));
    assert!(page.contains("<td dir=\"auto\">&lt;/td&gt;</td>"));
}

#[test]
fn a_report_of_nothing_is_a_page_too() {
    let page = RunReport::default().to_html();
    assert_eq!(page.matches("Not measured in this run.").count(), 8);
    assert!(page.ends_with("</html>\n"));
}
