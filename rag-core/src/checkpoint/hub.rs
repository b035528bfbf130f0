use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use hf_hub::{
    Cache, Repo, RepoType,
    api::sync::{ApiBuilder, ApiRepo},
};
use serde::Deserialize;

use super::read_json;
use crate::error::{Error, Result};

/// The files that a checkpoint folder needs beside weights, in whichever folder of a repository.
const FILES: [&str; 11] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "modules.json",
    "sentence_bert_config.json",
];

/// The folders of a repository that are looked into: its own, those of transformers' RAG, ours, and
/// sentence-transformers'.
const FOLDERS: [&str; 7] = [
    "",
    "question_encoder_tokenizer/",
    "generator_tokenizer/",
    "question_encoder/",
    "context_encoder/",
    "generator/",
    "1_Pooling/",
];

/// The weights in any of the ways in which they are published; the first one that is there is read.
const WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// Downloads a checkpoint such as `facebook/rag-token-nq` or `sentence-transformers/all-MiniLM-L6-v2`
/// and returns its local folder, laid out like the repository. With the name of a GGUF file after the repository's,
/// `owner/name/model.gguf`, it downloads that file and returns its path.
///
/// Configuration, weights (`safetensors` rather than `.bin`) and tokenizers are downloaded, nothing
/// else. They are kept in the hub's usual cache (`$HF_HOME`, by default `~/.cache/huggingface`), shared
/// with the Python libraries; what is there already is not downloaded again, and where the hub cannot
/// be reached, the copy of the last download is returned. Downloads show a progress bar. Private
/// repositories are read with the token that `hf auth login` stores; `$HF_ENDPOINT` names a mirror.
///
/// # Errors
/// [`Error::Hub`]; [`Error::Json`] for a malformed list of shards.
pub fn from_hub(name: &str) -> Result<PathBuf> {
    let (repository, gguf) = file_of(name);
    let api = ApiBuilder::from_env()
        .with_retries(3)
        .build()
        .map_err(failed(repository))?;
    let main = Cache::from_env().repo(Repo::model(repository.to_owned()));
    let info = match api.model(repository.to_owned()).info() {
        Ok(info) => info,
        Err(error) => {
            let config = main.get("config.json");
            let folder = || config.as_deref().and_then(Path::parent).map(Path::to_owned);
            let known = gguf.map_or_else(folder, |file| main.get(file));
            return known.ok_or_else(|| failed(repository)(error));
        }
    };
    let names: BTreeSet<_> = (info.siblings.into_iter())
        .map(|file| file.rfilename)
        .collect();
    // All files of one commit, should the repository change meanwhile.
    let commit = Repo::with_revision(repository.to_owned(), RepoType::Model, info.sha.clone());
    let repo = api.repo(commit);
    if let Some(file) = gguf {
        let path = download(&repo, repository, file)?;
        main.create_ref(&info.sha).map_err(failed(repository))?;
        return Ok(path);
    }
    let config = download(&repo, repository, "config.json")?;
    for name in FOLDERS.iter().flat_map(|folder| wanted(folder, &names)) {
        let path = download(&repo, repository, &name)?;
        if name.ends_with(".index.json") {
            for shard in shards(&path, &name, &names)? {
                download(&repo, repository, &shard)?;
            }
        }
    }
    // Only now is the copy complete.
    main.create_ref(&info.sha).map_err(failed(repository))?;
    Ok(config.parent().map(Path::to_owned).unwrap_or_default())
}

/// The repository, and the GGUF file in it that a name asks for.
fn file_of(name: &str) -> (&str, Option<&str>) {
    let end = name.match_indices('/').nth(1).map(|(end, _)| end);
    match end.map(|end| (&name[..end], &name[end + 1..])) {
        Some((repository, file)) if file.ends_with(".gguf") => (repository, Some(file)),
        _ => (name, None),
    }
}

fn download(repo: &ApiRepo, repository: &str, name: &str) -> Result<PathBuf> {
    repo.get(name).map_err(failed(repository))
}

/// The files to download from `folder`, of those that the repository has.
fn wanted(folder: &str, names: &BTreeSet<String>) -> Vec<String> {
    let present = |name: &&str| names.contains(&format!("{folder}{name}"));
    let weights = WEIGHTS.iter().find(|name| present(name));
    FILES
        .iter()
        .filter(|name| present(name))
        .chain(weights)
        .map(|name| format!("{folder}{name}"))
        .collect()
}

/// The files that an index lists, which lie beside it.
fn shards(path: &Path, name: &str, names: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let index: Index = read_json(path)?;
    let folder = name.rfind('/').map_or("", |end| &name[..=end]);
    let shards = index.weight_map.into_values();
    Ok(shards
        .map(|shard| format!("{folder}{shard}"))
        // Loading names what is missing; a name from a file is never taken for a path.
        .filter(|shard| names.contains(shard))
        .collect())
}

fn failed<E>(repository: &str) -> impl FnOnce(E) -> Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    let repository = repository.to_owned();
    move |source| Error::Hub {
        repository,
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn safetensors_come_before_pickles_and_other_files_stay() {
        let names = names(&[
            "README.md",
            "config.json",
            "model.safetensors",
            "onnx/model.onnx",
            "pytorch_model.bin",
            "tf_model.h5",
            "vocab.txt",
            "1_Pooling/config.json",
        ]);
        assert_eq!(
            wanted("", &names),
            ["config.json", "vocab.txt", "model.safetensors"]
        );
        assert_eq!(wanted("1_Pooling/", &names), ["1_Pooling/config.json"]);
        assert!(wanted("context_encoder/", &names).is_empty());
    }

    #[test]
    fn a_name_may_go_on_with_a_gguf_file() {
        assert_eq!(file_of("owner/name"), ("owner/name", None));
        let file = Some("deeper/model.gguf");
        assert_eq!(
            file_of("owner/name/deeper/model.gguf"),
            ("owner/name", file)
        );
        assert_eq!(file_of("owner/name/other"), ("owner/name/other", None));
    }

    #[test]
    fn shards_are_files_of_the_repository_beside_their_index() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join("index.json");
        let map =
            r#"{"weight_map": {"a": "b-1.safetensors", "c": "b-1.safetensors", "d": "../../e"}}"#;
        std::fs::write(&index, map).unwrap();
        let names = names(&["context_encoder/b-1.safetensors", "b-1.safetensors"]);
        let name = "context_encoder/model.safetensors.index.json";
        let found = shards(&index, name, &names).unwrap();
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            ["context_encoder/b-1.safetensors"]
        );
    }
}
