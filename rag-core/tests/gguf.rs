//! GGUF files against gguf-py and llama.cpp, and damaged ones.
//!
//! Each file `x.gguf` of `tests/golden/gguf` and of the folder `$RAG_GGUF_CASES` is compared with the
//! `x.gguf.json` beside it, which `scripts/make_gguf_reference.py` writes.

#![allow(clippy::unwrap_used)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use bytes::Bytes;
use rag_core::checkpoint::gguf::{Gguf, GgufTokenizer};
use serde::Deserialize;
use tokenizers::{NormalizedString, Normalizer, Tokenizer, normalizers::NormalizerWrapper};

/// Counts what a thread allocates.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.get() + layout.size() as isize;
        HELD.set(held);
        PEAK.set(PEAK.get().max(held));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.set(HELD.get() - layout.size() as isize);
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that `f` held at most, beyond those held before.
fn peak<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = f();
    (result, (PEAK.get() - before) as usize)
}

#[derive(Deserialize)]
struct Reference {
    tokens: Vec<(String, Vec<u32>)>,
    with_marks: Vec<(String, Vec<u32>)>,
    end_tokens: Vec<u32>,
    tensors: BTreeMap<String, String>,
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/gguf")
}

/// Each file that has a reference, and the reference.
fn cases() -> Vec<(PathBuf, Reference)> {
    let folders = [
        Some(golden()),
        std::env::var_os("RAG_GGUF_CASES").map(PathBuf::from),
    ];
    let mut cases = Vec::new();
    for folder in folders.into_iter().flatten() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let reference = path.with_extension("gguf.json");
            if path
                .extension()
                .is_some_and(|extension| extension == "gguf")
                && reference.is_file()
            {
                let reference = serde_json::from_slice(&fs::read(reference).unwrap()).unwrap();
                cases.push((path, reference));
            }
        }
    }
    cases
}

/// Whether the tokenizer takes `text` as it is. llama.cpp does not compose accents for models that do so.
fn composed(tokenizer: &Tokenizer, text: &str) -> bool {
    match tokenizer.get_normalizer() {
        Some(NormalizerWrapper::NFC(nfc)) => {
            let mut normalized = NormalizedString::from(text);
            nfc.normalize(&mut normalized).unwrap();
            normalized.get() == text
        }
        _ => true,
    }
}

fn tokenizer(path: &Path) -> GgufTokenizer {
    Gguf::open(path).unwrap().tokenizer().unwrap()
}

#[test]
fn texts_have_the_ids_that_llama_cpp_gives_them() {
    for (path, reference) in cases() {
        let plain = tokenizer(&path);
        assert_eq!(plain.end_tokens, reference.end_tokens, "{}", path.display());
        // As `tokenizer.json` gives it back.
        let json = plain.tokenizer.to_string(false).unwrap();
        let mut with_marks: Tokenizer = json.parse().unwrap();
        let mut plain = plain.tokenizer;
        plain.set_encode_special_tokens(true);
        with_marks.set_encode_special_tokens(false);
        let (mut wrong, mut compared) = (Vec::new(), 0);
        for (marks, cases) in [(false, &reference.tokens), (true, &reference.with_marks)] {
            let tokenizer = if marks { &with_marks } else { &plain };
            for (text, expected) in cases {
                if !composed(tokenizer, text) {
                    continue;
                }
                compared += 1;
                let found = tokenizer.encode(text.as_str(), marks).unwrap();
                if found.get_ids() != expected {
                    wrong.push(format!(
                        "{text:?}: {expected:?}, found {:?}",
                        found.get_ids()
                    ));
                }
            }
        }
        println!(
            "{}: {} of {compared} texts differ",
            path.display(),
            wrong.len()
        );
        assert!(compared > 0);
        wrong.truncate(5);
        assert!(wrong.is_empty(), "{}: {}", path.display(), wrong.join("\n"));
    }
}

#[test]
fn text_comes_back_from_its_ids() {
    for (path, reference) in cases() {
        let tokenizer = tokenizer(&path).tokenizer;
        let (mut same, mut all) = (0, 0);
        for (text, ids) in &reference.tokens {
            let decoded = tokenizer.decode(ids, false).unwrap();
            all += 1;
            same += usize::from(decoded == *text);
        }
        println!("{}: {same} of {all} texts come back", path.display());
        // A model that adds a space before text adds one after each mark too, which nothing takes away.
        assert!(same * 100 > 85 * all, "{same} of {all}");
    }
}

