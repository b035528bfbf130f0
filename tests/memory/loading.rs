//! Weights on their way from a file into packed matrices.

use std::path::Path;

use burn_rag::{
    burn::{module::Module, tensor::Tensor},
    core::{
        TokenBatch,
        checkpoint::{Tensors, Weights},
        nn::{Precision, store_weights_as},
        parameters::for_each_parameter,
    },
    generate::{
        LanguageModel, Template,
        generator::{
            Cache, Generator, GeneratorConfig,
            fixtures::{Fixture, Tiny, seeded},
        },
    },
};

use crate::{
    common::{KINDS, Kind, cpu, generator_tokenizer},
    counting::{alone, peak_and_kept},
    files::{File, SAFETENSORS},
};

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];

/// Sizes whose rows are whole blocks of GGUF, most of them.
const TINY: Tiny = Tiny {
    vocabulary: 40,
    d_model: 32,
    heads: 2,
    hidden: 64,
    encoder_layers: 2,
    decoder_layers: 2,
    positions: 32,
};

/// The parameters as they are multiplied, and logits.
fn bits(generator: &Generator) -> (String, Vec<u32>) {
    let contexts = TokenBatch::new(&[vec![3, 4, 5, 6], vec![7, 8]], 1, &cpu());
    let memory = generator.encode(&contexts, Precision::F32);
    let ids = Tensor::from_data([[2, 9, 4], [2, 5, 3]], &cpu());
    let logits = generator.decode(ids, &memory, &mut Cache::default(), Precision::F32);
    let logits = logits.into_data().iter::<f32>().map(f32::to_bits).collect();
    let (mut tensors, mut hash) = (Tensors::default(), blake3::Hasher::new());
    generator.store(&mut tensors, "");
    tensors.hash(&mut hash).unwrap();
    (hash.finalize().to_string(), logits)
}

fn load(config: &GeneratorConfig, mut weights: Weights) -> Generator {
    let generator = config.load(&mut weights, "", &cpu()).unwrap();
    weights.finish(|_| false).unwrap();
    generator
}

/// Reads every parameter.
fn read(generator: &Generator) {
    for_each_parameter(generator, |parameter| drop(parameter.matrix()));
}

#[test]
fn what_is_packed_while_it_is_read_is_what_is_packed_afterwards() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let (config, generator) = kind.generator(TINY, 5);
        for file in SAFETENSORS {
            let folder = folder.path().join(format!("{kind:?}-{file:?}"));
            file.write(&generator, &folder);
            let stored = match file {
                File::F32 => generator.clone(),
                _ => store_weights_as(
                    store_weights_as(generator.clone(), Precision::Bf16),
                    Precision::F32,
                ),
            };
            for precision in PRECISIONS {
                let expected = stored.clone().with_precision(precision).unwrap();
                let found = load(&config, file.open(&folder)).with_precision(precision);
                let found = found.unwrap();
                assert!(
                    bits(&found) == bits(&expected),
                    "{kind:?} from {file:?} in {precision:?}"
                );
            }
        }
    }
}

#[test]
fn of_gguf_too() {
    let _alone = alone();
    for kind in [Kind::Qwen2, Kind::Qwen3] {
        let folder = tempfile::tempdir().unwrap();
        let (config, generator) = kind.generator(TINY, 5);
        File::Q8.write(&generator, folder.path());
        for precision in PRECISIONS {
            let expected = load(&config, File::Q8.open(folder.path()));
            read(&expected);
            let expected = expected.with_precision(precision).unwrap();
            let found = load(&config, File::Q8.open(folder.path())).with_precision(precision);
            assert!(
                bits(&found.unwrap()) == bits(&expected),
                "{kind:?} in {precision:?}"
            );
        }
    }
}

/// Of the parameters, 6.4 million, the word embeddings are the largest matrix.
fn config() -> GeneratorConfig {
    (Fixture::Qwen2.config)(Tiny {
        vocabulary: 2048,
        d_model: 256,
        heads: 8,
        hidden: 1024,
        decoder_layers: 6,
        ..TINY
    })
}

const LARGEST: u64 = 2048 * 256 * 4;

/// Bytes of the parameters in f32.
fn full(generator: &impl Module) -> u64 {
    let mut count = 0;
    for_each_parameter(generator, |parameter| {
        count += parameter.shape().num_elements() as u64;
    });
    4 * count
}

/// A language model is loaded and packed in the memory that it keeps, and about one matrix more.
fn takes_what_it_keeps(precision: Precision, load: impl FnOnce() -> Generator) {
    let (peak, kept, generator) = peak_and_kept(load);
    let full = full(&generator);
    let share = kept as f64 / full as f64;
    println!("{precision:?}: {kept} kept of {full} in f32, {peak} at most");
    // A matrix in f32, its numbers rounded, and what is packed of it.
    assert!(
        peak < kept + 2 * LARGEST,
        "{precision:?}: {peak} bytes at most, {kept} kept"
    );
    match precision {
        Precision::Bf16 => assert!(share < 0.65, "{share} of f32"),
        Precision::Int8 => assert!(share < 0.45, "{share} of f32"),
        _ => assert!(share < 1.05, "{share} of f32"),
    }
}

fn generator(config: &GeneratorConfig) -> Generator {
    seeded(config.init(&cpu()).unwrap(), 3)
}

/// A folder as `LanguageModel::load` reads it, its weights in `file`.
fn save(file: File, folder: &Path) {
    let config = config();
    let model = LanguageModel {
        generator: generator(&config),
        generation: config.generation(),
        tokenizer: generator_tokenizer(Fixture::Qwen2),
        template: Template::plain(),
        config,
    };
    model.save(folder).unwrap();
    file.write(&model.generator, folder);
}

#[test]
fn a_model_is_never_in_memory_as_f32_on_its_way_into_another_precision() {
    let _alone = alone();
    for file in [File::F32, File::Bf16, File::Sharded] {
        let folder = tempfile::tempdir().unwrap();
        save(file, folder.path());
        for precision in [Precision::Bf16, Precision::Int8] {
            takes_what_it_keeps(precision, || {
                let model = LanguageModel::load(folder.path(), &cpu()).unwrap();
                model.with_precision(precision).unwrap().generator
            });
        }
    }
}

#[test]
fn nor_is_one_of_a_gguf_file() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let config = config();
    File::Q8.write(&generator(&config), folder.path());
    for precision in [Precision::Bf16, Precision::Int8] {
        takes_what_it_keeps(precision, || {
            let generator = load(&config, File::Q8.open(folder.path()));
            generator.with_precision(precision).unwrap()
        });
    }
}

#[test]
fn a_model_in_f32_is_in_memory_once() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let config = config();
    for file in [File::Bf16, File::Q8] {
        let folder = folder.path().join(format!("{file:?}"));
        file.write(&generator(&config), &folder);
        takes_what_it_keeps(Precision::F32, || {
            let generator = load(&config, file.open(&folder));
            read(&generator);
            generator
        });
    }
}
