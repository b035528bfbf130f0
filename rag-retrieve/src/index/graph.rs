use std::{
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use ndarray::{ArrayView1, ArrayView2, Axis};
use rag_core::atomic::write_file;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use usearch::{Index as Graph, IndexOptions, MetricKind, ScalarKind, b1x8};

use super::{FlatIndex, Hit, Index, check_queries, check_scores};
use crate::{
    error::{Error, Result},
    index::error::IndexError,
    knowledge::error::KnowledgeError,
};

/// How a [`GraphIndex`] is built and searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphSettings {
    /// How the graph keeps numbers; hits are scored again with those of the exact index.
    pub code: Code,
    /// Neighbours of a vector, M of the paper; twice as many in the lowest layer.
    pub neighbours: usize,
    /// Vectors that are compared when one is added, efConstruction of the paper.
    pub build_width: usize,
    /// Vectors that are compared in a search, ef of the paper; at least k always are. The larger, the
    /// fewer are missed.
    pub search_width: usize,
}

/// How a graph keeps the numbers of vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Code {
    /// Four bytes a number.
    F32,
    /// Two bytes a number.
    F16,
    /// One byte a number; for vectors of length 1 only, since their lengths are lost.
    I8,
    /// One bit a number, its sign: few distances, so that many more vectors must be compared
    /// ([`GraphSettings::search_width`]). For numbers of both signs.
    Binary,
}

impl Default for GraphSettings {
    fn default() -> Self {
        Self {
            code: Code::F16,
            neighbours: 16,
            build_width: 200,
            search_width: 64,
        }
    }
}

/// Approximate search: a hierarchical navigable small world graph (Malkov and Yashunin 2018), whose hits
/// are scored again by the exact vectors.
///
/// For more vectors than [`FlatIndex`] searches fast enough; `docs/decisions.md` has the measurements. A
/// search among few positions is exact.
pub struct GraphIndex {
    graph: Graph,
    exact: FlatIndex,
    settings: GraphSettings,
}

/// Positions of a search up to which all are compared.
const COMPARED: usize = 20_000;

/// Hits that are scored again for each that is asked for. Bits, which say little of the order, have all of theirs.
const SCORED_AGAIN: usize = 4;
const LEAST_SCORED_AGAIN: usize = 64;

/// How far from 1 a length of 1 may be by rounding, to f16 too.
const LENGTH_TOLERANCE: f32 = 0.01;

/// The description beside a graph's file.
#[derive(Serialize, Deserialize)]
struct About {
    settings: GraphSettings,
    /// Of the vectors that it is of.
    vectors: String,
    /// Of the graph's file.
    graph: String,
}

impl GraphIndex {
    /// Builds the graph of the vectors of `exact` on all cores; `progress` hears how many are in it.
    ///
    /// # Errors
    /// [`IndexError::NotNormalised`] for [`Code::I8`] with vectors of other lengths than 1; [`IndexError::Graph`].
    pub fn build(
        exact: &FlatIndex,
        settings: GraphSettings,
        progress: impl Fn(usize) + Sync,
    ) -> Result<Self> {
        let graph = empty(exact, settings)?;
        // Whoever searches may have more threads than this pool.
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = rayon::current_num_threads().max(cores);
        graph
            .reserve_capacity_and_threads(exact.len(), threads)
            .map_err(failed)?;
        let done = AtomicUsize::new(0);
        (0..exact.len()).into_par_iter().try_for_each(|position| {
            let vector = exact.gather(&[position]);
            let vector = vector.as_slice().expect("one row");
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            if settings.code == Code::I8 && (length - 1.0).abs() > LENGTH_TOLERANCE {
                let row = position;
                return Err(IndexError::NotNormalised { row, length }.into());
            }
            let key = position as u64;
            match settings.code {
                Code::Binary => graph.add(key, b1x8::from_u8s(&signs(vector))),
                _ => graph.add(key, vector),
            }
            .map_err(failed)?;
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            Ok::<_, Error>(())
        })?;
        Ok(Self {
            graph,
            exact: exact.clone(),
            settings,
        })
    }

    /// Compares so many vectors in a search from now on.
    #[must_use]
    pub fn with_search_width(mut self, search_width: usize) -> Self {
        self.settings.search_width = search_width;
        self.graph.change_expansion_search(search_width);
        self
    }
}

