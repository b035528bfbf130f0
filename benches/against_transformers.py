"""Decoding of RAG-Token and RAG-Sequence, transformers against burn-rag: one random checkpoint, the
same contexts, the same settings, the same number of threads, in one run.

    python benches/against_transformers.py

Needs torch and transformers 4.57. Prints the median seconds of both for one question, and their ratio.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import torch
from transformers import BartConfig, DPRConfig, RagConfig, RagSequenceForGeneration, RagTokenForGeneration


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--docs", type=int, default=5)
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count())

    heads = arguments.width // 64
    generator = BartConfig(
        vocab_size=32_000, d_model=arguments.width, encoder_layers=arguments.layers, decoder_layers=arguments.layers,
        encoder_attention_heads=heads, decoder_attention_heads=heads, encoder_ffn_dim=4 * arguments.width,
        decoder_ffn_dim=4 * arguments.width, init_std=0.1, forced_bos_token_id=0, forced_eos_token_id=2,
    )
    encoder = DPRConfig(vocab_size=100, hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=64)
    config = RagConfig.from_question_encoder_generator_configs(encoder, generator, n_docs=arguments.docs)
    token = RagTokenForGeneration(config).eval()
    contexts = torch.randint(5, 32_000, (arguments.docs, arguments.length))
    mask = torch.ones_like(contexts)
    scores = torch.randn(1, arguments.docs)
    # The end token stays out, so that both decode the same number of tokens.
    generation = {
        "num_beams": arguments.beams,
        "max_length": arguments.tokens,
        "min_length": arguments.tokens,
        "forced_eos_token_id": None,
    }

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        token.save_pretrained(folder)
        sequence = RagSequenceForGeneration.from_pretrained(folder).eval()
        work = {
            "contexts": contexts.tolist(),
            "doc_scores": scores[0].tolist(),
            "generation": generation,
            "repeats": arguments.repeats,
        }
        (folder / "work.json").write_text(json.dumps(work))

        def decode(model, **settings):
            with torch.no_grad():
                return model.generate(
                    context_input_ids=contexts, context_attention_mask=mask, doc_scores=scores,
                    n_docs=arguments.docs, **generation, **settings,
                )

        theirs = [
            measure(lambda: decode(token), arguments.repeats),
            measure(lambda: decode(sequence, do_deduplication=True), arguments.repeats),
        ]
        command = ["cargo", "bench", "--bench", "against_transformers"]
        subprocess.run(command, check=True, env={**os.environ, "RAG_BENCH_DIR": str(folder)})
        ours = json.loads((folder / "ours.json").read_text())

    shape = (
        f"{arguments.docs} contexts of {arguments.length} tokens, {arguments.beams} beams, {arguments.tokens} tokens, "
        f"width {arguments.width}, {arguments.layers}+{arguments.layers} layers, {os.cpu_count()} threads"
    )
    print(shape)
    for (their_seconds, their_tokens), our in zip(theirs, ours):
        their, own = statistics.median(their_seconds), statistics.median(our["seconds"])
        same = "same tokens" if their_tokens == our["tokens"] else "OTHER TOKENS"
        print(f"{our['model']}: transformers {their:.3f} s, burn-rag {own:.3f} s, ratio {their / own:.2f} ({same})")


def measure(decode, repeats):
    tokens = decode()[0].tolist()
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        decode()
        seconds.append(time.perf_counter() - begun)
    return seconds, tokens


if __name__ == "__main__":
    main()
