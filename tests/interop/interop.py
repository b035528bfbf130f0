#!/usr/bin/env python3
"""Checks checkpoints that burn-rag wrote, with transformers, and writes some for it to read.

    interop.py ours THEIRS

opens every folder of `ours` (made by `tests/interop_save.rs` with RAG_INTEROP_DIR=ours), asserts that
no tensor is missing, unexpected or of another shape and that transformers computes the same numbers,
and writes folders of its own to `theirs`, in every format that checkpoints come in.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    BertForSequenceClassification,
    DPRContextEncoder,
    RagSequenceForGeneration,
    RagTokenForGeneration,
)

RAG_MODELS = (RagTokenForGeneration, RagSequenceForGeneration)
CLASSES = {"context_encoder": [DPRContextEncoder], "cross_encoder": [BertForSequenceClassification]}


def main(ours, theirs):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    checked = written = 0
    for folder in sorted(path.parent for path in ours.glob("*/interop.json")):
        case = json.loads((folder / "interop.json").read_text())
        classes = CLASSES.get(folder.name, RAG_MODELS)
        for cls in classes:
            model = opened(cls, folder)
            compare(f"{folder.name} as {cls.__name__}", evaluate(model, case), case)
            checked += 1
        if "text" in case:
            check_tokenizer(folder, case)
        if "question" in case:
            check_pairs(folder, case)
        written += write_all(opened(classes[0], folder), case, theirs, folder)
    print(f"transformers opened {checked} models of burn-rag and agrees; it wrote {written} of its own")
    assert checked == 8, "expected the folders bart, t5, t5-gated, context_encoder and cross_encoder"


def opened(cls, folder):
    model, info = cls.from_pretrained(folder, output_loading_info=True)
    for problem in ["missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"]:
        assert not info[problem], f"{folder} as {cls.__name__}: {problem}: {info[problem]}"
    return model.float().eval()


def check_tokenizer(folder, case):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = tokenizer(case["text"])["input_ids"]
    assert found == case["text_ids"], f"{folder}: {found} is not {case['text_ids']}"
    assert tokenizer.pad_token == "[PAD]", tokenizer.pad_token


def check_pairs(folder, case):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for passage, ids, segments in zip(case["passages"], case["ids"], case["segments"]):
        found = tokenizer(case["question"], passage)
        length = len(found["input_ids"])
        assert found["input_ids"] == ids[:length], f"{folder}: {found} is not {ids}"
        assert found["token_type_ids"] == segments[:length], f"{folder}: {found}, {segments}"


@torch.no_grad()
def evaluate(model, case):
    """What `case` has, but for the inputs, as tensors."""
    tensors = {
        name: torch.tensor(value)
        for name, value in case.items()
        if isinstance(value, list) and not isinstance(value[0], str)
    }
    if isinstance(model, BertForSequenceClassification):
        output = model(
            input_ids=tensors["ids"],
            attention_mask=tensors["mask"],
            token_type_ids=tensors["segments"],
        )
        return {"scores": output.logits.squeeze(1)}
    if isinstance(model, DPRContextEncoder):
        output = model(input_ids=tensors["ids"], attention_mask=tensors["mask"])
        return {"vectors": output.pooler_output}
    questions = model.question_encoder(
        input_ids=tensors["question_ids"], attention_mask=tensors["question_mask"]
    )
    n_docs = tensors["doc_scores"].shape[1]
    first = model.generator(
        input_ids=tensors["context_ids"][::n_docs],
        attention_mask=tensors["context_mask"][::n_docs],
        decoder_input_ids=tensors["decoder_ids"],
    )
    output = model.rag(
        context_input_ids=tensors["context_ids"],
        context_attention_mask=tensors["context_mask"],
        doc_scores=tensors["doc_scores"],
        decoder_input_ids=tensors["decoder_ids"],
        n_docs=n_docs,
    )
    marginal = RagTokenForGeneration.marginalize(model, output.logits, tensors["doc_scores"], n_docs)
    return {
        "question_vectors": questions.pooler_output,
        "logits": first.logits,
        "rag_token_log_probs": marginal,
    }


def compare(what, found, case):
    for name, tensor in found.items():
        expected = torch.tensor(case[name])
        assert tensor.shape == expected.shape, f"{what}: {name}: {tensor.shape}, {expected.shape}"
        error = ((tensor - expected).abs() / expected.abs().clamp_min(1)).max().item()
        assert error <= 1e-4, f"{what}: {name}: off by {error}"


def write_all(model, case, theirs, ours):
    name = ours.name

    with torch.no_grad():
        for tensor in list(model.parameters()) + list(model.buffers()):
            if tensor.is_floating_point():
                tensor += 0.05 * torch.randn(tensor.shape)

    def one(suffix, save, dtype=torch.float32):
        folder = theirs / f"{name}-{suffix}"
        folder.mkdir(parents=True)
        stored = model.to(dtype)
        save(stored, folder)
        if "question" in case:
            AutoTokenizer.from_pretrained(ours).save_pretrained(folder)
        outputs = evaluate(model.float(), case)
        texts = {key: value.tolist() for key, value in outputs.items()}
        (folder / "interop.json").write_text(json.dumps(case | texts))

    def single(stored, folder):
        stored.save_pretrained(folder)

    def shards(stored, folder):
        stored.save_pretrained(folder, max_shard_size="20KB")
        assert len(list(folder.glob("model-*.safetensors"))) > 1

    def pickled_shards(stored, folder):
        stored.save_pretrained(folder, max_shard_size="20KB", safe_serialization=False)
        assert len(list(folder.glob("pytorch_model-*.bin"))) > 1

    def pickled(stored, folder, **settings):
        stored.config.save_pretrained(folder)
        tensors = stored.state_dict()
        # Old versions wrote this buffer too.
        bert = {"context_encoder": "ctx_encoder.bert_model", "cross_encoder": "bert"}
        prefix = bert.get(name, "rag.question_encoder.question_encoder.bert_model")
        positions = torch.arange(stored_positions(stored)).unsqueeze(0)
        tensors[f"{prefix}.embeddings.position_ids"] = positions
        torch.save(tensors, folder / "pytorch_model.bin", **settings)

    def pickled_as_of_old(stored, folder):
        pickled(stored, folder, _use_new_zipfile_serialization=False)

    # The lossy formats come last: they round the weights.
    one("safetensors", single)
    one("shards", shards)
    one("bin", pickled)
    one("bin-legacy", pickled_as_of_old)
    one("bin-shards", pickled_shards)
    one("f16", single, torch.float16)
    one("bf16", single, torch.bfloat16)
    one("bf16-shards", shards, torch.bfloat16)
    one("bf16-bin", pickled, torch.bfloat16)
    return 9


def stored_positions(model):
    return getattr(model.config, "question_encoder", model.config).max_position_embeddings


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
