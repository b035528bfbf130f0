#!/usr/bin/env python3
"""Small GGUF files for the tests, in tests/golden/gguf.

    pip install gguf==0.19.0 numpy blake3
    npm pack @node-llama-cpp/linux-x64@3.22.1 && tar xzf node-llama-cpp-linux-x64-3.22.1.tgz
    python scripts/make_gguf_cases.py
    for model in pieces pairs gemma2 gemma3; do
        python scripts/make_gguf_reference.py tests/golden/gguf/$model.gguf --llama-cpp package/bins/linux-x64
    done
    for model in gemma2 gemma3; do
        python scripts/make_llama_cpp_logits.py tests/golden/gguf/$model.gguf --llama-cpp package/bins/linux-x64 \\
            --prompts tests/golden/gguf/gemma.jsonl --output tests/golden/gguf/$model.gguf.safetensors
    done

`pieces.gguf` and `pairs.gguf` are whole models, as small as llama.cpp accepts: a Llama with pieces and scores, a Qwen3
with byte pairs. `gemma2.gguf` and `gemma3.gguf` are in F32, so that llama.cpp rounds nothing but keys and values, and `gemma.jsonl`
has prompts for them. `blocks.gguf` has random blocks of every type that is read: for each type T `blocks.T` and, as F32, `expected.T`, which is what gguf-py makes of them. The first block has the scales that random
ones seldom have: zeros of both signs, the smallest and the largest numbers, numbers below the smallest normal one.
"""

import json
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

TYPES = [Type.F32, Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.Q4_K, Type.Q5_K, Type.Q6_K]
COLUMNS = 256
ROWS = 3
# Where each block type has its f16 scales, in bytes.
SCALES = {Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0],
          Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208]}
EXTREME = np.array([0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF], dtype="<u2")