#[test]
fn tensors_are_those_that_gguf_py_reads() {
    for (path, reference) in cases() {
        let gguf = Gguf::open(&path).unwrap();
        let started = Instant::now();
        let mut found = BTreeMap::new();
        for weight in gguf.weights().unwrap() {
            let numbers = weight.to_f32();
            assert_eq!(weight.shape().iter().product::<usize>(), numbers.len());
            let mut hasher = blake3::Hasher::new();
            for chunk in numbers.chunks(1 << 12) {
                let bytes: Vec<u8> = chunk.iter().flat_map(|x| x.to_le_bytes()).collect();
                hasher.update(&bytes);
            }
            found.insert(
                weight.name().to_owned(),
                hasher.finalize().to_hex().to_string(),
            );
        }
        let (count, took) = (found.len(), started.elapsed());
        println!("{}: {count} tensors in {took:?}", path.display());
        assert_eq!(found, reference.tensors, "{}", path.display());
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

fn mutated(file: &[u8], header: usize, random: &mut Random) -> Vec<u8> {
    let mut file = file.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(header.min(file.len()).max(1));
        if file.is_empty() {
            break;
        }
        match random.below(6) {
            0 => file.truncate(at.max(1)),
            1 => file[at] ^= 1 << random.below(8),
            2 => file[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            3 => {
                // A length or a count of another size.
                let extreme = [
                    0,
                    1,
                    u64::MAX,
                    i64::MAX as u64,
                    1 << 32,
                    1 << 20,
                    file.len() as u64,
                ];
                let bytes = extreme[random.below(7)].to_le_bytes();
                let end = file.len().min(at + 8);
                file[at..end].copy_from_slice(&bytes[..end - at]);
            }
            4 => {
                let end = file.len().min(at + random.below(64));
                file.drain(at..end);
            }
            _ => {
                let copied = file[at..file.len().min(at + random.below(64))].to_vec();
                file.splice(at..at, copied);
            }
        }
    }
    file
}

/// `RAG_GGUF_MUTATIONS=100000` for as many as before a release.
#[test]
fn no_damaged_file_panics_or_takes_more_memory_than_it_has_bytes() {
    let count = std::env::var("RAG_GGUF_MUTATIONS").map_or(20_000, |count| count.parse().unwrap());
    let mut random = Random(19);
    let files: Vec<Vec<u8>> = ["blocks", "pieces", "pairs"]
        .map(|name| fs::read(golden().join(name).with_extension("gguf")).unwrap())
        .into();
    let (mut opened, mut used) = (0, 0);
    for i in 0..count {
        let file = &files[i % files.len()];
        // The header is what can do harm; three in four mutations are in its first part.
        let header = if i % 4 == 0 {
            file.len()
        } else {
            file.len().min(4096)
        };
        let damaged = mutated(file, header, &mut random);
        let length = damaged.len();
        let bytes = Bytes::from(damaged);
        let (gguf, held) = peak(|| Gguf::from_bytes(bytes, "damaged.gguf"));
        // The path, the error's text and the descriptions of one tensor.
        assert!(held <= length + 2048, "{held} bytes for {length}");
        let Ok(gguf) = gguf else { continue };
        opened += 1;
        let (config, tokenizer) = (gguf.config(), gguf.tokenizer());
        let (weights, _) = (gguf.weights(), gguf.rope_factors());
        used += usize::from(config.is_ok() && tokenizer.is_ok() && weights.is_ok());
        if let Ok(tokenizer) = tokenizer {
            tokenizer.tokenizer.encode("a text <s> 12", true).unwrap();
        }
        for weight in weights.into_iter().flatten() {
            let rows = weight.rows();
            let mut row = vec![0.0; weight.columns()];
            weight.read_rows(rows - 1..rows, &mut row);
        }
    }
    println!("{opened} of {count} damaged files open, {used} hold a model");
    assert!(opened > 0 && opened < count);
}

#[test]
fn large_counts_in_small_files_take_no_memory() {
    let text = |text: &str| {
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes
    };
    let file = |tensors: u64, entries: u64, rest: &[Vec<u8>]| {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(entries.to_le_bytes());
        bytes.extend(rest.concat());
        bytes
    };
    let number = |number: u64| number.to_le_bytes().to_vec();
    let kind = |kind: u32| kind.to_le_bytes().to_vec();
    let zeros = vec![0; 1 << 20];
    let many = [number(1), vec![b'a'], kind(0), vec![7]].concat();
    for file in [
        file(u64::MAX, 0, &[]),
        file(0, u64::MAX, &[]),
        file(1 << 40, 1 << 40, std::slice::from_ref(&zeros)),
        // A byte array that is as long as the file.
        file(
            0,
            1,
            &[text("a"), kind(9), kind(0), number(1 << 20), zeros.clone()],
        ),
        // An array whose length overflows with the size of its items.
        file(
            0,
            1,
            &[
                text("a"),
                kind(9),
                kind(12),
                number(u64::MAX / 4),
                zeros.clone(),
            ],
        ),
        // Texts of no letters.
        file(
            0,
            1,
            &[text("a"), kind(9), kind(8), number(1 << 17), zeros.clone()],
        ),
        // Arrays in arrays.
        file(
            0,
            1,
            &[
                text("a"),
                vec![[9, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0].to_vec(); 9999].concat(),
            ],
        ),
        // As many entries as there is room for.
        file(0, 1 << 16, &[many.repeat(1 << 16)]),
    ] {
        let length = file.len();
        let bytes = Bytes::from(file);
        let (opened, held) = peak(|| Gguf::from_bytes(bytes, "hostile.gguf").map(|_| ()));
        assert!(opened.is_err());
        assert!(held <= length + 2048, "{held} bytes for {length}");
    }
}
