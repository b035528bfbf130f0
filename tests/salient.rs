//! Salient spans, and the start that a model gets from them.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashSet;

use burn_rag::{
    prelude::*,
    train::{
        Bootstrap, Error, InverseCloze, SalientSpans, bootstrap, cloze_pairs,
        salient::{Span, SpanKind, salient_spans},
    },
};
use common::{Random, alone};

/// The spans of a text, each with the letter of its kind.
fn spans(text: &str) -> Vec<String> {
    let letter = |kind| match kind {
        SpanKind::Date => 'd',
        SpanKind::Name => 'n',
        SpanKind::Number => '#',
    };
    salient_spans(text)
        .into_iter()
        .map(|span| format!("{}:{}", letter(span.kind), &text[span.bytes]))
        .collect()
}

fn check(cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        assert_eq!(spans(text), *expected, "{text}");
    }
}

#[test]
fn english_dates_numbers_and_names() {
    check(&[
        (
            "She was born on 12 March 1998 in Oslo.",
            &["d:12 March 1998", "n:Oslo"],
        ),
        ("It opened on March 12, 1998.", &["d:March 12, 1998"]),
        ("It opened in March 1998, in spring.", &["d:March 1998"]),
        (
            "The file is from 1998-03-12, a Thursday.",
            &["d:1998-03-12"],
        ),
        (
            "Rents rose in the 1990s and fell in 2008.",
            &["d:1990s", "d:2008"],
        ),
        (
            "The war (1914–18) came after the 19th century.",
            &["d:1914–18", "d:19th century"],
        ),
        ("He ruled Athens until 429 BC.", &["n:Athens", "d:429 BC"]),
        (
            "The hall has 2000 seats and 1,802 windows.",
            &["#:2000", "#:1,802"],
        ),
        (
            "Growth was 3.5% or $1.5 million a year.",
            &["#:3.5%", "#:$1.5 million"],
        ),
        (
            "It covers 581,309 km2, or 224,445 sq mi.",
            &["#:581,309", "#:224,445"],
        ),
        (
            "They came 3rd with thirty-two points.",
            &["#:3rd", "#:thirty-two"],
        ),
        ("The F-16 runs version 3.1.4 over X.25 [12].", &["n:F-16"]),
        (
            "About two million people speak Kikuyu.",
            &["#:two million", "n:Kikuyu"],
        ),
        (
            "During the reign of Catherine the Great it grew.",
            &["n:Catherine the Great"],
        ),
        (
            "The University of Chicago and MIT agreed.",
            &["n:University of Chicago", "n:MIT"],
        ),
        ("However, this is rarely so.", &[]),
        (
            "Britain's navy met the fleet of Spain near Cape St. Vincent.",
            &["n:Spain", "n:Cape St. Vincent"],
        ),
        (
            "In 1862 Joseph Thompson saw Mt. Kenya.",
            &["d:1862", "n:Joseph Thompson", "n:Mt. Kenya"],
        ),
        ("The novel \"War and Peace\" is long.", &["n:War and Peace"]),
        (
            "Élodie Durand visited São Paulo with Ünal.",
            &["n:Élodie Durand", "n:São Paulo", "n:Ünal"],
        ),
        ("", &[]),
        (" \n\n", &[]),
    ]);
}