def random_tensor(kind: Type, rng: np.random.Generator) -> np.ndarray:
    """Bytes of shape [ROWS, bytes a row]: any bits, with finite scales."""
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    if kind == Type.F32:
        numbers = rng.standard_normal(ROWS * COLUMNS).astype("<f4")
        numbers[:6] = [0.0, -0.0, 1e-45, 3.4e38, -1e-38, 1.0]
        return numbers.view(np.uint8).reshape(ROWS, -1)
    if kind in (Type.F16, Type.BF16):
        bits = rng.integers(0, 1 << 16, ROWS * COLUMNS).astype("<u2")
        infinite = 0x7C00 if kind == Type.F16 else 0x7F80
        bits[(bits & infinite) == infinite] = 0x3C00
        bits[: len(EXTREME)] = EXTREME
        bits[len(EXTREME)] = infinite
        return bits.view(np.uint8).reshape(ROWS, -1)
    blocks = rng.integers(0, 256, (ROWS * COLUMNS // elements, size)).astype(np.uint8)
    for place in SCALES[kind]:
        scales = (rng.standard_normal(len(blocks)) * 0.05).astype("<f2").view("<u2")
        scales[: len(EXTREME)] = rng.permutation(EXTREME)[: len(scales)]
        blocks[:, place : place + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(ROWS, -1)


def blocks(path: Path, rng: np.random.Generator) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    for kind in TYPES:
        data = random_tensor(kind, rng)
        expected = dequantize(data, kind).astype("<f4")
        assert expected.shape == (ROWS, COLUMNS), expected.shape
        writer.add_tensor(f"blocks.{kind.name}", data, raw_dtype=kind)
        writer.add_tensor(f"expected.{kind.name}", expected)
    write(writer)


def write(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# Width, heads of queries, heads of keys, size of a head.
SIZES = 32, 4, 2, 16


def described(path: Path, architecture: str, layers: int, tokens: list[str]) -> gguf.GGUFWriter:
    """A file with the sizes of a model."""
    hidden, heads, keys, size = SIZES
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(keys)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(5e5)
    writer.add_rope_dimension_count(size)
    writer.add_token_list(tokens)
    return writer


def model(path: Path, architecture: str, tokens: list[str], rng: np.random.Generator) -> gguf.GGUFWriter:
    """A model of one layer, its tensors in several types; the tokenizer's rules are still to be added."""
    hidden, heads, keys, size = SIZES
    writer = described(path, architecture, 1, tokens)
    normal = lambda *shape: (rng.standard_normal(shape) * 0.2).astype(np.float32)

    def add(name: str, shape: tuple[int, ...], kind: Type) -> None:
        data = normal(*shape) if len(shape) > 1 else 1 + normal(*shape)
        writer.add_tensor(f"{name}.weight", quantize(data, kind), raw_dtype=kind)

    add("token_embd", (len(tokens), hidden), Type.Q4_0)
    add("output_norm", (hidden,), Type.F32)
    for name, shape, kind in [
        ("attn_norm", (hidden,), Type.F32), ("ffn_norm", (hidden,), Type.F32), ("attn_q", (heads * size, hidden), Type.Q5_0),
        ("attn_k", (keys * size, hidden), Type.Q4_1), ("attn_v", (keys * size, hidden), Type.Q5_1), ("attn_output", (hidden, heads * size), Type.Q8_0),
        ("ffn_gate", (hidden, hidden), Type.F16), ("ffn_up", (hidden, hidden), Type.BF16), ("ffn_down", (hidden, hidden), Type.Q8_0),
    ]:
        add(f"blk.0.{name}", shape, kind)
    if architecture == "qwen3":
        add("blk.0.attn_q_norm", (size,), Type.F32)
        add("blk.0.attn_k_norm", (size,), Type.F32)
        add("output", (len(tokens), hidden), Type.Q8_0)
    else:
        factors = [1.0, 1.0, 1.0, 1.0, 2.0, 8.0, 8.0, 8.0]
        writer.add_tensor("rope_freqs.weight", np.array(factors, dtype=np.float32))
    return writer


def with_scores() -> tuple[list[str], list[float], list[int]]:
    """Tokens as SentencePiece has them, with their scores and types: marks, bytes, then pieces in the order of their scores."""
    words = ["▁t", "▁th", "he", "▁the", "in", "er", "▁a", "on", "an", "re", "▁w", "ing", "▁in", "▁text", "▁▁", "▁▁▁▁", "日本", "aa", "aaaa", "ab", "--", "----"]
    letters = sorted({c for word in words for c in word} | set("abcdefghijklmnopqrstuvwxyzABCDEH0123456789.,!?'-<>/|_é"))
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)] + words + letters + ["<think>"]
    scores = [0.0] * 259 + [-float(i) for i in range(len(words) + len(letters))] + [0.0]
    return tokens, scores, [2, 3, 3] + [6] * 256 + [1] * (len(words) + len(letters)) + [4]


def pieces(path: Path, rng: np.random.Generator) -> None:
    tokens, scores, types = with_scores()
    writer = model(path, "llama", tokens, rng)
    writer.add_tokenizer_model("llama")
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    write(writer)


def gemma(path: Path, architecture: str, layers: int, rng: np.random.Generator) -> None:
    """Norms as the converter stores them, 1 + weight. Of `gemma3` the sixth layer sees all, with stretched positions."""
    hidden, heads, keys, size = SIZES
    tokens, scores, types = with_scores()
    writer = described(path, architecture, layers, tokens)
    writer.add_sliding_window(32)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(0.5)
        writer.add_final_logit_softcapping(3.0)
    else:
        writer.add_rope_freq_base_swa(50.0)
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(4.0)
    writer.add_tokenizer_model("llama")
    writer.add_token_scores(scores)
    writer.add_token_types(types)

    def add(name: str, *shape: int) -> None:
        numbers = 0.2 * rng.standard_normal(shape)
        writer.add_tensor(f"{name}.weight", (numbers if len(shape) > 1 else 1 + numbers).astype(np.float32))

    add("token_embd", len(tokens), hidden)
    add("output_norm", hidden)
    for layer in range(layers):
        for norm in ["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"]:
            add(f"blk.{layer}.{norm}", hidden)
        if architecture == "gemma3":
            add(f"blk.{layer}.attn_q_norm", size)
            add(f"blk.{layer}.attn_k_norm", size)
        add(f"blk.{layer}.attn_q", heads * size, hidden)
        add(f"blk.{layer}.attn_k", keys * size, hidden)
        add(f"blk.{layer}.attn_v", keys * size, hidden)
        add(f"blk.{layer}.attn_output", hidden, heads * size)
        add(f"blk.{layer}.ffn_gate", hidden, hidden)
        add(f"blk.{layer}.ffn_up", hidden, hidden)
        add(f"blk.{layer}.ffn_down", hidden, hidden)
    write(writer)


def prompts(path: Path, rng: np.random.Generator) -> None:
    """Ids of a few tokens, up to as many as the window of `gemma`."""
    lines = [json.dumps([1, *rng.integers(259, 300, length).tolist()]) for length in [0, 3, 8, 15, 23, 31]]
    path.write_text("\n".join(lines) + "\n")


def pairs(path: Path, rng: np.random.Generator) -> None:
    """As GPT-2 has them: a letter for each byte, then merges."""
    letters = list(dict.fromkeys(bytes_to_unicode().values()))
    merges = ["Ġ t", "h e", "Ġt he", "i n", "e r", "Ġ a", "a a", "aa aa", "a b", "- -", "-- --", "Ġ Ġ", "ĠĠ ĠĠ", "Ċ Ċ", "ð Ł", "ðŁ ĺ", "æ Ĺ", "1 2", "' s", "Ã ©"]
    tokens = letters + ["".join(merge.split(" ")) for merge in merges] + ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>"]
    writer = model(path, "qwen3", tokens, rng)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_merges(merges)
    count = len(tokens)
    writer.add_token_types([1] * (count - 4) + [3, 3, 3, 4])
    writer.add_bos_token_id(count - 3)
    writer.add_eos_token_id(count - 2)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n")
    write(writer)


def bytes_to_unicode() -> dict[int, str]:
    """GPT-2's letters for bytes: those that can be seen stand for themselves."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in seen]
    return {byte: chr(byte) for byte in seen} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


def main() -> None:
    rng = np.random.default_rng(19)
    folder = Path(__file__).parent.parent / "tests" / "golden" / "gguf"
    folder.mkdir(parents=True, exist_ok=True)
    blocks(folder / "blocks.gguf", rng)
    pieces(folder / "pieces.gguf", rng)
    pairs(folder / "pairs.gguf", rng)
    gemma(folder / "gemma2.gguf", "gemma2", 2, rng)
    gemma(folder / "gemma3.gguf", "gemma3", 6, rng)
    prompts(folder / "gemma.jsonl", rng)


if __name__ == "__main__":
    main()
