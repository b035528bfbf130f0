"""Real passages read by an encoder, sentence-transformers against burn-rag, and found by their words, bm25s
against burn-rag: the same passages, questions and threads, in processes of their own that take turns.

    python benches/peers/retrieve.py --folder squad-open/train --encoder all-MiniLM-L6-v2

Needs sentence-transformers and bm25s (with PyStemmer both sides stem English words). `--folder` has `passages.jsonl`
({"id", "title", "text"}) and `qa.jsonl` ({"question", "passage_id"}). With `--side` and `--work` it measures one side
and prints one JSON line; without, it runs both and prints rates, ratios, and how far the vectors, or the
share of questions whose passage stands first, agree.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

PEERS = {"embed": "sentence-transformers", "words": "bm25s"}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--encoder", type=pathlib.Path, required=True)
    parser.add_argument("--work", choices=list(PEERS))
    parser.add_argument("--side", choices=["peer", "burn-rag"])
    parser.add_argument("--count", type=int, default=1400, help="passages that are embedded")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32", help="sentence-transformers'")
    parser.add_argument("--own-precision", choices=["f32", "bf16", "int8"], help="burn-rag's, else the same")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each side takes")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    if arguments.side == "peer":
        print(json.dumps(embedded(arguments) if arguments.work == "embed" else searched(arguments)))
    elif arguments.side == "burn-rag":
        print(json.dumps(own(arguments)))
    else:
        for work in [arguments.work] if arguments.work else PEERS:
            compare(arguments, work)


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def embedded(arguments):
    import sentence_transformers
    import torch

    torch.set_num_threads(arguments.threads)
    encoder = sentence_transformers.SentenceTransformer(str(arguments.encoder), device="cpu")
    if arguments.precision == "bf16":
        encoder = encoder.bfloat16()
    texts = [passage["text"] for passage in lines(arguments.folder / "passages.jsonl")][: arguments.count]
    encoder.encode(texts[:64])
    begun = time.perf_counter()
    vectors = encoder.encode(texts, batch_size=32)
    rates = {"passages embedded": len(texts) / (time.perf_counter() - begun)}
    versions = {"sentence-transformers": sentence_transformers.__version__, "torch": torch.__version__}
    return finished("sentence-transformers", rates, versions, vectors=vectors[:50].tolist())


def searched(arguments):
    import bm25s
    import Stemmer

    passages = lines(arguments.folder / "passages.jsonl")
    questions = lines(arguments.folder / "qa.jsonl")
    stemmer = Stemmer.Stemmer("english")
    begun = time.perf_counter()
    texts = [f"{passage['title']} {passage['text']}" for passage in passages]
    index = bm25s.BM25(k1=1.2, b=0.75)
    index.index(bm25s.tokenize(texts, stopwords=None, stemmer=stemmer, show_progress=False), show_progress=False)
    rates = {"passages indexed": len(passages) / (time.perf_counter() - begun)}
    begun = time.perf_counter()
    right = 0
    for question in questions:
        words = bm25s.tokenize([question["question"]], stopwords=None, stemmer=stemmer, show_progress=False)
        found, _ = index.retrieve(words, k=20, show_progress=False)
        right += passages[found[0, 0]]["id"] == question["passage_id"]
    rates["questions answered"] = len(questions) / (time.perf_counter() - begun)
    return finished("bm25s", rates, {"bm25s": bm25s.__version__}, recall=right / len(questions))


def own(arguments):
    """`cargo bench --bench retrieve` on the same files."""
    command = ["cargo", "bench", "--bench", "retrieve", "--", "--work", arguments.work]
    command += ["--folder", str(arguments.folder.resolve()), "--encoder", str(arguments.encoder.resolve())]
    command += ["--count", str(arguments.count), "--precision", arguments.own_precision or arguments.precision]
    environment = {**os.environ, "RAYON_NUM_THREADS": str(arguments.threads)}
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return json.loads(printed.strip().splitlines()[-1])


def finished(name, rates, versions, vectors=(), recall=None):
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "name": name,
        "rates": rates,
        "vectors": vectors,
        "recall": recall,
        "peak_resident_bytes": peak,
        "versions": versions,
    }


def compare(arguments, work):
    sides = {"peer": [], "burn-rag": []}
    for _ in range(arguments.rounds):
        for side, turns in sides.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--work", work, "--side", side]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            turns.append(json.loads(printed.strip().splitlines()[-1]))
            print(f"{turns[-1]['name']}: {turns[-1]['versions']}", flush=True)
    theirs, ours = sides["peer"], sides["burn-rag"]
    print(f"a second, {arguments.threads} threads, median of {arguments.rounds} turns; peak memory in GiB")
    print(f"{'':<24}{PEERS[work]:>24}{'burn-rag':>12}{'ratio':>8}")
    for rate in theirs[0]["rates"]:
        row(rate, *(statistics.median(turn["rates"][rate] for turn in turns) for turns in (theirs, ours)))
    memory = [statistics.median(turn["peak_resident_bytes"] for turn in turns) / 2**30 for turns in (theirs, ours)]
    row("peak memory", *memory)
    if work == "embed":
        pairs = zip(theirs[0]["vectors"], ours[0]["vectors"])
        furthest = max(abs(a - b) for first, second in pairs for a, b in zip(first, second))
        print(f"vectors differ by {furthest:.1e} at most")
    else:
        print(f"passage found first: {theirs[0]['recall']:.4f} and {ours[0]['recall']:.4f} of questions")


def row(name, theirs, ours):
    print(f"{name:<24}{theirs:>24.2f}{ours:>12.2f}{ours / theirs:>8.2f}")


if __name__ == "__main__":
    main()