#[test]
fn chinese_dates_numbers_and_names() {
    check(&[
        (
            "奥运会于2008年8月8日在北京开幕。",
            &["d:2008年8月8日", "n:北京"],
        ),
        (
            "秦始皇于公元前221年统一六国。",
            &["n:秦始皇", "d:公元前221年"],
        ),
        ("这在二十世纪很常见。", &["d:二十世纪"]),
        ("他生于一九四九年十月一日。", &["d:一九四九年十月一日"]),
        ("上世纪80年代开始流行。", &["d:80年代"]),
        ("长江全长6300公里。", &["n:长江", "#:6300公里"]),
        (
            "约有三千人参加，占百分之三十。",
            &["#:三千人", "#:百分之三十"],
        ),
        ("面积约为0.304平方公里，一个公园。", &["#:0.304平方公里"]),
        ("这里十分热闹，万人空巷。", &[]),
        ("他读过《红楼梦》。", &["n:红楼梦"]),
        ("后人称他为“诗圣”。", &["n:诗圣"]),
        ("她输给了弗拉维娅·佩内塔。", &["n:弗拉维娅·佩内塔"]),
        ("唐朝诗人杜甫住在成都。", &["n:杜甫", "n:成都"]),
        ("他毕业于北京大学。", &["n:北京大学"]),
        ("他在广东深圳求学。", &["n:广东", "n:深圳"]),
        ("由韩国Nexon开发。", &["n:韩国", "n:Nexon"]),
        ("他在1979至1997年任职。", &["d:1979至1997年"]),
        ("民国38年迁往台湾。", &["d:民国38年", "n:台湾"]),
        ("今天天气很好，零件齐全，有500座位。", &[]),
        ("价格为1.5万元，增长8%。", &["#:1.5万元", "#:8%"]),
        ("领地2万7000石，刘秀有功。", &["#:2万7000石", "n:刘秀"]),
        ("莫扎伊斯克位于俄罗斯。", &["n:莫扎伊斯克", "n:俄罗斯"]),
    ]);
}

/// Pieces of names and quantities among any characters there are.
fn text(random: &mut Random) -> String {
    const PIECES: &str = "Kenya|'s|of|the|Mt.| | |\n|1998|,|.|12|March|$|%|BC|–|-|年|月|8|《|》|“|”|·|维娅|\
        三千|人|北京|大学|。|third|century|A|I|e\u{301}|👩‍🔬|\u{200b}|İ|ß|の|한국";
    let all: Vec<&str> = PIECES.split('|').collect();
    let pieces = 1 + random.below(40);
    (0..pieces)
        .map(|_| match random.below(4) {
            0 => char::from_u32(random.below(0x11_0000) as u32)
                .unwrap_or(' ')
                .to_string(),
            _ => all[random.below(all.len() as u64) as usize].to_owned(),
        })
        .collect()
}

#[test]
fn spans_of_any_text_are_disjoint_and_whole_characters() {
    let mut random = Random(1);
    let mut found = 0;
    for _ in 0..3_000 {
        let text = text(&mut random);
        let spans = salient_spans(&text);
        for span in &spans {
            let content = text.get(span.bytes.clone()).unwrap();
            assert!(!content.is_empty(), "{text:?}");
            assert_eq!(content, content.trim(), "{text:?}");
        }
        let order = |pair: &[Span]| pair[0].bytes.end <= pair[1].bytes.start;
        assert!(spans.windows(2).all(order), "{text:?}: {spans:?}");
        found += spans.len();

        let passage = Passage::new("1", "", text.as_str());
        let settings = SalientSpans {
            min_words: 0,
            ..SalientSpans::default()
        };
        for pair in cloze_pairs(&[passage], &settings) {
            let question = pair.question.to_lowercase();
            assert!(
                !question.contains(&pair.answers[0].to_lowercase()),
                "{pair:?}"
            );
            assert_eq!(pair.question.matches("___").count(), 1, "{pair:?}");
        }
    }
    assert!(found > 3_000, "{found}");
}

fn passages() -> Vec<Passage> {
    [
        (
            "krakatoa",
            "Krakatoa",
            "The volcano of Krakatoa last erupted violently in August 1883. \
             The sound was heard in Perth, 3,110 km away, and on the island of Rodrigues. \
             About 36,000 people died, most of them in the tsunamis that followed on Java and Sumatra.",
        ),
        (
            "hamlet",
            "Hamlet",
            "The play was probably written by William Shakespeare between 1599 and 1601. \
             It has been translated into more than 75 languages and was first printed in London.",
        ),
        (
            "yangtze",
            "长江",
            "长江发源于青藏高原的唐古拉山脉，全长6300公里，在上海市注入东海。三峡大坝于2006年5月建成。",
        ),
        ("dull", "", "This sentence is about nothing in particular, and it names nobody at all."),
    ]
    .map(|(id, title, text)| Passage::new(id, title, text))
    .to_vec()
}

