//! The same weights in each kind of file.

use std::{fs, path::Path};

use burn_rag::{
    core::{
        checkpoint::{Tensors, Weights, gguf::Gguf, write_json, write_safetensors},
        nn::{Precision, store_weights_as},
    },
    generate::generator::Generator,
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Map, json};

/// A file of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// `model.safetensors` in f32.
    F32,
    /// `model.safetensors`, matrices in bf16.
    Bf16,
    /// The same in two shards.
    Sharded,
    /// GGUF, matrices in Q8_0 where their rows are whole blocks.
    Q8,
}

pub const SAFETENSORS: [File; 3] = [File::F32, File::Bf16, File::Sharded];

impl File {
    /// Writes the weights of a generator into `folder`.
    pub fn write(self, generator: &Generator, folder: &Path) {
        let generator = match self {
            Self::F32 | Self::Q8 => generator.clone(),
            Self::Bf16 | Self::Sharded => store_weights_as(generator.clone(), Precision::Bf16),
        };
        let mut tensors = Tensors::default();
        generator.store(&mut tensors, "");
        fs::create_dir_all(folder).unwrap();
        let path = folder.join("model.safetensors");
        write_safetensors(&path, &tensors).unwrap();
        match self {
            Self::F32 | Self::Bf16 => {}
            Self::Sharded => shard(&path, folder),
            Self::Q8 => {
                let gguf = gguf(&fs::read(&path).unwrap());
                fs::write(folder.join("model.gguf"), gguf).unwrap();
                fs::remove_file(path).unwrap();
            }
        }
    }

    pub fn open(self, folder: &Path) -> Weights {
        match self {
            Self::Q8 => Weights::from_gguf(&Gguf::open(folder.join("model.gguf")).unwrap()),
            _ => Weights::open(folder),
        }
        .unwrap()
    }
}

/// Puts every other tensor of a file into a second one.
fn shard(path: &Path, folder: &Path) {
    let bytes = fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut names = tensors.names();
    names.sort_unstable();
    let mut map = Map::new();
    for shard in 0..2 {
        let file = format!("model-0000{}-of-00002.safetensors", shard + 1);
        let names = names.iter().skip(shard).step_by(2);
        let views: Vec<(&str, TensorView<'_>)> = names
            .map(|name| (*name, tensors.tensor(name).unwrap()))
            .collect();
        map.extend(
            views
                .iter()
                .map(|(name, _)| (name.to_string(), json!(file))),
        );
        fs::write(
            folder.join(&file),
            safetensors::serialize(views, None).unwrap(),
        )
        .unwrap();
    }
    let index = json!({"metadata": {}, "weight_map": map});
    write_json(folder.join("model.safetensors.index.json"), &index).unwrap();
    fs::remove_file(path).unwrap();
}

/// llama.cpp's names.
const NAMES: [(&str, &str); 15] = [
    ("model.layers.", "blk."),
    ("model.embed_tokens.", "token_embd."),
    ("model.norm.", "output_norm."),
    ("lm_head.", "output."),
    (".input_layernorm.", ".attn_norm."),
    (".post_attention_layernorm.", ".ffn_norm."),
    (".self_attn.q_proj.", ".attn_q."),
    (".self_attn.k_proj.", ".attn_k."),
    (".self_attn.v_proj.", ".attn_v."),
    (".self_attn.o_proj.", ".attn_output."),
    (".self_attn.q_norm.", ".attn_q_norm."),
    (".self_attn.k_norm.", ".attn_k_norm."),
    (".mlp.gate_proj.", ".ffn_gate."),
    (".mlp.up_proj.", ".ffn_up."),
    (".mlp.down_proj.", ".ffn_down."),
];

/// A GGUF file with the tensors of a safetensors file in f32, as a Qwen2's or Qwen3's: of these no rows are interleaved.
fn gguf(safetensors: &[u8]) -> Vec<u8> {
    let tensors = SafeTensors::deserialize(safetensors).unwrap();
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let count = |key: &str, value: u32| {
        [&text(key)[..], &4_u32.to_le_bytes(), &value.to_le_bytes()].concat()
    };
    let has_norms = tensors.names().iter().any(|name| name.contains("q_norm"));
    let architecture = if has_norms { "qwen3" } else { "qwen2" };
    let layers = (0..)
        .take_while(|layer| {
            let prefix = format!("model.layers.{layer}.");
            tensors.names().iter().any(|name| name.starts_with(&prefix))
        })
        .count();
    let width = tensors.tensor("model.norm.weight").unwrap().shape()[0];
    let entries = [
        [
            text("general.architecture"),
            8_u32.to_le_bytes().to_vec(),
            text(architecture),
        ]
        .concat(),
        count(&format!("{architecture}.block_count"), layers as u32),
        count(&format!("{architecture}.attention.head_count"), 2),
        count(&format!("{architecture}.embedding_length"), width as u32),
    ];
    let (mut infos, mut data) = (Vec::new(), Vec::new());
    for (name, view) in tensors.iter() {
        assert_eq!(view.dtype(), Dtype::F32);
        let name = (NAMES.iter()).fold(name.to_owned(), |name, (theirs, ours)| {
            name.replace(theirs, ours)
        });
        let numbers: Vec<f32> = view.data().chunks_exact(4).map(number).collect();
        let shape = view.shape();
        let in_blocks = shape.len() == 2 && shape[1].is_multiple_of(32);
        infos.extend(text(&name));
        infos.extend((shape.len() as u32).to_le_bytes());
        (shape.iter().rev()).for_each(|size| infos.extend((*size as u64).to_le_bytes()));
        infos.extend(if in_blocks { 8_u32 } else { 0 }.to_le_bytes());
        infos.extend((data.len() as u64).to_le_bytes());
        match in_blocks {
            true => data.extend(numbers.chunks_exact(32).flat_map(block)),
            false => data.extend(view.data()),
        }
        data.resize(data.len().next_multiple_of(32), 0);
    }
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((entries.len() as u64).to_le_bytes());
    file.extend(entries.concat());
    file.extend(infos);
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    file
}

fn number(bytes: &[u8]) -> f32 {
    f32::from_le_bytes(bytes.try_into().unwrap())
}

/// A block of Q8_0: a scale of 1/128 in f16, and 32 integers.
fn block(numbers: &[f32]) -> Vec<u8> {
    let integers = numbers.iter().map(|number| (number * 128.0) as i8 as u8);
    0x2000_u16
        .to_le_bytes()
        .into_iter()
        .chain(integers)
        .collect()
}
