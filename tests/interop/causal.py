#!/usr/bin/env python3
"""Decoder-only generators of transformers for burn-rag to read, and a check of what it wrote of them.

    causal.py write THEIRS
    causal.py check THEIRS OURS

`write` makes a folder of each of `MODELS`, with a tokenizer and mostly a chat template, and says in `interop.json` which
logits, ids and prompts it gives. burn-rag (`tests/interop/causal.rs`) reads them and writes each anew, to
`OURS/<name>/model` and, within a RAG, to `OURS/<name>/rag/generator`. `check` opens these with AutoModelForCausalLM and
AutoTokenizer, and asserts that they give the same.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from interop import compare, opened
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma3TextConfig,
    GenerationConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

LENGTH = 40
TEXTS = [
    "Hamlet is a play by Shakespeare, of the prince of Denmark.",
    "It rained in the city all day, and the road was wet: 1234 mm!",
    "  two  spaces,\ttabs\r\n\nand lines ",
    "下雨了，路很滑。",
    "naïve café \U0001f327",
]
# Passages and questions at whose ends no token reaches into the texts around them.
CHATS = [
    (None, "Hamlet is a play by Shakespeare, of the prince of Denmark", "who wrote the play of hamlet?"),
    (None, "下雨了，路很滑", "下雨了吗？"),
    ("Answer in a few words.", "It rained in the city all day", "Was the road wet"),
]
BETWEEN = "\n\nQuestion: "


@dataclass
class Words:
    """A byte-level BPE."""

    special: list[str]
    bos: str | None
    eos: str
    # What ends the text of a model that does not chat.
    end: str
    chat_template: str | None
    normalizer: normalizers.Normalizer | None = None

    def tokenizer(self):
        tokenizer = Tokenizer(models.BPE())
        words = Regex(r"\p{N}{1,3}|[^\r\n\p{L}\p{N}]?\p{L}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(words, behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        if self.normalizer is not None:
            tokenizer.normalizer = self.normalizer
        trainer = trainers.BpeTrainer(
            vocab_size=256 + 60,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(TEXTS + [text for chat in CHATS for text in chat if text], trainer)
        tokenizer.add_special_tokens(self.special)
        if self.bos is not None:
            tokenizer.post_processor = processors.TemplateProcessing(
                single=f"{self.bos} $A",
                pair=f"{self.bos} $A {self.bos} $B",
                special_tokens=[(self.bos, tokenizer.token_to_id(self.bos))],
            )
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token=self.bos,
            eos_token=self.eos,
            pad_token=self.end,
            chat_template=self.chat_template,
            clean_up_tokenization_spaces=False,
        )


# In the manner of Llama 3: BOS before every text, and a token that ends a message beside the one that ends a text.
HEADERS = Words(
    special=["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    bos="<|begin_of_text|>",
    eos="<|eot_id|>",
    end="<|end_of_text|>",
    chat_template="{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' ~ message['role'] ~ '<|end_header_id|>\n\n' ~ message['content'] | trim ~ eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
)
# The same without a template.
PLAIN = Words(HEADERS.special, HEADERS.bos, "<|end_of_text|>", "<|end_of_text|>", None)
# In the manner of Qwen: no BOS.
CHATML = Words(
    special=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    bos=None,
    eos="<|im_end|>",
    end="<|endoftext|>",
    chat_template="{%- for message in messages %}\n"
    "    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\\n' }}\n"
    "{%- endif %}\n",
    normalizer=normalizers.NFC(),
)
# In the manner of Mistral: the system's text stands before the message's.
INSTRUCT = Words(
    special=["<s>", "</s>", "[INST]", "[/INST]"],
    bos="<s>",
    eos="</s>",
    end="</s>",
    chat_template="{{ bos_token }}{% set ns = namespace(system='') %}{% for message in messages %}"
    "{% if message.role == 'system' %}{% set ns.system = message.content + '\n\n' %}"
    "{% elif message.role == 'user' %}{{ '[INST]' + ns.system + message.content + '[/INST]' }}"
    "{% else %}{{ message.content + eos_token }}{% endif %}{% endfor %}",
)
# In the manner of Gemma: the answering side has a name of its own, and the system's text stands in the user's turn.
TURNS = Words(
    special=["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
    bos="<bos>",
    eos="<end_of_turn>",
    end="<eos>",
    chat_template="{{ bos_token }}{% set ns = namespace(system='') %}{% for message in messages %}"
    "{% if message.role == 'system' %}{% set ns.system = message.content + '\n\n' %}"
    "{% else %}{{ '<start_of_turn>' + message.role + '\n' + ns.system + message.content | trim + '<end_of_turn>\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
)

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 192,
    "initializer_range": 0.15,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
# 4 is not 192 / 32: models are published that name a factor and leave the longest text as it was.
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}


@dataclass
class Model:
    words: Words
    config: type
    settings: dict
    dtype: torch.dtype = torch.float32
    shards: int = 1
    # Changes files after the model is saved.
    edit: object = None


def as_of_transformers_5(folder):
    """`rope_parameters` in the place of `rope_theta` and `rope_scaling`."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if "rope_parameters" not in config:
        theta = config.pop("rope_theta")
        config["rope_parameters"] = config.pop("rope_scaling") | {"rope_theta": theta}
        path.write_text(json.dumps(config))


