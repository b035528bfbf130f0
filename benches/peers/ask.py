"""Answering questions, transformers against burn-rag: one random checkpoint (BERT-base question encoder, BART-large
generator), the same questions and contexts, the same settings and threads, in processes of their own that take turns.

    python benches/peers/ask.py

Needs torch and transformers 4.57. With `--side` it measures one side and prints one JSON line; without, it runs
both and prints a table of seconds, peak memory, ratios (burn-rag to transformers), and whether both said the same.
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

# What is asked: the model, the beams, and how many tokens are written.
WORKLOADS = {
    "ask-token": ("token", 4, 20),
    "ask-sequence": ("sequence", 4, 20),
    "ask-greedy": ("token", 1, 20),
    "first-token": ("token", 1, 1),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=["transformers", "burn-rag"])
    parser.add_argument("--workload", choices=[*WORKLOADS, "open"], action="append")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32", help="transformers'")
    parser.add_argument("--own-precision", choices=["f32", "bf16", "int8"], help="burn-rag's, else the same")
    parser.add_argument("--batch", type=int, default=1, help="questions asked at once")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each side takes")
    parser.add_argument("--repeats", type=int, default=3, help="answers of a turn, after one that is not counted")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--docs", type=int, default=5)
    parser.add_argument("--length", type=int, default=160)
    parser.add_argument("--question-length", type=int, default=16)
    parser.add_argument("--size", choices=["large", "small"], default="large", help="small to try the script")
    parser.add_argument("--folder", type=pathlib.Path, help="keeps the checkpoint there, and uses one that is there")
    arguments = parser.parse_args()
    if arguments.side == "transformers":
        print(json.dumps(transformers_answers(arguments)))
    elif arguments.side == "burn-rag":
        print(json.dumps(own_answers(arguments)))
    elif arguments.folder:
        compare(arguments)
    else:
        with tempfile.TemporaryDirectory() as folder:
            arguments.folder = pathlib.Path(folder)
            compare(arguments)


def make_checkpoint(arguments):
    import torch
    from transformers import BartConfig, DPRConfig, RagConfig, RagTokenForGeneration

    torch.manual_seed(0)
    if arguments.size == "large":
        # facebook/dpr-question_encoder-single-nq-base and facebook/bart-large.
        encoder, generator = DPRConfig(), BartConfig(init_std=0.1)
    else:
        encoder = DPRConfig(vocab_size=1000, hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=64)
        generator = BartConfig(
            vocab_size=1000, d_model=128, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=512, decoder_ffn_dim=512, init_std=0.3,
        )
    config = RagConfig.from_question_encoder_generator_configs(encoder, generator, n_docs=arguments.docs)
    RagTokenForGeneration(config).save_pretrained(arguments.folder)


def make_work(arguments, workload):
    """What both sides are asked, a file."""
    import numpy

    rag = json.loads((arguments.folder / "config.json").read_text())
    vocabulary = min(rag["generator"]["vocab_size"], rag["question_encoder"]["vocab_size"])
    random = numpy.random.default_rng(0)
    model, beams, tokens = WORKLOADS["first-token" if workload == "open" else workload]
    work = {
        "checkpoint": str(arguments.folder),
        "model": model,
        "repeats": 0 if workload == "open" else arguments.repeats,
        "questions": random.integers(5, vocabulary, (arguments.batch, arguments.question_length)).tolist(),
        "contexts": random.integers(5, vocabulary, (arguments.batch, arguments.docs, arguments.length)).tolist(),
        "documents": random.normal(size=(arguments.docs, rag["question_encoder"]["hidden_size"])).round(3).tolist(),
        # The end token stays out, so that both write the same number of tokens.
        "generation": {
            "num_beams": beams, "max_length": tokens + 1, "min_length": tokens + 1,
            "forced_bos_token_id": None, "forced_eos_token_id": None,
        },
    }
    (arguments.folder / "work.json").write_text(json.dumps(work))


def transformers_answers(arguments):
    begun = time.perf_counter()
    import torch
    import transformers
    from transformers import RagSequenceForGeneration, RagTokenForGeneration

    torch.set_num_threads(arguments.threads)
    work = json.loads((arguments.folder / "work.json").read_text())
    kind = RagTokenForGeneration if work["model"] == "token" else RagSequenceForGeneration
    dtype = torch.float32 if arguments.precision == "f32" else torch.bfloat16
    model = kind.from_pretrained(work["checkpoint"], dtype=dtype).eval()
    questions = torch.tensor(work["questions"])
    contexts = torch.tensor(work["contexts"])
    contexts = contexts.reshape(-1, contexts.shape[-1])
    documents = torch.tensor(work["documents"], dtype=dtype)
    settings = dict(work["generation"])
    if work["model"] == "sequence":
        settings["do_deduplication"] = True

    @torch.no_grad()
    def answer():
        vectors = model.question_encoder(questions, attention_mask=torch.ones_like(questions))[0]
        return model.generate(
            context_input_ids=contexts, context_attention_mask=torch.ones_like(contexts),
            doc_scores=vectors @ documents.T, n_docs=arguments.docs, **settings,
        ).tolist()

    tokens, first, seconds = measure(answer, begun, work["repeats"])
    return {
        "name": "transformers",
        "first": first,
        "seconds": seconds,
        "tokens": tokens,
        "peak_resident_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def measure(answer, begun, repeats):
    tokens = answer()
    first = time.perf_counter() - begun
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        answer()
        seconds.append(time.perf_counter() - begun)
    return tokens, first, seconds


def own_answers(arguments):
    """The bench `ask` on the same folder."""
    command = ["cargo", "bench", "--bench", "ask", "--", "--folder", str(arguments.folder)]
    command += ["--precision", arguments.own_precision or arguments.precision]
    environment = {**os.environ, "RAYON_NUM_THREADS": str(arguments.threads)}
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return json.loads(printed.strip().splitlines()[-1])


def compare(arguments):
    if not (arguments.folder / "config.json").is_file():
        make_checkpoint(arguments)
    theirs, ours = arguments.precision, arguments.own_precision or arguments.precision
    names = ["workload", f"transformers {theirs}, s", f"burn-rag {ours}, s", "ratio", "from to, s", "least, s"]
    names += ["transformers, GiB", "burn-rag, GiB", "ratio", "tokens"]
    row(names)
    row(["---"] * len(names))
    for workload in arguments.workload or [*WORKLOADS, "open"]:
        make_work(arguments, workload)
        sides = {"transformers": [], "burn-rag": []}
        for _ in range(arguments.rounds):
            for side, turns in sides.items():
                command = [sys.executable, __file__, *sys.argv[1:], "--folder", str(arguments.folder), "--side", side]
                printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                turns.append(json.loads(printed.strip().splitlines()[-1]))
        row([workload, *comparison(*sides.values(), "first" if workload == "open" else "seconds")])
    versions = {**sides["transformers"][0]["versions"], **sides["burn-rag"][0]["versions"]}
    print(
        f"\n{arguments.docs} contexts of {arguments.length} tokens, batch {arguments.batch}, {arguments.threads} threads, "
        f"medians of {arguments.rounds} turns of {arguments.repeats}; {versions}"
    )


def comparison(theirs, ours, field):
    """Cells of a row; `open` is one number a turn, from the start of the process to its first answer."""
    seconds = [[second for turn in turns for second in numbers(turn[field])] for turns in (theirs, ours)]
    peaks = [statistics.median(turn["peak_resident_bytes"] for turn in turns) / 2**30 for turns in (theirs, ours)]
    medians = [statistics.median(all_of) for all_of in seconds]
    spread = "; ".join(f"{min(all_of):.2f} to {max(all_of):.2f}" for all_of in seconds)
    same = "the same" if theirs[0]["tokens"] == ours[0]["tokens"] else "others"
    limits = [turn["limit"] for turn in ours if turn["limit"] is not None]
    least = f"{statistics.median(limits):.2f}" if limits else ""
    cells = [f"{medians[0]:.2f}", f"{medians[1]:.2f}", f"{medians[1] / medians[0]:.2f}", spread, least]
    return cells + [f"{peaks[0]:.2f}", f"{peaks[1]:.2f}", f"{peaks[1] / peaks[0]:.2f}", same]


def numbers(one_or_more):
    return one_or_more if isinstance(one_or_more, list) else [one_or_more]


def row(cells):
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
