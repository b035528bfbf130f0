#!/usr/bin/env python3
"""Checks adapters that burn-rag wrote, with PEFT on transformers' models, and writes some for it to read.

    lora_peft.py FOLDER

Every folder in FOLDER (made by `save_for_peft` in `tests/lora/peft.rs`) holds a RAG checkpoint `base`, its
adapters `ours` with what they compute in `ours.json`, and a checkpoint `merged`. PEFT's adapters go to
`theirs` and `theirs.json`. A decoder alone is a folder of its own in `base` and `merged`.
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, DPRQuestionEncoder, RagTokenForGeneration

PARTS = ("generator", "question_encoder")

# What PEFT adapts: a list, a list of one layer only, a pattern; with both scalings.
THEIRS = {
    "bart": LoraConfig(
        r=3, lora_alpha=5, target_modules=["q_proj", "fc2"], layers_to_transform=[1], lora_dropout=0.1
    ),
    "t5": LoraConfig(r=2, lora_alpha=3, use_rslora=True, target_modules=["SelfAttention.q", "wo"]),
    "t5-gated": LoraConfig(r=4, lora_alpha=2, target_modules=["q", "v"]),
    "llama": LoraConfig(r=3, lora_alpha=5, target_modules="all-linear", task_type="CAUSAL_LM"),
    "qwen2": LoraConfig(
        r=2, lora_alpha=3, use_rslora=True, target_modules=["q_proj", "down_proj"], layers_to_transform=[0],
        task_type="CAUSAL_LM",
    ),
    "qwen3": LoraConfig(r=4, lora_alpha=2, task_type="CAUSAL_LM"),
    "question_encoder": LoraConfig(r=3, lora_alpha=4, target_modules=r".*attention\.(self\.key|output\.dense)"),
}


def main(parent):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folders = sorted(path.parent for path in parent.glob("*/ours.json"))
    assert [folder.name for folder in folders] == sorted(THEIRS.keys() - {"question_encoder"}), folders
    for folder in folders:
        case = json.loads((folder / "ours.json").read_text())
        compare(f"{folder.name}, merged", evaluate(parts(folder / "merged"), case), case)
        models = parts(folder / "base")
        for name in PARTS:
            models[name] = opened(models[name], folder / "ours" / name)
        compare(f"{folder.name}, adapted", evaluate(models, case), case)
        write(folder, case)
    print(f"PEFT opened the adapters of {len(folders)} models of burn-rag and agrees; it wrote as many")


def parts(folder):
    if (folder / "generator").is_dir():
        return {
            "generator": AutoModelForCausalLM.from_pretrained(folder / "generator").eval(),
            "question_encoder": DPRQuestionEncoder.from_pretrained(folder / "question_encoder").eval(),
        }
    rag = RagTokenForGeneration.from_pretrained(folder).eval()
    return {name: getattr(rag.rag, name) for name in PARTS}


def opened(model, folder):
    model = PeftModel.from_pretrained(model, folder).eval()
    # Without the copy of a base weight that PEFT adds for an adapted head.
    found = get_peft_model_state_dict(model, save_embedding_layers=False)
    stored = load_file(folder / "adapter_model.safetensors")
    assert found.keys() == stored.keys(), found.keys() ^ stored.keys()
    assert all(torch.equal(found[name], stored[name]) for name in stored)
    return model


@torch.no_grad()
def evaluate(models, case):
    ids, contexts, questions, decoded = (
        torch.tensor(case[name])
        for name in ["context_ids", "context_mask", "question_mask", "decoder_ids"]
    )
    generator = models["generator"]
    if generator.config.is_encoder_decoder:
        logits = generator(input_ids=ids, attention_mask=contexts, decoder_input_ids=decoded).logits
    else:
        logits = torch.stack([continued(generator, *row) for row in zip(ids, contexts, decoded)])
    vectors = models["question_encoder"](input_ids=ids, attention_mask=questions).pooler_output
    return {"logits": logits.flatten(), "question_vectors": vectors.flatten()}


def continued(generator, ids, mask, decoded):
    """Logits after a prompt, and after each token of its answer: the prompt's end stands for the start token."""
    prompt = ids[mask.bool()]
    text = torch.cat([prompt, decoded[1:]])
    return generator(input_ids=text[None]).logits[0, len(prompt) - 1 :]


def compare(what, found, case):
    for name, tensor in found.items():
        expected = torch.tensor(case[name])
        assert tensor.shape == expected.shape, f"{what}: {name}: {tensor.shape}, {expected.shape}"
        error = ((tensor - expected).abs() / expected.abs().clamp_min(1)).max().item()
        assert error <= 1e-4, f"{what}: {name}: off by {error}"


def write(folder, case):
    models = parts(folder / "base")
    for name in PARTS:
        config = THEIRS[folder.name if name == "generator" else name]
        models[name] = get_peft_model(models[name], config).eval()
        for key, parameter in models[name].named_parameters():
            if "lora_" in key:
                torch.nn.init.normal_(parameter, std=0.3)
        models[name].save_pretrained(folder / "theirs" / name, save_embedding_layers=False)
    outputs = {name: tensor.tolist() for name, tensor in evaluate(models, case).items()}
    (folder / "theirs.json").write_text(json.dumps(case | outputs))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
