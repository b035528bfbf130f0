#!/usr/bin/env python3
"""Golden cases: tiny random RAG checkpoints with the numbers that transformers gives for them.

    pip install torch transformers==4.57.6 safetensors
    python scripts/make_golden.py --output golden --seed 1 --generator t5-gated
    RAG_GOLDEN_DIR=golden cargo test --test golden -- --nocapture

makes `golden/<generator>-<seed>/` with a checkpoint in the Hugging Face layout, `context_encoder/`,
`cases.json` (what is computed, with which settings and tolerance) and `cases.safetensors` (inputs
and expected values, named `<case>/<tensor>`). `tests/golden/rag.rs` says what each kind of case means.

The seed chooses the weights, the inputs and the architecture: layers, heads, activations, DPR's
projection, how many documents there are. Weights are random and then fitted for a moment to random
answers, so that decoding ends at different lengths. Token ids are only worth comparing where no two
tokens are nearly tied: every generation is repeated in double precision with weights that are off by
a hundred-thousandth, and inputs for which that changes anything are drawn anew.
"""

import argparse
import copy
import json
import random
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    DPRConfig,
    DPRContextEncoder,
    DPRQuestionEncoder,
    GenerationConfig,
    RagConfig,
    RagSequenceForGeneration,
    RagTokenForGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

VOCABULARY = 97
FIRST_WORD = 4  # Ids below are special tokens, and the separator between passage and question.
SEPARATOR = 3
BATCH = 3
LONGEST_QUESTION = 9
LONGEST_CONTEXT = 17
LONGEST_ANSWER = 8

TOLERANCE = {
    "question_encoder": 1e-4,
    "context_encoder": 1e-4,
    "generator_forward": 1e-4,
    "rag_token_logits": 2e-4,
    "rag_token_loss": 5e-4,
    "rag_sequence_loss": 5e-4,
    "rag_token_gradients": 5e-3,
    "rag_sequence_gradients": 5e-3,
    "generator_generate": 1e-4,
    "rag_token_generate": 1e-4,
    "rag_sequence_generate": 1e-4,
    "rag_sequence_training": 2e-3,
}

# Decoding settings of the plain generator and of RAG-Token, in transformers' names.
DECODING = {
    "greedy": {"num_beams": 1},
    "beam2": {"num_beams": 2},
    "beam4": {"num_beams": 4},
    "beam4_len2": {"num_beams": 4, "length_penalty": 2.0},
    "beam4_len0": {"num_beams": 4, "length_penalty": 0.0},
    "beam4_len-1": {"num_beams": 4, "length_penalty": -1.0},
    "beam3_min6": {"num_beams": 3, "min_length": 6},
    "beam3_norepeat2": {"num_beams": 3, "no_repeat_ngram_size": 2},
    "beam3_early": {"num_beams": 3, "early_stopping": True},
    "beam3_never_len2": {"num_beams": 3, "early_stopping": "never", "length_penalty": 2.0},
    "beam3_never_len-1": {"num_beams": 3, "early_stopping": "never", "length_penalty": -1.0},
    "beam4_return3": {"num_beams": 4, "num_return_sequences": 3},
    "beam3_short": {"num_beams": 3, "max_length": 5},
    "greedy_repetition": {"num_beams": 1, "repetition_penalty": 1.5},
    "beam3_repetition": {"num_beams": 3, "repetition_penalty": 1.5},
    "beam3_bad": {"num_beams": 3, "bad_words_ids": [[7], [9, 11]]},
}

# Settings of RAG-Sequence's thorough decoding.
THOROUGH = {
    "greedy": {"num_beams": 1},
    "beam2": {"num_beams": 2},
    "beam4": {"num_beams": 4},
    "beam4_return2": {"num_beams": 4, "num_return_sequences": 2},
    "beam3_nodedup": {"num_beams": 3, "do_deduplication": False},
    "beam3_min6": {"num_beams": 3, "min_length": 6},
}

TRAINING = {
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "beta_1": 0.9,
    "beta_2": 0.999,
    "epsilon": 1e-8,
    "weight_decay": 0.01,
    "max_gradient_norm": 1.0,
    "steps": 6,
    "accumulation": 2,
    "reduce": "mean",
}


