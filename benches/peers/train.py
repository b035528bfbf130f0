"""One training step of RAG-Sequence, transformers against burn-rag: the same configuration (BERT-base and
BART-base, random weights, dropout as published), contexts, answers and optimiser, in processes of their own
that take turns.

    python benches/peers/train.py

Needs torch and transformers 4.57. With `--side` it measures one side and prints one JSON line; without, it
runs both and prints the ratios. A step is forward, backward, clipping and AdamW; the first is not counted.
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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=["both", "transformers", "burn-rag"], default="both")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each side takes")
    parser.add_argument("--steps", type=int, default=5, help="steps of a turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--optimizer", choices=["adam_w", "adam_w_bf16", "adafactor"], default="adam_w")
    parser.add_argument("--activations", choices=["kept", "recomputed"], default="kept", help="burn-rag's")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--n-docs", type=int, default=5)
    parser.add_argument("--documents-at-a-time", type=int, default=0, help="burn-rag's; 0 for all of them in one graph")
    parser.add_argument("--context-length", type=int, default=160)
    parser.add_argument("--question-length", type=int, default=16)
    parser.add_argument("--answer-length", type=int, default=24)
    arguments = parser.parse_args()
    if arguments.side == "transformers":
        print(json.dumps(transformers_steps(arguments)))
    elif arguments.side == "burn-rag":
        print(json.dumps(own_steps(arguments)))
    else:
        compare(arguments)


def transformers_steps(arguments):
    import torch
    import transformers
    from transformers import RagSequenceForGeneration
    from transformers.optimization import Adafactor

    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    config = rag_config(arguments)
    model = RagSequenceForGeneration(config).train()
    if arguments.optimizer == "adafactor":
        optimizer = Adafactor(model.parameters(), lr=3e-5, scale_parameter=False, relative_step=False, weight_decay=0.001)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-5, eps=1e-8, weight_decay=0.001)

    def tokens(rows, length):
        return torch.randint(5, 30_000, (rows, length))

    questions = tokens(arguments.batch, arguments.question_length)
    contexts = tokens(arguments.batch * arguments.n_docs, arguments.context_length)
    labels = tokens(arguments.batch, arguments.answer_length)
    documents = torch.randn(arguments.batch, arguments.n_docs, config.question_encoder.hidden_size)
    bf16 = arguments.precision == "bf16"

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            vectors = model.rag.question_encoder(questions, attention_mask=torch.ones_like(questions)).pooler_output
            scores = torch.bmm(vectors.float().unsqueeze(1), documents.transpose(1, 2)).squeeze(1)
            loss = model(
                context_input_ids=contexts, context_attention_mask=torch.ones_like(contexts), doc_scores=scores,
                labels=labels, n_docs=arguments.n_docs, reduce_loss=True,
            ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    step()
    seconds = []
    for _ in range(arguments.steps):
        begun = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begun)
    return {
        "name": "transformers",
        "seconds_per_step": statistics.median(seconds),
        "all": seconds,
        "examples_per_second": arguments.batch / statistics.median(seconds),
        "peak_resident_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def own_steps(arguments):
    """`cargo bench --bench train` on the same configuration."""
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder) / "config.json"
        config.write_text(rag_config(arguments).to_json_string(use_diff=False))
        command = ["cargo", "bench", "--bench", "train", "--", "--config", str(config)]
        for name in ["steps", "precision", "optimizer", "activations", "batch", "n_docs", "documents_at_a_time", "context_length", "question_length", "answer_length"]:
            command += ["--" + name.replace("_", "-"), str(getattr(arguments, name))]
        environment = {**os.environ, "RAYON_NUM_THREADS": str(arguments.threads)}
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return json.loads(printed.strip().splitlines()[-1])


def rag_config(arguments):
    from transformers import BartConfig, DPRConfig, RagConfig

    # facebook/dpr-question_encoder-single-nq-base and facebook/bart-base.
    encoder = DPRConfig()
    generator = BartConfig(
        d_model=768, encoder_layers=6, decoder_layers=6, encoder_attention_heads=12, decoder_attention_heads=12,
        encoder_ffn_dim=3072, decoder_ffn_dim=3072, dropout=0.1, attention_dropout=0.1, activation_dropout=0.1,
    )
    config = RagConfig.from_question_encoder_generator_configs(encoder, generator, n_docs=arguments.n_docs)
    config.architectures = ["RagSequenceForGeneration"]
    return config


def compare(arguments):
    sides = ["transformers", "burn-rag"]
    turns = {side: [] for side in sides}
    for _ in range(arguments.rounds):
        for side in sides:
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            turns[side].append(json.loads(printed.strip().splitlines()[-1]))
            print(json.dumps(turns[side][-1]), file=sys.stderr, flush=True)

    def median(side, field):
        return statistics.median(turn[field] for turn in turns[side])

    print(
        f"batch {arguments.batch}, {arguments.n_docs} contexts of {arguments.context_length} tokens, answers of "
        f"{arguments.answer_length}, {arguments.precision}, {arguments.threads} threads, median of {arguments.rounds} turns"
    )
    rows = [("seconds_per_step", "seconds per step", 1), ("peak_resident_bytes", "peak memory, GiB", 2**30)]
    print(f"{'':<20}{'transformers':>14}{'burn-rag':>14}{'ratio':>8}")
    for field, name, unit in rows:
        theirs, ours = (median(side, field) for side in sides)
        print(f"{name:<20}{theirs / unit:>14.3f}{ours / unit:>14.3f}{ours / theirs:>8.2f}")
    spreads = [[second for turn in turns[side] for second in turn["all"]] for side in sides]
    spreads = [f"{min(seconds):.2f} to {max(seconds):.2f}" for seconds in spreads]
    print(f"{'single steps, s':<20}{spreads[0]:>14}{spreads[1]:>14}")


if __name__ == "__main__":
    main()
