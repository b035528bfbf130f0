use std::{fs, io::ErrorKind, path::Path};

use burn::tensor::Device;
use rag_core::{
    Tokenizer,
    checkpoint::{Tensors, Weights, gguf::Gguf, read_json, write_json, write_safetensors},
    nn::Precision,
};
use serde_json::{Value, json};

use crate::{
    decode::GenerationConfig,
    error::{Error, Result},
    generator::{Generator, GeneratorConfig, LANGUAGE_MODELS},
    template::{TEMPLATE, Template},
};

/// A decoder-only generator with all that it needs to answer: what a GGUF file holds, or a folder that transformers'
/// `AutoModelForCausalLM` and `AutoTokenizer` open.
#[derive(Clone, Debug)]
pub struct LanguageModel {
    /// The weights.
    pub generator: Generator,
    /// The architecture and its sizes.
    pub config: GeneratorConfig,
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// How answers are decoded where nothing else is asked for, with every token that ends one.
    pub generation: GenerationConfig,
    /// The text around passage and question.
    pub template: Template,
}

const GENERATION: &str = "generation_config.json";

impl LanguageModel {
    /// Reads a GGUF file, or a folder with `config.json`, weights and `tokenizer.json`. Prompts are made by its chat template,
    /// or are [plain](Template::plain) where it has none.
    ///
    /// Weights are found and checked, and read when they are first used: the model is never in memory as f32 where
    /// [`LanguageModel::with_precision`] follows, which packs one matrix after the other.
    ///
    /// Of a folder's `generation_config.json` the special tokens count. How chats are to be sampled is no setting of answers,
    /// which are greedy and up to 64 tokens long where nothing else is asked for.
    ///
    /// # Errors
    /// Those of [`Gguf`], [`Weights`], [`Tokenizer::from_folder`] and [`Template`]; [`rag_core::Error::Config`] for an
    /// architecture that is not supported.
    pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let path = path.as_ref();
        let model = match path.is_dir() {
            true => Self::from_folder(path, device)?,
            false => Self::from_gguf(&Gguf::open(path)?, device)?,
        };
        model.tokenizer.fits(model.config.vocabulary())?;
        Ok(model)
    }

    fn from_folder(folder: &Path, device: &Device) -> Result<Self> {
        let path = folder.join("config.json");
        if !path.is_file() {
            let gguf = fs::read_dir(folder).into_iter().flatten().flatten();
            let mut gguf = gguf.map(|entry| entry.path());
            let gguf = gguf.find(|path| path.extension().is_some_and(|ending| ending == "gguf"));
            return Err(Error::Core(rag_core::Error::MissingFile {
                folder: folder.to_owned(),
                expected: match gguf {
                    Some(gguf) => {
                        format!(
                            "config.json (a model in it is {}: give that file)",
                            gguf.display()
                        )
                    }
                    None => "config.json".into(),
                },
            }));
        }
        let config = supported(read_json(&path)?, &path)?;
        if !folder.join("tokenizer.json").is_file() {
            return Err(Error::Core(rag_core::Error::MissingFile {
                folder: folder.to_owned(),
                expected:
                    "tokenizer.json, which transformers' AutoTokenizer writes with save_pretrained"
                        .into(),
            }));
        }
        let mut weights = Weights::open(folder)?;
        let generator = config.load(&mut weights, "", device)?;
        let family = config.family();
        weights.finish(|name| family.is_redundant(name))?;
        let mut generation = config.generation();
        let own = folder.join(GENERATION);
        if own.is_file() {
            let own = read_json::<GenerationConfig>(own)?.for_model(&generation);
            generation.bos_token_id = own.bos_token_id;
            generation.eos_token_id = own.eos_token_id;
            generation.pad_token_id = own.pad_token_id;
        }
        let tokenizer = Tokenizer::from_folder(folder)?;
        let template = Template::from_folder(folder)?.unwrap_or_else(Template::plain);
        let end = template.end(&tokenizer, &generation.eos_token_id);
        end_first(&mut generation.eos_token_id, end);
        Ok(Self {
            generator,
            tokenizer,
            template,
            generation,
            config,
        })
    }

    fn from_gguf(gguf: &Gguf, device: &Device) -> Result<Self> {
        let config = supported(gguf.config()?, gguf.path())?;
        let mut weights = Weights::from_gguf(gguf)?;
        let generator = config.load(&mut weights, "", device)?;
        let family = config.family();
        weights.finish(|name| family.is_redundant(name))?;
        let rebuilt = gguf.tokenizer()?;
        let template = Template::from_gguf(gguf, &rebuilt)?.unwrap_or_else(Template::plain);
        let mut generation = config.generation();
        let end = template.source().and(rebuilt.eot).or(rebuilt.eos);
        end_first(&mut generation.eos_token_id, end);
        Ok(Self {
            generator,
            tokenizer: Tokenizer::new(rebuilt.tokenizer, gguf.path()),
            template,
            generation,
            config,
        })
    }

    /// Writes a folder that transformers' `AutoModelForCausalLM` and `AutoTokenizer` open, and [`LanguageModel::load`]
    /// reads.
    ///
    /// # Errors
    /// [`rag_core::Error::Io`].
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        let path = folder.join("config.json");
        let mut config =
            serde_json::to_value(&self.config).map_err(rag_core::Error::json(&path))?;
        if let Some(class) = self.config.family().architecture() {
            config["architectures"] = json!([class]);
        }
        write_json(&path, &config)?;
        write_json(folder.join(GENERATION), &self.generation)?;
        let mut tensors = Tensors::default();
        self.generator.store(&mut tensors, "");
        write_safetensors(folder.join("model.safetensors"), &tensors)?;
        let token = |id: Option<u32>| id.and_then(|id| self.tokenizer.token(id));
        let mut settings = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": false,
            "bos_token": token(self.generation.bos_token_id),
            "eos_token": token(self.generation.eos_token_id.first().copied()),
            "pad_token": token(self.generation.pad_token_id),
        });
        if let Some(source) = self.template.source() {
            settings["chat_template"] = source.into();
            // The template may write it where there is one. A model may have one that its tokenizer does not.
            settings["bos_token"] = self.template.start().into();
        }
        // Settings that a chat template does not hold: texts around passage and question, date, system text.
        if self.template != self.template.as_published() {
            settings[TEMPLATE] =
                serde_json::to_value(&self.template).map_err(rag_core::Error::json(&path))?;
        }
        // In a folder that is written anew it would be read in place of the template above.
        match fs::remove_file(folder.join("chat_template.jinja")) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(rag_core::Error::io(folder)(error).into())
            }
            _ => Ok(self.tokenizer.save(folder, &settings)?),
        }
    }

    /// The same model for answering in `precision`.
    ///
    /// # Errors
    /// Those of [`Generator::with_precision`].
    pub fn with_precision(mut self, precision: Precision) -> Result<Self> {
        self.generator = self.generator.with_precision(precision)?;
        Ok(self)
    }
}