def dpr_config(draw):
    return DPRConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=draw.choice([1, 2]),
        num_attention_heads=draw.choice([2, 4]),
        intermediate_size=draw.choice([48, 64]),
        hidden_act=draw.choice(["gelu", "relu"]),
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=64,
        initializer_range=0.15,
        projection_dim=draw.choice([0, 20]),
    )


# Encoder and decoder are equally deep: transformers sizes RAG's cache by the encoder.


def bart(draw):
    layers = draw.choice([1, 2, 3])
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=VOCABULARY,
            d_model=32,
            encoder_layers=layers,
            decoder_layers=layers,
            encoder_attention_heads=draw.choice([2, 4]),
            decoder_attention_heads=draw.choice([4, 8]),
            encoder_ffn_dim=draw.choice([48, 64]),
            decoder_ffn_dim=64,
            activation_function=draw.choice(["gelu", "relu", "gelu_new"]),
            scale_embedding=draw.choice([False, True]),
            max_position_embeddings=64,
            dropout=0.0,
            attention_dropout=0.0,
            activation_dropout=0.0,
            init_std=0.15,
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=2,
            decoder_start_token_id=2,
            forced_bos_token_id=draw.choice([0, 0, None]),
            forced_eos_token_id=2,
        )
    )


def t5(draw, gated):
    layers = draw.choice([1, 2, 3])
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCABULARY,
            d_model=32,
            d_kv=draw.choice([5, 8, 9]),
            d_ff=draw.choice([48, 64]),
            num_layers=layers,
            num_decoder_layers=layers,
            num_heads=draw.choice([2, 4]),
            relative_attention_num_buckets=draw.choice([8, 16, 32]),
            relative_attention_max_distance=draw.choice([20, 128]),
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu" if gated else "relu",
            tie_word_embeddings=not gated,
            pad_token_id=draw.choice([0, 2]),
            eos_token_id=1,
            decoder_start_token_id=0,
        )
    )


def roughen(model, generator):
    """Biases of 0 and norms of 1 would hide mistakes."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        for name, buffer in model.named_buffers():
            if name.endswith("final_logits_bias"):
                buffer += 0.2 * torch.randn(buffer.shape, generator=generator)


class Inputs:
    """Draws token ids, as tensors with their masks."""

    def __init__(self, model, draw, generator):
        self.draw = draw
        self.generator = generator
        self.n_docs = model.config.n_docs
        self.dimension = model.config.retrieval_vector_size
        own = model.config.generator
        self.pad = own.pad_token_id
        self.end = own.eos_token_id
        self.begin = [own.decoder_start_token_id]
        if own.bos_token_id is not None:
            self.begin.append(own.bos_token_id)

    def words(self, count):
        return [self.draw.randrange(FIRST_WORD, VOCABULARY) for _ in range(count)]

    @staticmethod
    def padded(rows, pad):
        longest = max(len(row) for row in rows)
        ids = [row + [pad] * (longest - len(row)) for row in rows]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        return torch.tensor(ids), torch.tensor(mask)

    def questions(self, batch=BATCH):
        """One of them is as long as questions become, so that every batch has the same shape."""
        lengths = [LONGEST_QUESTION] + [self.draw.randint(3, LONGEST_QUESTION) for _ in range(batch - 1)]
        self.draw.shuffle(lengths)
        return self.padded([self.words(length) for length in lengths], 0)

    def contexts(self, rows):
        lengths = [LONGEST_CONTEXT] + [self.draw.randint(8, LONGEST_CONTEXT) for _ in range(rows - 1)]
        self.draw.shuffle(lengths)
        contexts = []
        for length in lengths:
            words = self.words(length)
            words[self.draw.randint(2, 6)] = SEPARATOR
            contexts.append(words)
        return self.padded(contexts, self.pad)

    def labels(self, batch=BATCH):
        """Start token, words, end token, padding: what transformers' RAG calls labels."""
        longest = LONGEST_ANSWER - len(self.begin) - 1
        lengths = [longest] + [self.draw.randint(1, longest) for _ in range(batch - 1)]
        rows = [self.begin + self.words(length) + [self.end] for length in lengths]
        return self.padded(rows, self.pad)[0]

    def doc_scores(self, batch=BATCH):
        return torch.randn(batch, self.n_docs, generator=self.generator)

    def documents(self, batch=BATCH):
        shape = (batch, self.n_docs, self.dimension)
        return 0.2 * torch.randn(shape, generator=self.generator)

    def retrieved(self, batch=BATCH):
        ids, mask = self.contexts(batch * self.n_docs)
        return {
            "context_input_ids": ids,
            "context_attention_mask": mask,
            "doc_scores": self.doc_scores(batch),
        }