def with_template_in_settings(folder):
    """As folders were before `chat_template.jinja`."""
    own = folder / "chat_template.jinja"
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"chat_template": own.read_text()}
    path.write_text(json.dumps(settings))
    own.unlink()


MODELS = {
    "llama-tied": Model(
        HEADERS, LlamaConfig, {"tie_word_embeddings": True}, edit=with_template_in_settings
    ),
    "llama-llama3": Model(HEADERS, LlamaConfig, {"head_dim": 12, "rope_theta": 500.0, "rope_scaling": LLAMA3}),
    "llama-yarn": Model(HEADERS, LlamaConfig, {"rope_scaling": YARN}),
    "llama-linear": Model(
        PLAIN,
        LlamaConfig,
        {"rope_scaling": {"type": "linear", "factor": 2.0}, "attention_bias": True, "mlp_bias": True},
    ),
    "llama-transformers-5": Model(
        HEADERS, LlamaConfig, {"rope_theta": 500.0, "rope_scaling": LLAMA3}, edit=as_of_transformers_5
    ),
    "qwen2": Model(CHATML, Qwen2Config, {"tie_word_embeddings": True, "rope_theta": 1_000_000.0}),
    "qwen2-yarn": Model(CHATML, Qwen2Config, {"rope_scaling": YARN}),
    "qwen3": Model(CHATML, Qwen3Config, {"head_dim": 10, "rope_theta": 1_000_000.0}),
    "qwen3-shards": Model(CHATML, Qwen3Config, {"head_dim": 8, "tie_word_embeddings": True}, shards=2),
    "mistral": Model(INSTRUCT, MistralConfig, {"sliding_window": 160}),
    "mistral-bf16": Model(INSTRUCT, MistralConfig, {"sliding_window": None, "head_dim": 6}, dtype=torch.bfloat16),
    "gemma2": Model(
        TURNS,
        Gemma2Config,
        {
            "head_dim": 10,
            "query_pre_attn_scalar": 4,
            "attn_logit_softcapping": 0.5,
            "final_logit_softcapping": 3.0,
            "sliding_window": 160,
        },
    ),
    "gemma3": Model(
        TURNS,
        Gemma3TextConfig,
        {
            "num_hidden_layers": 3,
            "head_dim": 8,
            "query_pre_attn_scalar": 9,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "rope_local_base_freq": 50.0,
            "sliding_window": 160,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
}


def write(theirs):
    for name, made in MODELS.items():
        folder = theirs / name
        tokenizer = made.words.tokenizer()
        model = initialised(made, tokenizer)
        model.generation_config.eos_token_id = end_tokens(made.words, tokenizer)
        save(model.to(made.dtype), made.shards, folder)
        tokenizer.save_pretrained(folder)
        ids = torch.randint(len(tokenizer), (2, LENGTH))
        # Read again, so that only the weights are rounded, and not the frequencies of positions too.
        found = logits(opened(AutoModelForCausalLM, folder), ids)
        case = {"ids": ids.tolist(), "logits": found.tolist()} | texts(tokenizer)
        if made.edit is not None:
            made.edit(folder)
        (folder / "interop.json").write_text(json.dumps(case))
    print(f"transformers wrote {len(MODELS)} decoder-only generators")


def initialised(made, tokenizer):
    settings = SIZES | made.settings | {
        # Published models have rows to spare.
        "vocab_size": len(tokenizer) + 5,
        # Qwen names one that its tokenizer does not.
        "bos_token_id": tokenizer.convert_tokens_to_ids(made.words.bos or made.words.end),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = AutoModelForCausalLM.from_config(made.config(**settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn(parameter.shape)
    if "rope_scaling" in settings:
        plain = AutoModelForCausalLM.from_config(made.config(**settings | {"rope_scaling": None})).eval()
        plain.load_state_dict(model.state_dict())
        ids = torch.randint(len(tokenizer), (1, LENGTH))
        moved = (logits(plain, ids) - logits(model, ids)).abs().max()
        assert moved > 1e-2, f"{settings['rope_scaling']} changes logits by {moved}"
    return model


def end_tokens(words, tokenizer):
    end, eos = tokenizer.convert_tokens_to_ids([words.end, words.eos])
    return end if end == eos else [end, eos]


def save(model, shards, folder):
    if shards == 1:
        model.save_pretrained(folder)
        return
    size = sum(parameter.nbytes for parameter in model.parameters())
    # A tensor is not divided, so that a shard has room for one more.
    largest = max(parameter.nbytes for parameter in model.parameters())
    model.save_pretrained(folder, max_shard_size=size // shards + largest)
    found = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(found) == shards and (folder / "model.safetensors.index.json").is_file(), found


def texts(tokenizer):
    """The part of a case that a tokenizer makes."""
    names = ["system", "passage", "question"]
    chats = [dict(zip(names, chat)) | {"prompt": prompt(tokenizer, *chat)} for chat in CHATS]
    return {"texts": TEXTS, "text_ids": [tokenizer(text)["input_ids"] for text in TEXTS], "chats": chats}


def prompt(tokenizer, system, passage, question):
    message = passage + BETWEEN + question
    if tokenizer.chat_template is None:
        before = "" if system is None else f"{system}\n\n"
        return tokenizer(f"{before}{message}\nAnswer:")["input_ids"]
    messages = [{"role": "user", "content": message}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)


@torch.no_grad()
def logits(model, ids):
    # The only attention with soft caps.
    model.set_attn_implementation("eager")
    return model(input_ids=ids).logits


def check(theirs, ours):
    names = sorted(path.name for path in ours.iterdir())
    assert names == sorted(MODELS), names
    for name in names:
        case = json.loads((theirs / name / "interop.json").read_text())
        for part in ["model", "rag/generator"]:
            folder = ours / name / part
            model = opened(AutoModelForCausalLM, folder)
            compare(f"{name}/{part}", {"logits": logits(model, torch.tensor(case["ids"]))}, case)
            check_settings(theirs / name, folder)
            tokenizer = AutoTokenizer.from_pretrained(folder)
            found = texts(tokenizer)
            for what, ids in found.items():
                assert ids == case[what], f"{name}/{part}: {what}: {ids} is not {case[what]}"
    print(f"transformers opened {2 * len(names)} decoder-only generators of burn-rag and agrees")


def check_settings(theirs, ours):
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (theirs, ours)]
    for what in ["bos_token", "eos_token", "pad_token", "chat_template"]:
        expected, found = [getattr(tokenizer, what) for tokenizer in tokenizers]
        assert found == expected, f"{ours}: {what}: {found!r} is not {expected!r}"
    expected, found = [stretching(folder) for folder in (theirs, ours)]
    assert found == expected, f"{ours}: {found} is not {expected}"
    expected, found = [ends(folder) for folder in (theirs, ours)]
    assert found == expected, f"{ours}: eos_token_id: {found} is not {expected}"


def ends(folder):
    found = GenerationConfig.from_pretrained(folder).eos_token_id
    return {found} if isinstance(found, int) else set(found)


def stretching(folder):
    """As text, since transformers tells whole numbers from others."""
    config = json.loads((folder / "config.json").read_text())
    return json.dumps(config.get("rope_parameters", config.get("rope_scaling")), sort_keys=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    {"write": write, "check": check}[sys.argv[1]](*map(Path, sys.argv[2:]))
