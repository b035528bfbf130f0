//! A decoder alone in training: the ids of its answers, padding, and the room for prompt and answer.

use burn_rag::{
    generate::{RagConfig, Template, decode::Control, generator::fixtures::changed},
    prelude::*,
    train::Error,
};

use super::{
    close,
    common::{self, KINDS, Kind, MODELS},
    config, pairs, parameters, rag_with, steps,
};

/// The generators that are a decoder alone.
fn decoders() -> impl Iterator<Item = Kind> {
    KINDS.into_iter().filter(|&kind| {
        let config = common::config(kind).generator;
        config.family().architecture().is_some()
    })
}

/// Were the ids of an answer others in training than where it is scored, its loss would be another: it is that of these
/// ids, the end token among them, and of none of the prompt.
#[test]
fn an_answer_to_a_template_has_the_same_ids_in_training_scoring_and_decoding() {
    let chat = "{% for message in messages %}{{ message.role }}:\n{{ message.content }}\n{% endfor %}\
                {% if add_generation_prompt %}assistant:\n{% endif %}";
    for kind in decoders() {
        for (template, lead) in [(Template::plain(), " "), (Template::chat(chat), "")] {
            for model in MODELS {
                let asked = |config: &mut RagConfig| config.template = Some(template.clone());
                let rag = rag_with(kind, asked).with_model(model);
                let (mut loss, mut tokens) = (0.0, 0);
                for pair in pairs() {
                    let text = &pair.answers[0][..];
                    let encoded = rag.tokenizer().encode_text(&format!("{lead}{text}"));
                    let end = rag.generation().eos_token_id[0];
                    let expected = [encoded.unwrap(), vec![end]].concat();
                    let ids = |answer: &Answer| {
                        let ids = answer.tokens.iter().map(|token| token.id);
                        ids.collect::<Vec<_>>()
                    };
                    let scored = rag.score(&pair.question, &[text]).unwrap();
                    assert_eq!(ids(&scored[0]), expected, "{kind:?}");
                    let answers = rag.allowed(&[text]).unwrap();
                    let allowed = answers.callback();
                    let control = Control::default().with_allowed(&allowed);
                    let decoded = rag.ask_with(&pair.question, control).unwrap();
                    assert_eq!(ids(&decoded), expected, "{kind:?}");
                    assert_eq!(decoded.text, text);
                    loss -= f64::from(scored[0].log_likelihood);
                    tokens += expected.len();
                }
                let (reports, _) = steps(rag, config(), 1);
                assert_eq!(reports[0].tokens, tokens);
                assert!(close(reports[0].loss, loss, 1e-4), "{reports:?} {loss}");
            }
        }
    }
}

/// Masks go by the length of a prompt and of an answer: published models pad with their end token.
#[test]
fn padding_may_be_the_end_token() {
    for kind in decoders() {
        let trained = |pad: Option<u32>| {
            let padded = |config: &mut RagConfig| {
                config.generator = changed(&config.generator, |fields| {
                    fields.insert("pad_token_id".into(), pad.into());
                });
            };
            let rag = rag_with(kind, padded);
            let found = (
                rag.config().generator.pad(),
                rag.generation().eos_token_id[0],
            );
            assert_eq!(found, (pad.unwrap_or(2), 2));
            let (reports, after) = steps(rag, config(), 3);
            (reports, parameters(&after))
        };
        assert_eq!(trained(None), trained(Some(1)));
    }
}

/// A decoder alone has positions for prompt and answer together.
#[test]
fn prompts_that_leave_no_room_for_an_answer_are_named() {
    let cut = |longest: usize| {
        rag_with(Kind::Llama, |config| {
            config.max_combined_length = longest;
            config.generator = changed(&config.generator, |fields| {
                fields.insert("max_position_embeddings".into(), 120.into());
            });
        })
    };
    let one_epoch = TrainConfig {
        epochs: 1,
        ..config()
    };
    let run = |longest| {
        let mut trainer = Trainer::new(cut(longest), one_epoch.clone()).unwrap();
        trainer.run(&pairs(), &[])
    };
    let error = run(300).unwrap_err();
    assert!(matches!(&error, Error::Pair { number: 1, .. }), "{error}");
    assert!(
        format!("{error:?}").contains("writes at most 1"),
        "{error:?}"
    );
    run(100).unwrap();
}