def make_model(kind, seed):
    draw = random.Random(f"{kind} {seed}")
    torch.manual_seed(draw.randrange(2**32))
    generator = torch.Generator().manual_seed(draw.randrange(2**32))
    question_encoder = DPRQuestionEncoder(dpr_config(draw))
    model = {
        "bart": lambda: bart(draw),
        "t5": lambda: t5(draw, gated=False),
        "t5-gated": lambda: t5(draw, gated=True),
    }[kind]()
    own = question_encoder.config
    config = RagConfig.from_question_encoder_generator_configs(
        own,
        model.config,
        n_docs=draw.choice([2, 3, 4]),
        max_combined_length=40,
        retrieval_vector_size=own.projection_dim or own.hidden_size,
        **{
            name: getattr(model.config, name)
            for name in ["bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"]
        },
    )
    rag = RagTokenForGeneration(config, question_encoder=question_encoder, generator=model)
    context_encoder = DPRContextEncoder(dpr_config(draw))
    roughen(rag, generator)
    roughen(context_encoder, generator)
    # The start token and padding, which generation takes from the generator.
    names = ["bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"]
    names += ["forced_bos_token_id", "forced_eos_token_id"]
    settings = {name: getattr(model.config, name) for name in names}
    rag.generation_config = GenerationConfig(**{k: v for k, v in settings.items() if v is not None})
    model.generation_config = copy.deepcopy(rag.generation_config)
    inputs = Inputs(rag, draw, generator)
    fit(model, inputs, draw)
    return rag.eval(), context_encoder.eval(), inputs


def fit(generator, inputs, draw):
    """A moment of training, in which the generator learns that answers end."""
    optimizer = torch.optim.AdamW(generator.parameters(), lr=3e-3)
    ids, mask = inputs.contexts(16)
    labels = inputs.labels(16)
    for _ in range(draw.choice([40, 60])):
        logits = generator(input_ids=ids, attention_mask=mask, decoder_input_ids=labels).logits
        targets = labels[:, 1:].reshape(-1)
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].reshape(-1, VOCABULARY), targets, ignore_index=inputs.pad
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def shaken(model):
    """The same model in double precision, as if rounding were a hundred times worse."""
    torch.manual_seed(0)
    model = copy.deepcopy(model).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1 + 1e-5 * torch.randn_like(parameter)
    return model


class Cases:
    """Cases and their tensors, as a golden folder holds them."""

    def __init__(self, tolerance):
        self.tolerance = tolerance
        self.cases = []
        self.tensors = {}

    def record(self, identifier, kind, params, tensors):
        assert all(case["id"] != identifier for case in self.cases), identifier
        for name, tensor in tensors.items():
            dtype = torch.float32 if tensor.is_floating_point() else torch.int64
            self.tensors[f"{identifier}/{name}"] = tensor.detach().to(dtype).contiguous().clone()
        self.cases.append(
            {
                "id": identifier,
                "kind": kind,
                "params": params,
                "tolerance": self.tolerance[kind],
                "tensors": sorted(tensors),
            }
        )

    def write(self, folder):
        text = json.dumps({"cases": self.cases}, indent=1)
        (folder / "cases.json").write_text(text + "\n", encoding="utf-8")
        save_file(self.tensors, folder / "cases.safetensors")