impl GraphIndex {
    /// Writes the graph to a folder, such as that of its knowledge base; the vectors are not in it.
    ///
    /// # Errors
    /// [`IndexError::Graph`], [`Error::Core`]; a graph that stood there before is untouched then.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        fs::create_dir_all(folder).map_err(rag_core::Error::io(folder))?;
        let written = tempfile::Builder::new()
            .prefix(".graph-")
            .tempfile_in(folder)
            .map_err(rag_core::Error::io(folder))?
            .into_temp_path();
        self.graph.save(&utf8(&written)?).map_err(failed)?;
        let hash = hash_of(&written).map_err(rag_core::Error::io(&written))?;
        readable_and_synced(&written).map_err(rag_core::Error::io(&written))?;
        let path = folder.join(file_name(&hash));
        written
            .persist(&path)
            .map_err(|error| rag_core::Error::Io {
                path: path.clone(),
                source: error.error,
            })?;
        let about = About {
            settings: self.settings,
            vectors: hash_of_vectors(&self.exact),
            graph: hash,
        };
        write_file(folder.join(ABOUT), |file| {
            serde_json::to_writer_pretty(&mut *file, &about)?;
            file.write_all(b"\n")
        })?;
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let graph = name.starts_with("graph-") && name.ends_with(".usearch");
            if graph && entry.path() != path {
                // A file that cannot be removed is open elsewhere, and waits for the next save.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// Maps a graph that [`GraphIndex::save`] wrote, of the vectors of `exact`, and checks every byte.
    ///
    /// # Errors
    /// [`KnowledgeError::Checksum`] where the file is not what was written, [`IndexError::OtherVectors`] where the graph is
    /// of other vectors, [`IndexError::Graph`], [`Error::Core`].
    pub fn open(folder: impl AsRef<Path>, exact: &FlatIndex) -> Result<Self> {
        let folder = folder.as_ref();
        let path = folder.join(ABOUT);
        let about = fs::read(&path).map_err(rag_core::Error::io(&path))?;
        let about: About = serde_json::from_slice(&about).map_err(rag_core::Error::json(&path))?;
        if about.vectors != hash_of_vectors(exact) {
            let folder = folder.to_owned();
            return Err(IndexError::OtherVectors { folder }.into());
        }
        let path = folder.join(file_name(&about.graph));
        let found = hash_of(&path).map_err(rag_core::Error::io(&path))?;
        if found != about.graph {
            return Err(KnowledgeError::Checksum {
                file: path,
                expected: about.graph,
                found,
            }
            .into());
        }
        let graph = empty(exact, about.settings)?;
        graph.view(&utf8(&path)?).map_err(failed)?;
        Ok(Self {
            graph,
            exact: exact.clone(),
            settings: about.settings,
        })
    }

    /// The hits for a query; fewer than k where the graph has lost its way.
    fn nearest(
        &self,
        query: ArrayView1<f32>,
        k: usize,
        among: Option<&[bool]>,
    ) -> Result<Vec<Hit>> {
        let query = query.to_vec();
        let width = k.max(self.settings.search_width).min(self.len());
        let allowed = |position| among.is_none_or(|among| among[position as usize]);
        let found = match (self.settings.code, among) {
            (Code::Binary, _) => self.graph.search(b1x8::from_u8s(&signs(&query)), width),
            (_, Some(_)) => self.graph.filtered_search(&query, width, allowed),
            (_, None) => self.graph.search(&query, width),
        };
        let found = found.map_err(failed)?;
        let scored_again = match self.settings.code {
            Code::Binary => width,
            _ => (SCORED_AGAIN * k).max(LEAST_SCORED_AGAIN),
        };
        let nearest = found.keys.iter().take(scored_again);
        let mut positions: Vec<usize> = nearest.map(|&key| key as usize).collect();
        positions.sort_unstable();
        let scores = self.exact.gather(&positions).dot(&ArrayView1::from(&query));
        let hits = positions.into_iter().zip(scores);
        let mut hits: Vec<Hit> = hits
            .map(|(position, score)| Hit { position, score })
            .collect();
        hits.sort_by(Hit::rank);
        hits.truncate(k);
        Ok(hits)
    }
}

impl Index for GraphIndex {
    fn len(&self) -> usize {
        self.exact.len()
    }

    fn dimension(&self) -> usize {
        self.exact.dimension()
    }