#[test]
fn pairs_ask_for_each_span_in_its_sentence() {
    let pairs = cloze_pairs(&passages(), &SalientSpans::default());
    let asked: Vec<_> = (pairs.iter())
        .map(|pair| (pair.id.as_str(), pair.answers[0].as_str()))
        .collect();
    assert_eq!(
        asked[..3],
        [
            ("krakatoa#15", "Krakatoa"),
            ("krakatoa#50", "August 1883"),
            ("krakatoa#86", "Perth")
        ]
    );
    assert_eq!(
        pairs[1].question,
        "The volcano of Krakatoa last erupted violently in ___."
    );
    assert_eq!(pairs[1].passage.as_deref(), Some("krakatoa"));
    assert!(
        !pairs
            .iter()
            .any(|pair| pair.passage.as_deref() == Some("dull"))
    );

    let ids: HashSet<_> = pairs.iter().map(|pair| &pair.id).collect();
    assert_eq!(ids.len(), pairs.len());
    let of_yangtze = pairs
        .iter()
        .find(|pair| pair.answers[0] == "6300公里")
        .unwrap();
    assert_eq!(
        of_yangtze.question,
        "长江发源于青藏高原的唐古拉山脉，全长___，在上海市注入东海。"
    );
}

#[test]
fn the_draw_follows_the_seed_and_takes_kinds_in_turn() {
    let drawn = |seed, per_passage| {
        let settings = SalientSpans {
            seed,
            per_passage,
            ..SalientSpans::default()
        };
        cloze_pairs(&passages(), &settings)
    };
    assert_eq!(drawn(3, 2), drawn(3, 2));
    assert!((0..10).any(|seed| drawn(seed, 2) != drawn(3, 2)));
    for seed in 0..10 {
        // Krakatoa has names, numbers and a single date: with three questions it is always asked for.
        let krakatoa: Vec<_> = drawn(seed, 3)
            .into_iter()
            .filter(|pair| pair.id.starts_with("krakatoa"))
            .collect();
        assert_eq!(krakatoa.len(), 3);
        assert!(krakatoa.iter().any(|pair| pair.answers[0] == "August 1883"));
    }
}

#[test]
fn settings_choose_what_is_asked() {
    let with = |change: &dyn Fn(&mut SalientSpans)| {
        let mut settings = SalientSpans::default();
        change(&mut settings);
        cloze_pairs(&passages(), &settings)
    };
    let dates = with(&|settings| settings.kinds = vec![SpanKind::Date]);
    let answers: Vec<_> = dates.iter().map(|pair| pair.answers[0].as_str()).collect();
    assert_eq!(answers, ["August 1883", "1599", "1601", "2006年5月"]);
    assert!(with(&|settings| settings.kinds.clear()).is_empty());
    assert!(with(&|settings| settings.min_words = 40).is_empty());
    assert!(with(&|settings| settings.max_words = 5).is_empty());
    let short = with(&|settings| settings.max_answer_words = 1);
    assert!(short.iter().all(|pair| !pair.answers[0].contains(' ')));
    let masked = with(&|settings| settings.mask = "<extra_id_0>".into());
    assert!(
        masked
            .iter()
            .all(|pair| pair.question.contains("<extra_id_0>"))
    );
}