class Recorder(Cases):
    def __init__(self, rag, context_encoder, inputs):
        super().__init__(TOLERANCE)
        self.rag = rag
        self.sequence = as_sequence_model(rag)
        self.context_encoder = context_encoder
        self.inputs = inputs
        self.shaken = shaken(rag)
        self.shaken_sequence = as_sequence_model(self.shaken)

    def encoders(self):
        for kind, encoder in [
            ("question_encoder", self.rag.question_encoder),
            ("context_encoder", self.context_encoder),
        ]:
            ids, mask = self.inputs.questions()
            with torch.no_grad():
                expected = encoder(input_ids=ids, attention_mask=mask).pooler_output
            tensors = {"input_ids": ids, "attention_mask": mask, "expected": expected}
            self.record(kind, kind, {}, tensors)

    def forward(self):
        ids, mask = self.inputs.contexts(BATCH)
        labels = self.inputs.labels()
        tensors = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": labels}
        with torch.no_grad():
            tensors["expected"] = self.rag.generator(**tensors).logits
        self.record("generator_forward", "generator_forward", {}, tensors)

        tensors = self.inputs.retrieved() | {"decoder_input_ids": self.inputs.labels()}
        with torch.no_grad():
            tensors["expected"] = self.rag(**tensors, do_marginalize=True).logits
        self.record("rag_token_logits", "rag_token_logits", {}, tensors)

    def losses(self):
        for epsilon in [0.0, 0.1]:
            tensors = self.inputs.retrieved() | {"labels": self.inputs.labels()}
            with smoothing(self.rag, epsilon), torch.no_grad():
                expected = self.rag(**tensors, reduce_loss=False).loss
            identifier = f"rag_token_loss_eps{epsilon}"
            self.record(identifier, "rag_token_loss", {"epsilon": epsilon}, tensors | {"expected": expected})
            for exclude in [False, True]:
                tensors = self.inputs.retrieved() | {"labels": self.inputs.labels()}
                with smoothing(self.sequence, epsilon), torch.no_grad():
                    output = self.sequence(**tensors, reduce_loss=False, exclude_bos_score=exclude)
                self.record(
                    f"rag_sequence_loss_eps{epsilon}_exclude_bos{exclude}",
                    "rag_sequence_loss",
                    {"epsilon": epsilon, "exclude_bos_score": exclude},
                    tensors | {"expected": output.loss},
                )

    def gradients(self):
        for kind, model in [("rag_token", self.rag), ("rag_sequence", self.sequence)]:
            question_ids, question_mask = self.inputs.questions()
            tensors = self.inputs.retrieved()
            del tensors["doc_scores"]
            tensors |= {
                "question_input_ids": question_ids,
                "question_attention_mask": question_mask,
                "document_embeddings": self.inputs.documents(),
                "labels": self.inputs.labels(),
            }
            model.zero_grad()
            scores, losses = joint_loss(model, tensors, epsilon=0.1)
            losses.sum().backward()
            gradients = {
                f"grad:{name}": parameter.grad.clone()
                for name, parameter in model.named_parameters()
                if parameter.grad is not None
            }
            model.zero_grad()
            params = {
                "epsilon": 0.1,
                "reduce": "sum",
                "parameters": [name.removeprefix("grad:") for name in gradients],
            }
            tensors |= {"expected_doc_scores": scores, "expected_loss": losses.sum()}
            self.record(f"{kind}_gradients", f"{kind}_gradients", params, tensors | gradients)

    def generation(self):
        def plain(model, _, drawn, params):
            return model.generator.generate(
                input_ids=drawn["input_ids"],
                attention_mask=drawn["attention_mask"],
                return_dict_in_generate=True,
                output_scores=True,
                **params,
            )

        def plain_inputs():
            ids, mask = self.inputs.contexts(BATCH)
            return {"input_ids": ids, "attention_mask": mask}

        def token(model, _, drawn, params):
            return model.generate(**as_double(drawn, model), **params)

        def thorough(_, model, drawn, params):
            return model.generate(**as_double(drawn, model), **params)

        for name, settings in DECODING.items():
            params = {"max_length": 14} | settings
            self.generate(f"generator_generate_{name}", "generator_generate", plain, plain_inputs, params)
            self.generate(f"rag_token_generate_{name}", "rag_token_generate", token, self.inputs.retrieved, params)
        for name, settings in THOROUGH.items():
            if self.inputs.pad == 0 and settings["num_beams"] > 1:
                # transformers' beam search takes a padding id of 0 for none and fills finished rows
                # with end tokens, each of which thorough decoding then counts as part of the answer.
                continue
            params = {"max_length": 14, "num_return_sequences": 1} | settings
            self.generate(f"rag_sequence_generate_{name}", "rag_sequence_generate", thorough, self.inputs.retrieved, params)

    def generate(self, identifier, kind, decode, draw_inputs, params):
        for _ in range(50):
            drawn = draw_inputs()
            expected = decode(self.rag, self.sequence, drawn, params)
            shaken = decode(self.shaken, self.shaken_sequence, drawn, params)
            sequences = getattr(expected, "sequences", expected)
            others = getattr(shaken, "sequences", shaken)
            if sequences.equal(others):
                break
        else:
            print(f"  {identifier}: left out, there are near-ties for all inputs that were drawn")
            return
        tensors = drawn | {"expected": sequences}
        if getattr(expected, "sequences_scores", None) is not None:
            tensors["sequences_scores"] = expected.sequences_scores
        self.record(identifier, kind, params, tensors)

    def training(self):
        """The last: it moves the weights, of a copy."""
        model = copy.deepcopy(self.sequence).train()
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=TRAINING["learning_rate"],
            betas=(TRAINING["beta_1"], TRAINING["beta_2"]),
            eps=TRAINING["epsilon"],
            weight_decay=TRAINING["weight_decay"],
        )
        recorded = {}
        expected = []
        for step in range(TRAINING["steps"]):
            optimizer.zero_grad()
            total = 0.0
            for micro in range(TRAINING["accumulation"]):
                ids, mask = self.inputs.questions(2)
                batch = self.inputs.retrieved(2)
                del batch["doc_scores"]
                batch |= {
                    "question_input_ids": ids,
                    "question_attention_mask": mask,
                    "document_embeddings": self.inputs.documents(2),
                    "labels": self.inputs.labels(2),
                }
                _, losses = joint_loss(model, batch, epsilon=0.0)
                loss = losses.mean() / TRAINING["accumulation"]
                loss.backward()
                total += loss.item()
                recorded |= {f"{name}:{step}:{micro}": tensor for name, tensor in batch.items()}
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), TRAINING["max_gradient_norm"])
            optimizer.step()
            expected.append([total, norm.item()])
        recorded["expected_loss_and_gradient_norm"] = torch.tensor(expected)
        self.record("rag_sequence_training", "rag_sequence_training", TRAINING, recorded)

    def save(self, folder):
        self.rag.save_pretrained(folder)
        self.context_encoder.save_pretrained(folder / "context_encoder")
        self.write(folder)


