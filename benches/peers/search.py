"""Search by inner product, faiss against burn-rag: the same vectors, queries and threads, in processes of
their own that take turns.

    python benches/peers/search.py                  # exact: IndexFlatIP against FlatIndex
    python benches/peers/search.py --approximate    # IndexHNSWFlat against GraphIndex, M 16 both

Needs numpy and faiss-cpu. Two sets of unit vectors are made: Gaussians of 64 dimensions projected at random
with some noise, and 1,000 clusters. With `--side` it measures one side on a folder of sets and prints one JSON
line; without, it makes the sets, runs both sides and prints queries a second, ratios, and how many of faiss's
best hits burn-rag has, or of the graphs how many of the exact ten best each finds.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

SETS = ["projected", "clustered"]
BATCHES = [1, 64]
# Vectors that a search of a graph compares: efSearch.
WIDTHS = [20, 40, 80, 160, 320, 640]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=["both", "faiss", "burn-rag"], default="both")
    parser.add_argument("--folder", type=pathlib.Path, help="where the sets are; made where it is not given")
    parser.add_argument("--approximate", action="store_true", help="graphs, instead of exact search")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each side takes")
    parser.add_argument("--neighbours", type=int, default=16, help="M of both graphs")
    parser.add_argument("--own-neighbours", type=int, help="M of burn-rag's, where it is another")
    parser.add_argument("--vectors", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--dimension", type=int, default=768)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    if arguments.side == "faiss":
        print(json.dumps(faiss_searches(arguments)))
    elif arguments.side == "burn-rag":
        print(json.dumps(own_searches(arguments)))
    else:
        with tempfile.TemporaryDirectory() as folder:
            arguments.folder = arguments.folder or pathlib.Path(folder)
            make_sets(arguments)
            compare(arguments)


def make_sets(arguments):
    import numpy

    random = numpy.random.default_rng(0)
    dimension = arguments.dimension
    projection = random.standard_normal((64, dimension), dtype=numpy.float32)
    centres = unit(random.standard_normal((1_000, dimension), dtype=numpy.float32))

    def projected(rows):
        latent = random.standard_normal((rows, 64), dtype=numpy.float32)
        return latent @ projection + 0.5 * random.standard_normal((rows, dimension), dtype=numpy.float32)

    def clustered(rows):
        noise = random.standard_normal((rows, dimension), dtype=numpy.float32)
        return centres[random.integers(0, len(centres), rows)] + 0.03 * noise

    for name, make in zip(SETS, [projected, clustered]):
        unit(make(arguments.vectors)).tofile(arguments.folder / f"{name}.vectors.f32")
        unit(make(arguments.queries)).tofile(arguments.folder / f"{name}.queries.f32")


def unit(rows):
    import numpy

    return rows / numpy.linalg.norm(rows, axis=1, keepdims=True)


def faiss_searches(arguments):
    import faiss
    import numpy

    faiss.omp_set_num_threads(arguments.threads)
    found, built = {}, {}
    for name in SETS:
        vectors, queries = (read(arguments, f"{name}.{part}") for part in ["vectors", "queries"])
        begun = time.perf_counter()
        if arguments.approximate:
            index = faiss.IndexHNSWFlat(arguments.dimension, arguments.neighbours, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = 200
        else:
            index = faiss.IndexFlatIP(arguments.dimension)
        index.add(vectors)
        built[name] = time.perf_counter() - begun
        del vectors
        for width in WIDTHS if arguments.approximate else [None]:
            if width:
                index.hnsw.efSearch = width
            for batch in BATCHES:
                # One at a time, fewer do.
                asked = queries[: 64 if batch == 1 else None]
                index.search(asked[:batch], arguments.k)
                begun = time.perf_counter()
                hits = [index.search(asked[i : i + batch], arguments.k)[1] for i in range(0, len(asked), batch)]
                seconds = time.perf_counter() - begun
                what = f"width {width:>3}, " if width else ""
                found[f"{name}, {what}batch {batch}"] = {
                    "queries_per_second": len(asked) / seconds,
                    "hits": numpy.concatenate(hits).tolist(),
                }
    return finished("faiss", found, built, {"faiss": faiss.__version__})


def read(arguments, name):
    import numpy

    numbers = numpy.fromfile(arguments.folder / f"{name}.f32", dtype=numpy.float32)
    return numbers.reshape(-1, arguments.dimension)


def own_searches(arguments):
    """`cargo bench --bench search` on the same sets."""
    command = ["cargo", "bench", *(["--features", "ann"] if arguments.approximate else []), "--bench", "search", "--"]
    command += ["--folder", str(arguments.folder.resolve())]
    if arguments.approximate:
        command += ["--widths", ",".join(map(str, WIDTHS))]
        command += ["--neighbours", str(arguments.own_neighbours or arguments.neighbours)]
    command += ["--dimension", str(arguments.dimension), "--k", str(arguments.k)]
    environment = {**os.environ, "RAYON_NUM_THREADS": str(arguments.threads)}
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return json.loads(printed.strip().splitlines()[-1])


def finished(name, found, built, versions):
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"name": name, "found": found, "built": built, "peak_resident_bytes": peak, "versions": versions}


def compare(arguments):
    sides = ["faiss", "burn-rag"]
    turns = {side: [] for side in sides}
    for _ in range(arguments.rounds):
        for side in sides:
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--folder", str(arguments.folder)]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            turns[side].append(json.loads(printed.strip().splitlines()[-1]))
            print(f"{side}: {turns[side][-1]['versions']}", flush=True)
    print(
        f"{arguments.vectors} vectors of {arguments.dimension} numbers, k {arguments.k}, {arguments.threads} threads, "
        f"queries a second, median of {arguments.rounds} turns"
    )
    best = {name: exact_best(arguments, name) for name in SETS} if arguments.approximate else {}
    columns = ["recall: faiss", "burn-rag"] if best else ["same hits"]
    print(f"{'':<32}{'faiss':>10}{'burn-rag':>10}{'ratio':>7}" + "".join(f"{column:>15}" for column in columns))
    for work in turns["faiss"][0]["found"]:
        theirs, ours = (
            statistics.median(turn["found"][work]["queries_per_second"] for turn in turns[side]) for side in sides
        )
        hits = [turns[side][0]["found"][work]["hits"] for side in sides]
        if best:
            exact = best[work.split(",")[0]]
            shares = [shared([row[:10] for row in found], exact) for found in hits]
        else:
            shares = [shared(hits[1], hits[0])]
        print(f"{work:<32}{theirs:>10.1f}{ours:>10.1f}{ours / theirs:>7.2f}" + "".join(f"{share:>15.4f}" for share in shares))
    for name in SETS if best else []:
        theirs, ours = (statistics.median(turn["built"][name] for turn in turns[side]) for side in sides)
        print(f"{name}: built in {theirs:.1f} s by faiss, {ours:.1f} s by burn-rag")
    for side in sides:
        peak = statistics.median(turn["peak_resident_bytes"] for turn in turns[side])
        print(f"{side}: peak memory {peak / 2**30:.2f} GiB")


def exact_best(arguments, name):
    """The positions of the ten best for each query."""
    import faiss

    index = faiss.IndexFlatIP(arguments.dimension)
    index.add(read(arguments, f"{name}.vectors"))
    return index.search(read(arguments, f"{name}.queries"), 10)[1].tolist()


def shared(found, expected):
    """How many of the expected positions were found, on average. Of the expected, as many rows count as were asked."""
    rows = list(zip(found, expected))
    return statistics.mean(len(set(a) & set(b)) / len(b) for a, b in rows)


if __name__ == "__main__":
    main()
