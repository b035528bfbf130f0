#!/usr/bin/env python3
"""llama.cpp's logits after prompts, for `tests/language_model.rs`.

    pip install gguf==0.19.0 numpy blake3 safetensors
    npm pack @node-llama-cpp/linux-x64@3.22.1 && tar xzf node-llama-cpp-linux-x64-3.22.1.tgz
    python scripts/make_llama_cpp_logits.py model.gguf --llama-cpp package/bins/linux-x64 \\
        --prompts prompts.jsonl --output logits.safetensors
    RAG_SMOLLM2=model.gguf RAG_LLAMA_CPP_LOGITS=logits.safetensors cargo test --test language_model

Each line of `prompts.jsonl` is a JSON list of token ids, or a JSON string, which llama.cpp encodes: marks such as
`<|im_start|>` in it are special tokens, and BOS is added where the model's tokenizer adds it.

The output holds `ids` (i32), those of all prompts one after the other; `lengths` (i32), the tokens of each prompt; and
`logits` (f32) `[prompts, vocabulary]`, after the last token of each.
"""

import argparse
import ctypes
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from make_gguf_reference import LlamaCpp


class Context:
    """A context of llama.cpp for one prompt at a time."""

    def __init__(self, llama: LlamaCpp, longest: int, threads: int):
        self.llama, self.library = llama, llama.library
        library, structure = self.library, LlamaCpp.Params
        library.llama_context_default_params.restype = structure
        library.llama_init_from_model.argtypes = [ctypes.c_void_p, structure]
        library.llama_init_from_model.restype = ctypes.c_void_p
        library.llama_n_ctx.argtypes = [ctypes.c_void_p]
        library.llama_n_ctx.restype = ctypes.c_uint32
        library.llama_set_n_threads.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32]
        library.llama_get_memory.argtypes = [ctypes.c_void_p]
        library.llama_get_memory.restype = ctypes.c_void_p
        library.llama_memory_clear.argtypes = [ctypes.c_void_p, ctypes.c_bool]
        library.llama_batch_get_one.argtypes = [ctypes.c_void_p, ctypes.c_int32]
        library.llama_batch_get_one.restype = structure
        library.llama_decode.argtypes = [ctypes.c_void_p, structure]
        library.llama_get_logits_ith.argtypes = [ctypes.c_void_p, ctypes.c_int32]
        library.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
        parameters = library.llama_context_default_params()
        # The first three numbers are n_ctx, n_batch and n_ubatch.
        sizes = ctypes.cast(ctypes.byref(parameters), ctypes.POINTER(ctypes.c_uint32))
        assert list(sizes[:3]) == [512, 2048, 512], "llama_context_params of another layout: use the version above"
        sizes[0], sizes[1] = longest, max(longest, sizes[1])
        self.context = library.llama_init_from_model(llama.model, parameters)
        assert self.context, "llama.cpp makes no context"
        assert library.llama_n_ctx(self.context) >= longest
        library.llama_set_n_threads(self.context, threads, threads)

    def logits(self, ids: list[int]) -> np.ndarray:
        library = self.library
        library.llama_memory_clear(library.llama_get_memory(self.context), True)
        tokens = (ctypes.c_int32 * len(ids))(*ids)
        failed = library.llama_decode(self.context, library.llama_batch_get_one(tokens, len(ids)))
        assert failed == 0, f"llama_decode gives {failed}"
        last = library.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(last, shape=(self.llama.size(),)).astype(np.float32, copy=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-cpp", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    llama = LlamaCpp(arguments.llama_cpp, arguments.model)
    prompts = [json.loads(line) for line in arguments.prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
    prompts = [llama.ids(prompt, marks=True) if isinstance(prompt, str) else prompt for prompt in prompts]
    assert prompts and all(prompts), "each line needs a prompt of one token or more"
    lengths = [len(ids) for ids in prompts]
    context = Context(llama, max(lengths), arguments.threads)
    logits = np.stack([context.logits(ids) for ids in prompts])
    assert np.isfinite(logits).all(), "a logit is no number"
    save_file(
        {
            "ids": np.concatenate(prompts).astype(np.int32),
            "lengths": np.array(lengths, np.int32),
            "logits": logits,
        },
        arguments.output,
    )
    print(f"{len(prompts)} prompts of {min(lengths)} to {max(lengths)} tokens, {logits.shape[1]} logits each")


if __name__ == "__main__":
    main()
