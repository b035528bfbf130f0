#!/usr/bin/env python3
"""What gguf-py and llama.cpp make of a GGUF file, for `rag-core/tests/gguf.rs`.

    pip install gguf==0.19.0 numpy blake3
    npm pack @node-llama-cpp/linux-x64@3.22.1 && tar xzf node-llama-cpp-linux-x64-3.22.1.tgz
    python scripts/make_gguf_reference.py model.gguf --llama-cpp package/bins/linux-x64 --lines lines.txt
    RAG_GGUF_CASES=. cargo test -p rag-core --test gguf

writes `model.gguf.json`: `tokens`, the ids that llama.cpp gives each line (and the strings of `STRINGS`), no mark
parsed and none added; `with_marks`, the same with marks parsed and added; `end_tokens`; and `tensors`, under
transformers' names the BLAKE3 of the numbers in f32 that gguf-py reads, rows of q and k in transformers' order.
"""

import argparse
import ctypes
import json
from pathlib import Path

import blake3
import gguf
import numpy as np
from gguf.quants import dequantize

STRINGS = [
    "", " ", "  ", "   a", "a   ", "\n", "\n\n", "\r\n \t x", " \n \n", "a\n\n\nb", "\t\ttab", "\u00a0nbsp", "\u3000全角",
    "Hello, World!", "it's I'M they'RE we'Ve 'tis 'S 'LL", "don’t", "a'b''c", "x'", "CamelCaseHTTPServer", "ÀÉÎõü ß ẞ ǅ",
    "1", "12", "1234567890", "3.14159e-10", "1,234,567", "٣٤٥", "१२३", "Ⅷ ½ ² ₃ ①", "２０２４年", "0x1F600",
    "日本語のテキスト、カタカナ。", "今天下雨了吗？我不知道。", "한국어 문장입니다.", "Привет, мир!", "Γειά σου", "שלום עולם", "مرحبا بالعالم", "नमस्ते दुनिया",
    "e\u0301 o\u0308 n\u0303", "Z̸̢a͏l̵g̶o̷", "👍🏽", "👨‍👩‍👧‍👦 family", "🇨🇭🇯🇵", "🙂🙃😀" * 5, "\u200b\u200d\ufeff", "\U0001f9ff\U000e0067",
    "for (int i = 0; i < n; ++i) { a[i] += b[i]; }", "def f(x):\n    return x ** 2\n\n\tpass", "<html lang=\"en\">&amp;</html>",
    "https://example.org/a?b=c&d=%20#e", "user@example.com", "C:\\path\\to\\file", "!!!???...---___===", "((([[[{{{}}}]]])))",
    "a" * 50, "ab" * 40, "-" * 70, "=" * 33, " " * 40, "\n" * 9, "the the the the", "…—–“”‘’", "№ § ¶ † ‡ ©®™", "$100 €20 £3 ¥4",
    "\x00\x01\x7f", "\x1b[0m", "▁▁ ▁a", "<0x0A>", "Ġthe Ċ", "<|im_start|>user\nhi<|im_end|>", "<|endoftext|>", "<s>x</s>", "<unk>",
    "</s>", "[INST] hi [/INST]", "<|file_sep|>a<|fim_pad|>", "<think>no</think>",
]