def as_sequence_model(rag):
    model = RagSequenceForGeneration(
        rag.config, question_encoder=rag.question_encoder, generator=rag.generator
    )
    return model.eval()


def as_double(drawn, model):
    dtype = next(model.parameters()).dtype
    return {name: x.to(dtype) if x.is_floating_point() else x for name, x in drawn.items()}


class smoothing:
    """Sets a model's label smoothing for a moment."""

    def __init__(self, model, epsilon):
        self.config = model.config
        self.epsilon = epsilon

    def __enter__(self):
        self.before = self.config.label_smoothing
        self.config.label_smoothing = self.epsilon

    def __exit__(self, *_):
        self.config.label_smoothing = self.before


def joint_loss(model, tensors, epsilon):
    """Document scores and the loss of each example, through question encoder and generator."""
    questions = model.question_encoder(
        input_ids=tensors["question_input_ids"], attention_mask=tensors["question_attention_mask"]
    ).pooler_output
    scores = torch.einsum("bh,bdh->bd", questions, tensors["document_embeddings"])
    with smoothing(model, epsilon):
        output = model(
            context_input_ids=tensors["context_input_ids"],
            context_attention_mask=tensors["context_attention_mask"],
            doc_scores=scores,
            labels=tensors["labels"],
            reduce_loss=False,
        )
    return scores, output.loss


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--output", type=Path, required=True, help="where folders are made")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--generator", choices=["bart", "t5", "t5-gated"], default="bart")
    arguments = arguments.parse_args()

    torch.set_num_threads(1)
    recorder = Recorder(*make_model(arguments.generator, arguments.seed))
    recorder.encoders()
    recorder.forward()
    recorder.losses()
    recorder.gradients()
    recorder.generation()
    recorder.training()
    folder = arguments.output / f"{arguments.generator}-{arguments.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    recorder.save(folder)
    print(f"{folder}: {len(recorder.cases)} cases")


if __name__ == "__main__":
    main()