    fn search_among(
        &self,
        queries: ArrayView2<f32>,
        k: usize,
        among: Option<&[usize]>,
    ) -> Result<Vec<Vec<Hit>>> {
        check_queries(queries, self.dimension())?;
        let few = |among: &[usize]| among.len() <= COMPARED.max(k);
        // Filtered, bits alone lose too many.
        let bits = self.settings.code == Code::Binary;
        if among.is_some_and(|among| bits || few(among)) {
            return self.exact.search_among(queries, k, among);
        }
        let allowed = among.map(|among| {
            let mut allowed = vec![false; self.len()];
            among.iter().for_each(|&position| allowed[position] = true);
            allowed
        });
        let k = k.min(among.map_or(self.len(), <[usize]>::len));
        let found = queries.axis_iter(Axis(0)).into_par_iter();
        let found: Vec<Vec<Hit>> = found
            .map(|query| {
                let hits = self.nearest(query, k, allowed.as_deref())?;
                if hits.len() == k {
                    return Ok(hits);
                }
                let query = query.insert_axis(Axis(0));
                let mut exact = self.exact.search_among(query, k, among)?;
                Ok(exact.swap_remove(0))
            })
            .collect::<Result<_>>()?;
        check_scores(&found)?;
        Ok(found)
    }
}

impl fmt::Debug for GraphIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphIndex")
            .field("len", &self.len())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

const ABOUT: &str = "graph.json";

fn file_name(hash: &str) -> PathBuf {
    PathBuf::from(format!("graph-{}.usearch", &hash[..16.min(hash.len())]))
}

fn empty(exact: &FlatIndex, settings: GraphSettings) -> Result<Graph> {
    let graph = Graph::new(&IndexOptions {
        dimensions: exact.dimension(),
        metric: match settings.code {
            Code::Binary => MetricKind::Hamming,
            _ => MetricKind::IP,
        },
        quantization: match settings.code {
            Code::F32 => ScalarKind::F32,
            Code::F16 => ScalarKind::F16,
            Code::I8 => ScalarKind::I8,
            Code::Binary => ScalarKind::B1,
        },
        connectivity: settings.neighbours,
        expansion_add: settings.build_width,
        expansion_search: settings.search_width,
        multi: false,
    });
    graph.map_err(failed)
}

/// A bit for each number.
fn signs(vector: &[f32]) -> Vec<u8> {
    let bytes = vector.chunks(8).map(|some| {
        let bits = some.iter().enumerate();
        bits.fold(0, |byte, (at, &value)| byte | (u8::from(value > 0.0) << at))
    });
    bytes.collect()
}

fn hash_of_vectors(exact: &FlatIndex) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{} {:?}", exact.dimension(), exact.storage()).as_bytes());
    for rows in exact.encoded() {
        hasher.update_rayon(&rows);
    }
    hasher.finalize().to_string()
}

/// As other files are: temporary ones are private.
fn readable_and_synced(path: &Path) -> io::Result<()> {
    let file = fs::File::open(path)?;
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.sync_all()
}

fn hash_of(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_mmap_rayon(path)?;
    Ok(hasher.finalize().to_string())
}

fn utf8(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        let not_utf8 = io::Error::new(io::ErrorKind::InvalidInput, "the path is not UTF-8");
        rag_core::Error::io(path)(not_utf8).into()
    })
}