class LlamaCpp:
    """llama.cpp's library, by its C functions."""

    class Params(ctypes.Structure):
        # More than any of llama.cpp's own structures has: they are only passed on as they were made.
        _fields_ = [("bytes", ctypes.c_uint8 * 1024)]

    def __init__(self, folder: Path, model: Path):
        ctypes.CDLL(str(folder / "libggml-base.so"), ctypes.RTLD_GLOBAL)
        backend = ctypes.CDLL(str(next(folder.glob("libggml.*so*"))), ctypes.RTLD_GLOBAL)
        backend.ggml_backend_load_all_from_path(str(folder).encode())
        self.library = library = ctypes.CDLL(str(next(folder.glob("libllama.v*"))))
        callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
        self.quiet = callback(lambda *_: None)
        library.llama_log_set(self.quiet, None)
        library.llama_backend_init()
        library.llama_model_default_params.restype = self.Params
        library.llama_model_load_from_file.argtypes = [ctypes.c_char_p, self.Params]
        library.llama_model_load_from_file.restype = ctypes.c_void_p
        library.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
        library.llama_model_get_vocab.restype = ctypes.c_void_p
        library.llama_vocab_n_tokens.argtypes = [ctypes.c_void_p]
        library.llama_vocab_is_eog.argtypes = [ctypes.c_void_p, ctypes.c_int32]
        library.llama_vocab_is_eog.restype = ctypes.c_bool
        library.llama_tokenize.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_void_p,
                                           ctypes.c_int32, ctypes.c_bool, ctypes.c_bool]
        self.model = library.llama_model_load_from_file(str(model).encode(), library.llama_model_default_params())
        assert self.model, f"llama.cpp cannot load {model}"
        self.vocabulary = library.llama_model_get_vocab(self.model)

    def ids(self, text: str, marks: bool) -> list[int]:
        data = text.encode()
        ids = (ctypes.c_int32 * (len(data) + 8))()
        count = self.library.llama_tokenize(self.vocabulary, data, len(data), ids, len(ids), marks, marks)
        assert count >= 0, text
        return list(ids[:count])

    def size(self) -> int:
        return self.library.llama_vocab_n_tokens(self.vocabulary)

    def end_tokens(self) -> list[int]:
        return [i for i in range(self.size()) if self.library.llama_vocab_is_eog(self.vocabulary, i)]


def tensors(reader: gguf.GGUFReader) -> dict[str, str]:
    value = lambda key: reader.fields[f"{architecture}.{key}"].contents()
    architecture = reader.fields["general.architecture"].contents()
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    layer = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
             "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
             "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
    is_gemma = architecture.startswith("gemma")
    if is_gemma:
        layer |= {"post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
                  "post_ffw_norm": "post_feedforward_layernorm"}
    hashes = {}
    for tensor in reader.tensors:
        if tensor.name == "rope_freqs.weight":
            continue
        module, suffix = tensor.name.rsplit(".", 1)
        numbers = dequantize(tensor.data, tensor.tensor_type)
        heads = {"attn_q": "head_count", "attn_k": "head_count_kv"}.get(module.split(".")[-1])
        if heads and architecture in ("llama", "mistral3", "smollm3", "granite"):
            n = value(f"attention.{heads}")
            shape = numbers.shape
            numbers = numbers.reshape(n, shape[0] // n // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
        if is_gemma and module.endswith("norm"):
            numbers = numbers - np.float32(1)
        if module.startswith("blk."):
            _, number, module = module.split(".")
            name = f"model.layers.{number}.{layer[module]}"
        else:
            name = names[module]
        hashes[f"{name}.{suffix}"] = blake3.blake3(np.ascontiguousarray(numbers, dtype="<f4").tobytes()).hexdigest()
    return hashes


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-cpp", type=Path, required=True)
    parser.add_argument("--lines", type=Path)
    arguments = parser.parse_args()
    lines = arguments.lines.read_text().split("\n") if arguments.lines else []
    llama = LlamaCpp(arguments.llama_cpp, arguments.model)
    texts = STRINGS + lines
    reference = {
        "tokens": [[text, llama.ids(text, marks=False)] for text in texts],
        "with_marks": [[text, llama.ids(text, marks=True)] for text in STRINGS],
        "end_tokens": llama.end_tokens(),
        "tensors": tensors(gguf.GGUFReader(arguments.model)),
    }
    Path(f"{arguments.model}.json").write_text(json.dumps(reference, ensure_ascii=False, separators=(",", ":")))


if __name__ == "__main__":
    main()