#[test]
fn what_a_sentence_gives_away_is_not_asked_for() {
    let asked = |text: &str| {
        let pairs = cloze_pairs(&[Passage::new("1", "", text)], &SalientSpans::default());
        pairs
            .into_iter()
            .map(|pair| pair.answers[0].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        asked("They sailed from Kenya with a Kenyan crew of 40 men."),
        ["Kenyan", "40"]
    );
    // Repeated in another sentence it is asked for once.
    assert_eq!(
        asked(
            "They had lived in Nairobi for a long time. They had left Nairobi with all that they had."
        ),
        ["Nairobi"]
    );
    // Most of its sentence.
    assert!(asked("Written by Johann Wolfgang von Goethe.").is_empty());
    assert_eq!(
        asked("They met in the town of\nSan Juan, which lies on the coast."),
        ["San Juan"]
    );
}

fn scratch(passages: Vec<Passage>) -> Rag {
    let config = ScratchConfig {
        n_docs: 2,
        encoder_width: 32,
        generator_width: 32,
        generator_layers: 1,
        inverse_cloze: InverseCloze {
            steps: 10,
            ..InverseCloze::default()
        },
        ..ScratchConfig::default()
    };
    let mask = SalientSpans::default().mask;
    config
        .init(passages, &[mask.as_str()], &device("cpu").unwrap())
        .unwrap()
}

fn settings(epochs: usize, heldout: f64) -> Bootstrap {
    Bootstrap {
        salient: SalientSpans {
            per_passage: 2,
            ..SalientSpans::default()
        },
        training: TrainConfig {
            epochs,
            learning_rate: 1e-2,
            max_gradient_norm: 1.0,
            evaluate_every: 0,
            ..TrainConfig::default()
        },
        heldout,
    }
}

/// From documents alone: what was masked in the passages is answered.
#[test]
fn a_model_starts_from_documents_alone() {
    let _alone = alone();
    let settings = settings(50, 0.0);
    let (rag, report) = bootstrap(scratch(passages()), settings.clone()).unwrap();
    let (first, last) = (&report.epochs[0], &report.epochs[49]);
    assert!(
        last.loss_per_token < 0.1 * first.loss_per_token,
        "{report:?}"
    );
    assert_eq!(last.heldout, None);
    let unknown = rag.tokenizer().id("<unk>").unwrap();
    let masked = rag.tokenizer().encode_bare("长江于___年").unwrap();
    assert!(!masked.contains(&unknown));
    let pairs = cloze_pairs(&passages(), &settings.salient);
    let scores = evaluate::answers(&rag, &pairs, |_, _| {}).unwrap();
    assert!(scores.exact_match > 0.8, "{scores:?}");
}

#[test]
fn a_start_measures_on_what_it_holds_out_and_follows_its_seed() {
    let _alone = alone();
    let start = || bootstrap(scratch(passages()), settings(2, 0.4)).unwrap();
    let (rag, report) = start();
    assert_eq!(report.epochs[1].heldout.unwrap().answers.questions, 2);
    let (again, repeated) = start();
    assert_eq!(
        repeated.epochs[1].loss_per_token,
        report.epochs[1].loss_per_token
    );
    let ask = |rag: &Rag| rag.ask("The volcano of ___ last erupted in 1883.").unwrap();
    assert_eq!(ask(&again), ask(&rag));
}

#[test]
fn a_start_needs_spans_and_a_share() {
    let _alone = alone();
    let dull = Passage::new("1", "", "This sentence is about nothing in particular.");
    let also = Passage::new("2", "", "And neither is this one, as far as we know.");
    let rag = scratch(vec![dull, also]);
    let error = bootstrap(rag.clone(), Bootstrap::default()).err().unwrap();
    assert!(matches!(error, Error::NoSpans { passages: 2 }), "{error}");
    for heldout in [-0.1, 1.0, f64::NAN] {
        let settings = Bootstrap {
            heldout,
            ..Bootstrap::default()
        };
        let error = bootstrap(rag.clone(), settings).err().unwrap();
        assert!(
            matches!(
                error,
                Error::Setting {
                    setting: "heldout",
                    ..
                }
            ),
            "{error}"
        );
    }
}