fn failed(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Index(IndexError::Graph {
        source: Box::new(source),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use ndarray::Array2;

    use super::*;
    use crate::Storage;

    const DIMENSION: usize = 64;

    /// Unit vectors around 40 centres.
    fn vectors(rows: usize, seed: u64) -> Array2<f32> {
        let mut state = seed;
        let mut unit = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let noise = Array2::from_shape_simple_fn((rows, DIMENSION), &mut unit);
        let mut vectors = Array2::from_shape_fn((rows, DIMENSION), |(row, column)| {
            let centre = (row * 7 % 40) as f32;
            (centre * (column + 1) as f32).sin() + 0.5 * noise[[row, column]]
        });
        for mut row in vectors.rows_mut() {
            let norm = row.dot(&row).sqrt();
            row /= norm;
        }
        vectors
    }

    fn recall(found: &[Vec<Hit>], expected: &[Vec<Hit>]) -> f64 {
        let shared = found.iter().zip(expected).map(|(found, expected)| {
            let expected: HashSet<usize> = expected.iter().map(|hit| hit.position).collect();
            found
                .iter()
                .filter(|hit| expected.contains(&hit.position))
                .count()
        });
        shared.sum::<usize>() as f64 / expected.iter().map(Vec::len).sum::<usize>() as f64
    }

    #[test]
    fn finds_nearly_all_of_what_exact_search_finds_with_its_scores() {
        let exact = FlatIndex::new(vectors(30_000, 1), Storage::F32).unwrap();
        let queries = vectors(100, 2);
        let done = AtomicUsize::new(0);
        let default = GraphSettings::default().search_width;
        for (code, search_width) in [
            (Code::F32, default),
            (Code::F16, default),
            (Code::I8, default),
            (Code::Binary, 2000),
        ] {
            let settings = GraphSettings {
                code,
                search_width,
                ..GraphSettings::default()
            };
            let graph = GraphIndex::build(&exact, settings, |n| {
                done.fetch_max(n, Ordering::Relaxed);
            });
            let graph = graph.unwrap();
            assert_eq!(done.swap(0, Ordering::Relaxed), 30_000);
            let found = graph.search(queries.view(), 10).unwrap();
            let expected = exact.search(queries.view(), 10).unwrap();
            let recall_of_all = recall(&found, &expected);
            assert!(recall_of_all > 0.95, "{code:?}: {recall_of_all}");
            for (hits, query) in found.iter().zip(queries.axis_iter(Axis(0))) {
                assert!(hits.is_sorted_by(|a, b| a.rank(b).is_lt()) && hits.len() == 10);
                for hit in hits {
                    let score = exact
                        .rows(hit.position..hit.position + 1)
                        .row(0)
                        .dot(&query);
                    assert!((hit.score - score).abs() < 1e-5);
                }
            }
            let most: Vec<usize> = (0..30_000).filter(|i| i % 5 != 0).collect();
            let few: Vec<usize> = (0..30_000).step_by(100).collect();
            for among in [most, few] {
                let found = graph
                    .search_among(queries.view(), 10, Some(&among))
                    .unwrap();
                let expected = exact
                    .search_among(queries.view(), 10, Some(&among))
                    .unwrap();
                assert!(
                    found
                        .iter()
                        .flatten()
                        .all(|hit| among.binary_search(&hit.position).is_ok())
                );
                assert!(
                    recall(&found, &expected) > 0.95,
                    "{code:?}, {} positions",
                    among.len()
                );
            }
        }
    }

    #[test]
    fn what_is_saved_is_mapped_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let exact = FlatIndex::new(vectors(500, 1), Storage::F16).unwrap();
        let graph = GraphIndex::build(&exact, GraphSettings::default(), |_| {}).unwrap();
        graph.save(&folder).unwrap();
        graph.save(&folder).unwrap();
        let names = || {
            let entries = fs::read_dir(&folder).unwrap();
            entries
                .map(|entry| entry.unwrap().path())
                .collect::<Vec<_>>()
        };
        assert_eq!(names().len(), 2, "{:?}", names());
        let opened = GraphIndex::open(&folder, &exact).unwrap();
        let queries = vectors(20, 5);
        for k in [0, 1, 10, 499, 500, 600] {
            let found = opened.search(queries.view(), k).unwrap();
            assert_eq!(found, graph.search(queries.view(), k).unwrap());
            assert!(found.iter().all(|hits| hits.len() == k.min(500)), "k {k}");
        }
        let wide = opened.search(Array2::zeros((1, 3)).view(), 1).unwrap_err();
        assert!(
            matches!(wide, Error::Index(IndexError::Dimension { found: 3, .. })),
            "{wide}"
        );

        // A change in the last row is seen too.
        let mut other = vectors(500, 1);
        other[[499, 0]] += 0.5;
        let other = FlatIndex::new(other, Storage::F16).unwrap();
        let error = GraphIndex::open(&folder, &other).unwrap_err();
        assert!(
            matches!(error, Error::Index(IndexError::OtherVectors { .. })),
            "{error}"
        );
        let settings = GraphSettings {
            code: Code::I8,
            ..GraphSettings::default()
        };
        let error = GraphIndex::build(&other, settings, |_| {}).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Index(IndexError::NotNormalised { row: 499, .. })
            ),
            "{error}"
        );
        drop(opened);
        let path = names()
            .into_iter()
            .find(|path| path.extension() == Some("usearch".as_ref()));
        let path = path.unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(&path, bytes).unwrap();
        let error = GraphIndex::open(&folder, &exact).unwrap_err();
        assert!(
            matches!(error, Error::Knowledge(KnowledgeError::Checksum { .. })),
            "{error}"
        );
    }
}