/// The configuration of a decoder alone that there is a generator for.
fn supported(config: Value, path: &Path) -> Result<GeneratorConfig> {
    let kind = config["model_type"].as_str().unwrap_or("nothing");
    if !LANGUAGE_MODELS.contains(&kind) {
        return Err(Error::Core(rag_core::Error::Config {
            field: format!("model_type in {}", path.display()),
            found: kind.into(),
            expected: format!(
                "a language model that is supported: {}",
                LANGUAGE_MODELS.join(", ")
            ),
        }));
    }
    Ok(serde_json::from_value(config).map_err(rag_core::Error::json(path))?)
}

/// Puts the end of a message before the other ends: trained and scored answers end with it.
fn end_first(ends: &mut Vec<u32>, end: Option<u32>) {
    if let Some(end) = end {
        ends.retain(|&known| known != end);
        ends.insert(0, end);
    }
}

#[cfg(test)]
mod tests {
    use rag_core::device;
    use tokenizers::{AddedToken, models::wordlevel::WordLevel};

    use super::*;
    use crate::generator::fixtures::{Fixture, Tiny};

    /// Its messages end with token 3, its texts with token 2; there is no BOS in its chats.
    fn model() -> LanguageModel {
        let (config, generator) = Fixture::Llama.generator(Tiny::default(), 1);
        let marks = ["<s>", "<pad>", "</s>", "<eot>"];
        let words = marks.map(str::to_owned).into_iter().zip(0..).collect();
        let words = WordLevel::builder().vocab(words).unk_token("<pad>".into());
        let mut tokenizer = tokenizers::Tokenizer::new(words.build().unwrap());
        tokenizer.add_special_tokens(&marks.map(|mark| AddedToken::from(mark, true)));
        let source =
            "{% if bos_token %}{{ bos_token }}{% endif %}{{ messages[0].content + eos_token }}";
        let mut generation = config.generation();
        generation.eos_token_id = vec![3, 2];
        LanguageModel {
            generator,
            config,
            tokenizer: Tokenizer::new(tokenizer, "memory"),
            generation,
            template: Template::chat(source).with_tokens(None, Some("<eot>".into())),
        }
    }

    #[test]
    fn a_saved_chat_template_is_rendered_with_the_same_tokens() {
        let model = model();
        let folder = tempfile::tempdir().unwrap();
        model.save(folder.path()).unwrap();
        let loaded = LanguageModel::load(folder.path(), &device("cpu").unwrap()).unwrap();
        assert_eq!(loaded.template, model.template);
        assert_eq!(loaded.generation, model.generation);
    }

    /// As in Gemma's folders, `eos_token` ends texts, and messages end with another token.
    #[test]
    fn answers_end_as_messages_do() {
        let mut model = model();
        let source = "{% for message in messages %}{{ message.content }} <eot>\n{% endfor %}";
        model.template = Template::chat(source).with_tokens(None, Some("</s>".into()));
        model.generation.eos_token_id = vec![2, 3];
        let folder = tempfile::tempdir().unwrap();
        model.save(folder.path()).unwrap();
        let loaded = LanguageModel::load(folder.path(), &device("cpu").unwrap()).unwrap();
        assert_eq!(loaded.generation.eos_token_id, [3, 2]);
    }
}
