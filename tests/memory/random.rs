//! Models of random weights, which `benches/language_model.rs` measures.

use burn_rag::{
    core::{
        checkpoint::{Weights, read_json},
        parameters::for_each_parameter,
    },
    generate::generator::GeneratorConfig,
};

use crate::{
    common::cpu,
    counting::alone,
    random_model::{make, shape, tensors},
};

/// Parameters of the published models.
const PARAMETERS: [(&str, usize); 3] = [
    ("qwen2.5-0.5b", 494_032_768),
    ("llama-3.2-1b", 1_235_814_400),
    ("smollm2-1.7b", 1_711_376_384),
];

#[test]
fn a_random_model_has_the_parameters_of_its_namesake() {
    let _alone = alone();
    for (name, parameters) in PARAMETERS {
        let config = shape(name).unwrap();
        let generator = config.init(&cpu()).unwrap();
        let mut count = 0;
        for_each_parameter(&generator, |parameter| {
            count += parameter.shape().num_elements();
        });
        assert_eq!(count, parameters, "{name}");
        let made = tensors(&config).into_iter();
        let made: usize = made.map(|(_, shape)| shape.iter().product::<usize>()).sum();
        assert_eq!(made, parameters, "{name}");
    }
}

#[test]
fn a_random_model_loads() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let config = shape("tiny").unwrap();
    make(&config, folder.path()).unwrap();
    let read: GeneratorConfig = read_json(folder.path().join("config.json")).unwrap();
    assert_eq!(read, config);
    let mut weights = Weights::open(folder.path()).unwrap();
    read.load(&mut weights, "", &cpu()).unwrap();
    weights.finish(|_| false).unwrap();
    let error = shape("large").unwrap_err();
    assert!(error.to_string().contains("llama-3.2-1b"), "{error}");
}
