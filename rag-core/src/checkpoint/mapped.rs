//! Tensors that are a safetensors file, mapped into memory.
//!
//! Each has a map of its own, so that the system gets the memory of a tensor back when it is dropped,
//! cast or packed: opening a checkpoint in another format never holds both whole.

use std::{collections::BTreeMap, fs::File, io, ops::Range, path::Path, sync::Arc};

use burn::tensor::{AllocationProperty, BoolStore, Bytes, DType};
use burn_store::burn_pack;
use memmap2::{Mmap, MmapOptions};
use safetensors::{Dtype, SafeTensors};

use crate::error::{Error, Result};

/// The tensors of a file by name; no bytes are read yet but the header's.
pub(super) fn mapped_tensors(path: &Path) -> Result<BTreeMap<String, burn_pack::Tensor>> {
    let file = File::open(path).map_err(Error::io(path))?;
    let length = file.metadata().map_err(Error::io(path))?.len() as usize;
    let damaged = |reason: String| Error::DamagedWeights {
        path: path.to_owned(),
        reason,
    };
    let map = map(&file, 0..length).map_err(|error| damaged(error.to_string()))?;
    let contents = SafeTensors::deserialize(&map).map_err(|error| damaged(error.to_string()))?;
    let file = Arc::new(file);
    let mut tensors = BTreeMap::new();
    for (name, view) in contents.iter() {
        let dtype = dtype(view.dtype())
            .ok_or_else(|| damaged(format!("{name} has the type {:?}", view.dtype())))?;
        let start = view.data().as_ptr().addr() - map.as_ptr().addr();
        let range = start..start + view.data().len();
        // Numbers that do not lie where the processor wants them are copied, and all of them where a mapped
        // file cannot be replaced.
        let stays = start.is_multiple_of(dtype.size()) && cfg!(unix);
        let file = file.clone();
        let bytes = move || match self::map(&file, range.clone()) {
            _ if range.is_empty() => Ok(Bytes::from_bytes_vec(Vec::new())),
            Ok(map) if stays => Ok(Bytes::from_shared(
                bytes::Bytes::from_owner(map),
                AllocationProperty::File,
            )),
            Ok(map) => Ok(Bytes::from_bytes_vec(map.to_vec())),
            Err(error) => Err(burn_pack::Error::IoError(error.to_string())),
        };
        let length = view.data().len();
        let shape = view.shape().to_vec();
        let tensor =
            burn_pack::Tensor::deferred(name.to_owned(), dtype, shape, None, length, bytes);
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(tensors)
}

/// Part of a file in memory. `unsafe`, since Rust cannot know that nobody changes the file under the map.
#[allow(unsafe_code)]
pub(super) fn map(file: &File, range: Range<usize>) -> io::Result<Mmap> {
    let mut options = MmapOptions::new();
    options.offset(range.start as u64).len(range.len());
    unsafe { options.map(file) }
}

fn dtype(stored: Dtype) -> Option<DType> {
    Some(match stored {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U64 => DType::U64,
        Dtype::U32 => DType::U32,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool(BoolStore::Native),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use safetensors::tensor::TensorView;

    use super::*;

    #[test]
    fn numbers_are_found_wherever_they_lie() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let numbers = [1.5_f32, -2.0, 0.25];
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let view = |dtype, shape: Vec<usize>, bytes| TensorView::new(dtype, shape, bytes).unwrap();
        let views = [
            ("a", view(Dtype::F32, vec![3], &bytes[..])),
            ("b", view(Dtype::F32, vec![3], &bytes[..])),
            ("empty", view(Dtype::F32, vec![0, 2], &[][..])),
        ];
        fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        for shift in 0..2 {
            let mut file = fs::read(&path).unwrap();
            // A header that is longer by one moves what follows it.
            let length = u64::from_le_bytes(file[..8].try_into().unwrap()) + shift;
            file[..8].copy_from_slice(&length.to_le_bytes());
            (0..shift).for_each(|_| file.insert(8 + length as usize - 1, b' '));
            let moved = folder.path().join(format!("{shift}.safetensors"));
            fs::write(&moved, file).unwrap();
            let tensors = mapped_tensors(&moved).unwrap();
            for name in ["a", "b"] {
                let found = tensors[name].clone().into_bytes().unwrap();
                assert_eq!(&found[..], &bytes[..], "{name} moved by {shift}");
            }
            assert_eq!(tensors["empty"].clone().into_bytes().unwrap().len(), 0);
        }
    }

    #[test]
    fn what_is_changed_is_not_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let view = TensorView::new(Dtype::F32, vec![2], &[0; 8]).unwrap();
        fs::write(&path, safetensors::serialize([("a", view)], None).unwrap()).unwrap();
        let before = fs::read(&path).unwrap();
        let mut bytes = mapped_tensors(&path).unwrap()["a"]
            .clone()
            .into_bytes()
            .unwrap();
        bytes[0] = 7;
        assert_eq!(bytes[0], 7);
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}
