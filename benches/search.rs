//! Our half of `peers/search.py`: exact or approximate search on the same vectors, as one JSON line.

mod common;

use std::{
    collections::BTreeMap,
    error::Error,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    time::Instant,
};

use burn_rag::retrieve::{FlatIndex, Index, Storage};
use clap::Parser;
use common::peak_resident_bytes;
use ndarray::{Array2, Axis};
use serde::Serialize;

/// Our half of `peers/search.py`, which says what to search.
#[derive(Parser)]
struct Arguments {
    /// Folder of the sets; nothing is measured without one
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Numbers of a vector
    #[arg(long, default_value_t = 768)]
    dimension: usize,
    /// Hits of a query
    #[arg(long, default_value_t = 20)]
    k: usize,
    /// Search a graph, comparing so many vectors; all vectors are searched without any
    #[arg(long, value_delimiter = ',')]
    widths: Vec<usize>,
    /// Neighbours of a vector in the graph
    #[arg(long, default_value_t = 16)]
    neighbours: usize,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Serialize)]
struct Measured {
    name: &'static str,
    found: BTreeMap<String, Found>,
    /// Seconds that it took to build the graph of a set.
    built: BTreeMap<&'static str, f64>,
    /// Where the system says it.
    peak_resident_bytes: Option<u64>,
    versions: BTreeMap<&'static str, &'static str>,
}

#[derive(Serialize)]
struct Found {
    queries_per_second: f64,
    hits: Vec<Vec<usize>>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let Some(folder) = &arguments.folder else {
        println!("skipped: run benches/peers/search.py");
        return Ok(());
    };
    let mut found = BTreeMap::new();
    #[cfg_attr(not(feature = "ann"), expect(unused_mut))]
    let mut built = BTreeMap::new();
    for set in ["projected", "clustered"] {
        let read = |part: &str| {
            rows(
                &folder.join(format!("{set}.{part}.f32")),
                arguments.dimension,
            )
        };
        let queries = read("queries")?;
        let mut measure = |index: &dyn Index, what: &str| -> Result<(), Box<dyn Error>> {
            for batch in [1, 64] {
                let measured = searches(index, &queries, batch, arguments.k)?;
                found.insert(format!("{set}, {what}batch {batch}"), measured);
            }
            Ok(())
        };
        match &arguments.widths[..] {
            [] => measure(&FlatIndex::new(read("vectors")?, Storage::F32)?, "")?,
            #[cfg(feature = "ann")]
            widths => {
                let exact = FlatIndex::new(read("vectors")?, Storage::F16)?;
                let settings = burn_rag::retrieve::GraphSettings {
                    // The sets are of unit vectors.
                    code: burn_rag::retrieve::Code::I8,
                    neighbours: arguments.neighbours,
                    ..Default::default()
                };
                let begun = Instant::now();
                let mut graph = burn_rag::retrieve::GraphIndex::build(&exact, settings, |_| {})?;
                built.insert(set, begun.elapsed().as_secs_f64());
                for &width in widths {
                    graph = graph.with_search_width(width);
                    measure(&graph, &format!("width {width:>3}, "))?;
                }
            }
            #[cfg(not(feature = "ann"))]
            _ => return Err("--widths needs the feature ann".into()),
        }
    }
    let measured = Measured {
        name: "burn-rag",
        found,
        built,
        peak_resident_bytes: peak_resident_bytes(),
        versions: BTreeMap::from([("burn-rag", env!("CARGO_PKG_VERSION"))]),
    };
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

/// Searches for all `queries`, so many at once.
fn searches(
    index: &dyn Index,
    queries: &Array2<f32>,
    batch: usize,
    k: usize,
) -> Result<Found, Box<dyn Error>> {
    // One at a time, fewer do.
    let asked = queries
        .nrows()
        .min(if batch == 1 { 64 } else { usize::MAX });
    let asked = queries.slice_axis(Axis(0), (0..asked).into());
    index.search(
        asked.slice_axis(Axis(0), (0..batch.min(asked.nrows())).into()),
        k,
    )?;
    let begun = Instant::now();
    let mut hits = Vec::new();
    for some in asked.axis_chunks_iter(Axis(0), batch) {
        hits.extend(index.search(some, k)?);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let positions = hits
        .iter()
        .map(|hits| hits.iter().map(|hit| hit.position).collect());
    Ok(Found {
        queries_per_second: asked.nrows() as f64 / seconds,
        hits: positions.collect(),
    })
}

/// Little-endian rows, one after the other.
fn rows(path: &Path, dimension: usize) -> Result<Array2<f32>, Box<dyn Error>> {
    let mut file = File::open(path)?;
    let numbers = usize::try_from(file.metadata()?.len())? / size_of::<f32>();
    let mut values = vec![0.0_f32; numbers];
    file.read_exact(bytemuck::cast_slice_mut(&mut values))?;
    Ok(Array2::from_shape_vec(
        (numbers / dimension, dimension),
        values,
    )?)
}
