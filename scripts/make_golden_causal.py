#!/usr/bin/env python3
"""Golden cases for decoder-only generators: tiny random causal models and the numbers that follow from the definition.

    pip install torch transformers==4.57.6 safetensors
    python scripts/make_golden_causal.py --output tests/golden
    python scripts/make_golden_causal.py --output golden --family qwen3 --seed 1
    RAG_GOLDEN_DIR=golden cargo test --test golden -- --nocapture

The first makes the folders `tests/golden/causal-<family>/`, byte for byte; a seed other than 0 stands at the end of the
folder's name and draws other weights and inputs. A folder holds `generator/`, as `save_pretrained` writes it, `cases.json`
(what is computed, with which settings and tolerance) and `cases.safetensors` (inputs and expected values, named
`<case>/<tensor>`). `tests/golden/causal.rs` says what each kind of case means.

Nothing is padded or cached: log P(y_i|x,z,y_<i) is read off the model run on prompt z followed by y, one prompt at a time,
in float32, and the sums over prompts are those of Lewis et al. 2020. For decoding, the mixture over prompts is given to
transformers' own `generate` as a model of answers alone (`Mixture`). Prompts of a question end alike and differ in length.

Weights are random and then fitted for a moment to random answers, so that decoding ends at different lengths. Decoded ids
are only worth comparing where nothing is nearly tied: every decoding is repeated in double precision with weights that are
off by a hundred-thousandth, and inputs for which that changes anything are drawn anew. So are those for which a penalty or
a ban changes nothing.
"""

import argparse
import random
from pathlib import Path

import torch
from make_golden import FIRST_WORD, SEPARATOR, VOCABULARY, Cases, roughen, shaken
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GenerationMixin,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.modeling_outputs import CausalLMOutput

PAD, BEGIN, END = 0, 1, 2
NO_LABEL = -100
# Outside the vocabulary: stands before every answer, so that no penalty can count it.
BEFORE = VOCABULARY
QUESTIONS = 2
NEW_TOKENS = 10
# Longer than the 16 positions from which Llama 3 stretches its rotary embedding.
FORWARD_LENGTH = 24

TOLERANCE = {
    "causal_forward": 1e-4,
    "token_log_probs": 1e-4,
    "rag_sequence_likelihood": 5e-4,
    "rag_token_likelihood": 5e-4,
    "rag_sequence_gradients": 5e-3,
    "rag_token_gradients": 5e-3,
    "rag_token_generate": 1e-4,
    "rag_sequence_generate": 1e-4,
}

# Settings that must change the first question's answers.
RESTRICTIONS = [
    "bad_words_ids",
    "length_penalty",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "repetition_penalty",
]

# Decoding settings of RAG-Token, in transformers' names; a function is of the answer without it.
DECODING = {
    "greedy": {"num_beams": 1},
    "beam2": {"num_beams": 2},
    "beam4": {"num_beams": 4},
    "beam4_len2": {"num_beams": 4, "length_penalty": 2.0},
    "beam4_len0": {"num_beams": 4, "length_penalty": 0.0},
    "beam4_len-1": {"num_beams": 4, "length_penalty": -1.0},
    "greedy_min6": {"num_beams": 1, "min_new_tokens": 6},
    "beam3_min6": {"num_beams": 3, "min_new_tokens": 6},
    "beam3_norepeat2": {"num_beams": 3, "no_repeat_ngram_size": 2},
    "beam3_early": {"num_beams": 3, "early_stopping": True},
    "beam3_never_len2": {"num_beams": 3, "early_stopping": "never", "length_penalty": 2.0},
    "beam3_never_len-1": {"num_beams": 3, "early_stopping": "never", "length_penalty": -1.0},
    "beam4_return3": {"num_beams": 4, "num_return_sequences": 3},
    "beam3_short": {"num_beams": 3, "max_new_tokens": 3},
    "greedy_repetition": {"num_beams": 1, "repetition_penalty": 1.5},
    "beam3_repetition": {"num_beams": 3, "repetition_penalty": 1.5},
    "greedy_bad_word": {"num_beams": 1, "bad_words_ids": lambda answer: [answer[:1]]},
    "beam3_bad_words": {"num_beams": 3, "bad_words_ids": lambda answer: [answer[:2], answer[2:3]]},
}

# Settings of RAG-Sequence's thorough decoding.
THOROUGH = {
    "greedy": {"num_beams": 1},
    "beam2": {"num_beams": 2},
    "beam4": {"num_beams": 4},
    "beam4_return2": {"num_beams": 4, "num_return_sequences": 2},
    "beam3_min6": {"num_beams": 3, "min_new_tokens": 6},
    "beam3_short": {"num_beams": 3, "max_new_tokens": 3},
}

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.15,
    "bos_token_id": BEGIN,
    "eos_token_id": END,
}

# What transformers makes of each family, and how many passages a question has.
FAMILIES = {
    "llama": (
        lambda: LlamaForCausalLM(
            LlamaConfig(
                **SIZES,
                num_attention_heads=6,
                num_key_value_heads=2,
                rms_norm_eps=1e-5,
                rope_theta=10_000.0,
                tie_word_embeddings=True,
            )
        ),
        3,
    ),
    "llama3-rope": (
        lambda: LlamaForCausalLM(
            LlamaConfig(
                **SIZES,
                num_attention_heads=4,
                num_key_value_heads=1,
                head_dim=8,
                rms_norm_eps=1e-5,
                rope_theta=500.0,
                rope_scaling={
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 16,
                },
                tie_word_embeddings=False,
            )
        ),
        4,
    ),
    "qwen2": (
        lambda: Qwen2ForCausalLM(
            Qwen2Config(
                **SIZES,
                num_attention_heads=4,
                num_key_value_heads=2,
                rms_norm_eps=1e-6,
                rope_theta=1_000_000.0,
                tie_word_embeddings=False,
            )
        ),
        2,
    ),
    "qwen3": (
        lambda: Qwen3ForCausalLM(
            Qwen3Config(
                **SIZES,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=10,
                rms_norm_eps=1e-6,
                rope_theta=1_000_000.0,
                tie_word_embeddings=True,
            )
        ),
        3,
    ),
    "mistral": (
        lambda: MistralForCausalLM(
            MistralConfig(
                **SIZES,
                num_attention_heads=4,
                num_key_value_heads=4,
                head_dim=4,
                rms_norm_eps=1e-5,
                rope_theta=10_000.0,
                sliding_window=None,
                tie_word_embeddings=False,
            )
        ),
        3,
    ),
    # Caps so low that they bend most scores and logits. Only eager attention applies that of the scores.
    "gemma2": (
        lambda: Gemma2ForCausalLM(
            Gemma2Config(
                **SIZES,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=8,
                query_pre_attn_scalar=4,
                attn_logit_softcapping=0.5,
                final_logit_softcapping=3.0,
                sliding_window=32,
                attn_implementation="eager",
            )
        ),
        3,
    ),
    # One layer sees all, with stretched positions; the others have positions of their own.
    "gemma3": (
        lambda: Gemma3ForCausalLM(
            Gemma3TextConfig(
                **SIZES | {"num_hidden_layers": 3},
                num_attention_heads=6,
                num_key_value_heads=2,
                head_dim=6,
                query_pre_attn_scalar=9,
                rope_theta=10_000.0,
                rope_local_base_freq=50.0,
                rope_scaling={"rope_type": "linear", "factor": 4.0},
                sliding_window=32,
                sliding_window_pattern=3,
                attn_implementation="eager",
            )
        ),
        2,
    ),
}


def log_probs_after(model, prompt, answers):
    """log P(v|prompt, answer_<i) `[rows, length + 1, vocabulary]` of answers `[rows, length]`: after the prompt, and after
    each token of an answer."""
    rows = [prompt + answer for answer in answers]
    logits = model(input_ids=torch.tensor(rows), use_cache=False).logits
    return torch.log_softmax(logits[:, len(prompt) - 1 :], dim=-1)


def token_log_probs(model, prompts, answer):
    """log P(y_i|x,z,y_<i) `[n_docs, len(answer)]`."""
    targets = torch.tensor(answer).unsqueeze(1)
    by_prompt = [log_probs_after(model, prompt, [answer])[0, :-1] for prompt in prompts]
    return torch.stack([log_probs.gather(1, targets).squeeze(1) for log_probs in by_prompt])


def log_prior(scores):
    return torch.log_softmax(scores, dim=-1)


def sequence_log_likelihood(scores, tokens):
    """log Σ_z P(z|x) Π_i P(y_i|x,z,y_<i)."""
    return torch.logsumexp(log_prior(scores) + tokens.sum(dim=1), dim=0)


def token_log_likelihood(scores, tokens):
    """log Π_i Σ_z P(z|x) P(y_i|x,z,y_<i)."""
    return torch.logsumexp(log_prior(scores).unsqueeze(1) + tokens, dim=0).sum()


class Mixture(PreTrainedModel, GenerationMixin):
    """log Σ_z P(z|x) P(y_i|x,z,y_<i) as the logits of a model that reads `BEFORE` and the answer so far, and knows no
    prompt. `BEFORE` is one more word, which it never says."""

    config_class = PretrainedConfig

    def __init__(self, model, prompts, scores):
        super().__init__(PretrainedConfig(vocab_size=VOCABULARY + 1, is_encoder_decoder=False))
        self.of_prompts = model
        self.prompts = prompts
        self.log_prior = log_prior(scores)

    def forward(self, input_ids, attention_mask=None, **kwargs):
        rows = input_ids.tolist()
        assert all(row[0] == BEFORE and BEFORE not in row[1:] for row in rows)
        answers = [row[1:] for row in rows]
        by_prompt = [log_probs_after(self.of_prompts, prompt, answers) for prompt in self.prompts]
        logits = torch.logsumexp(self.log_prior[:, None, None, None] + torch.stack(by_prompt), dim=0)
        never = torch.full_like(logits[..., :1], float("-inf"))
        return CausalLMOutput(logits=torch.cat([logits, never], dim=-1))

    def prepare_inputs_for_generation(self, input_ids, **kwargs):
        return {"input_ids": input_ids}


def decode(model, prompts, scores, params):
    """Answers with their end token, best first, and their scores where there are beams."""
    mixture = Mixture(model, prompts, scores).eval()
    output = mixture.generate(
        torch.tensor([[BEFORE]]),
        attention_mask=torch.tensor([[1]]),
        do_sample=False,
        use_cache=False,
        eos_token_id=END,
        pad_token_id=PAD,
        return_dict_in_generate=True,
        output_scores=True,
        **params,
    )
    answers = [until_end(row[1:]) for row in output.sequences.tolist()]
    return answers, getattr(output, "sequences_scores", None)


def until_end(answer):
    return answer[: answer.index(END) + 1] if END in answer else answer


def thorough(model, prompts, scores, params):
    """What each prompt's own beams propose, each distinct proposal once, best log P(y|x) first."""
    params = dict(params)
    count = params.pop("num_return_sequences", 1)
    proposals = []
    for prompt in prompts:
        alone = torch.zeros(1, dtype=scores.dtype)
        answers, _ = decode(model, [prompt], alone, params | {"num_return_sequences": params["num_beams"]})
        proposals += [answer for answer in answers if answer not in proposals]
    scored = [
        (sequence_log_likelihood(scores, token_log_probs(model, prompts, answer)).item(), answer)
        for answer in proposals
    ]
    best = sorted(scored, key=lambda pair: -pair[0])[:count]
    return [answer for _, answer in best], torch.tensor([score for score, _ in best])


class Inputs:
    """Draws questions with their prompts, and answers."""

    def __init__(self, n_docs, draw, generator):
        self.n_docs = n_docs
        self.draw = draw
        self.generator = generator

    def words(self, count):
        return [self.draw.randrange(FIRST_WORD, VOCABULARY) for _ in range(count)]

    def prompts(self):
        """Of one question: passages of different lengths before the same words."""
        question = self.words(self.draw.randint(2, 4)) + [SEPARATOR]
        lengths = self.draw.sample(range(2, 11), self.n_docs)
        return [[BEGIN] + self.words(length) + question for length in lengths]

    def answer(self, words):
        return self.words(words) + [END]

    def questions(self, count=QUESTIONS):
        return [self.prompts() for _ in range(count)], torch.randn(count, self.n_docs, generator=self.generator)

    def answers(self, count=3):
        """One of them is as long as answers become, and one says nothing."""
        lengths = [5, 0] + [self.draw.randint(1, 4) for _ in range(count - 2)]
        self.draw.shuffle(lengths)
        return [self.answer(length) for length in lengths]


def padded(rows, pad):
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [pad] * (longest - len(row)) for row in rows])


def as_tensors(questions, scores):
    prompts = [prompt for prompts in questions for prompt in prompts]
    return {
        "prompt_ids": padded(prompts, PAD),
        "prompt_mask": padded([[1] * len(prompt) for prompt in prompts], 0),
        "doc_scores": scores,
    }


def fit(model, inputs, draw):
    """A moment of training, in which the model learns that answers end."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    examples = [(inputs.prompts()[0], inputs.answer(draw.randint(3, 8))) for _ in range(16)]
    for _ in range(draw.choice([60, 80])):
        losses = [-token_log_probs(model, [prompt], answer).mean() for prompt, answer in examples]
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()


def make_model(family, seed):
    draw = random.Random(f"causal {family} {seed}")
    torch.manual_seed(draw.randrange(2**32))
    generator = torch.Generator().manual_seed(draw.randrange(2**32))
    init, n_docs = FAMILIES[family]
    model = init().float()
    roughen(model, generator)
    inputs = Inputs(n_docs, draw, generator)
    fit(model, inputs, draw)
    return model.eval(), inputs


class Recorder(Cases):
    def __init__(self, model, inputs):
        super().__init__(TOLERANCE)
        self.model = model
        self.inputs = inputs
        self.shaken = shaken(model)

    def forward(self):
        ids = torch.tensor([[BEGIN] + self.inputs.words(FORWARD_LENGTH - 1)])
        with torch.no_grad():
            expected = self.model(input_ids=ids, use_cache=False).logits
        self.record("causal_forward", "causal_forward", {}, {"input_ids": ids, "expected": expected})

    def answered(self):
        """Questions, their scores, their answers and all of it as tensors."""
        answers = self.inputs.answers()
        questions, scores = self.inputs.questions(len(answers))
        tensors = as_tensors(questions, scores) | {"labels": padded(answers, NO_LABEL)}
        return questions, scores, answers, tensors

    def of_each(self, questions, answers, function):
        """`[batch, n_docs, length]` of a function's `[n_docs, length]` of each answer, 0 where there is no label."""
        longest = max(len(answer) for answer in answers)
        found = torch.zeros(len(answers), self.inputs.n_docs, longest)
        for row, (prompts, answer) in enumerate(zip(questions, answers)):
            found[row, :, : len(answer)] = function(row, token_log_probs(self.model, prompts, answer))
        return found

    def likelihoods(self):
        with torch.no_grad():
            questions, _, answers, tensors = self.answered()
            expected = self.of_each(questions, answers, lambda _, tokens: tokens)
            self.record("token_log_probs", "token_log_probs", {}, tensors | {"expected": expected})

            questions, scores, answers, tensors = self.answered()
            of_tokens = [token_log_probs(self.model, *each) for each in zip(questions, answers)]
            each = list(zip(scores, of_tokens))
            tensors["expected"] = torch.stack([sequence_log_likelihood(*one) for one in each])
            joint = [log_prior(prior) + tokens.sum(dim=1) for prior, tokens in each]
            tensors["posterior"] = torch.softmax(torch.stack(joint), dim=-1)
            self.record("rag_sequence_likelihood", "rag_sequence_likelihood", {}, tensors)

            questions, scores, answers, tensors = self.answered()
            of_tokens = [token_log_probs(self.model, *each) for each in zip(questions, answers)]
            tensors["expected"] = torch.stack([token_log_likelihood(*one) for one in zip(scores, of_tokens)])
            tensors["responsibilities"] = self.of_each(
                questions,
                answers,
                lambda row, tokens: torch.softmax(log_prior(scores[row]).unsqueeze(1) + tokens, dim=0),
            )
            self.record("rag_token_likelihood", "rag_token_likelihood", {}, tensors)

    def gradients(self):
        for kind, log_likelihood in [
            ("rag_sequence", sequence_log_likelihood),
            ("rag_token", token_log_likelihood),
        ]:
            questions, scores, answers, tensors = self.answered()
            scores = scores.clone().requires_grad_()
            self.model.zero_grad()
            of_each = [
                log_likelihood(scores[row], token_log_probs(self.model, prompts, answer))
                for row, (prompts, answer) in enumerate(zip(questions, answers))
            ]
            loss = -torch.stack(of_each).sum()
            loss.backward()
            gradients = {
                f"grad:{name}": parameter.grad.clone() for name, parameter in self.model.named_parameters()
            }
            self.model.zero_grad()
            params = {"reduce": "sum", "parameters": [name.removeprefix("grad:") for name in gradients]}
            tensors |= {"expected_loss": loss, "expected_doc_scores": scores.grad}
            self.record(f"{kind}_gradients", f"{kind}_gradients", params, tensors | gradients)

    def generation(self):
        for name, settings in DECODING.items():
            self.generate(f"rag_token_generate_{name}", "rag_token_generate", decode, "sequences_scores", settings)
        for name, settings in THOROUGH.items():
            self.generate(f"rag_sequence_generate_{name}", "rag_sequence_generate", thorough, "log_likelihoods", settings)

    def generate(self, identifier, kind, function, score_name, settings):
        """The answers of one question after those of another."""
        settings = {"max_new_tokens": NEW_TOKENS} | settings
        free = {name: value for name, value in settings.items() if name not in RESTRICTIONS}
        count = settings.get("num_return_sequences", 1)
        for _ in range(200):
            questions, scores = self.inputs.questions()
            params, without = settings, None
            if free != settings:
                without = self.decided(function, questions[0], scores[0], free)
                if without is None or len(without[0][0]) < 4:
                    continue
                answer = without[0][0]
                params = {name: value(answer) if callable(value) else value for name, value in settings.items()}
            found = [self.decided(function, *each, params) for each in zip(questions, scores)]
            if any(one is None or len(one[0]) != count for one in found):
                continue
            if without is None or found[0][0] != without[0]:
                break
        else:
            raise SystemExit(f"{identifier}: no inputs that were drawn decide it")
        tensors = as_tensors(questions, scores)
        tensors["expected"] = padded([answer for answers, _ in found for answer in answers], PAD)
        if found[0][1] is not None:
            tensors[score_name] = torch.cat([of_answers for _, of_answers in found])
        self.record(identifier, kind, params, tensors)

    def decided(self, function, prompts, scores, params):
        """What a function decodes; `None` where rounding would decide it."""
        with torch.no_grad():
            found = function(self.model, prompts, scores, params)
            again, _ = function(self.shaken, prompts, scores.double(), params)
        return found if found[0] == again else None

    def save(self, folder):
        self.model.save_pretrained(folder / "generator")
        self.write(folder)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--output", type=Path, required=True, help="where folders are made")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--family", choices=FAMILIES, help="one alone; all without it")
    arguments = arguments.parse_args()

    torch.set_num_threads(1)
    for family in [arguments.family] if arguments.family else FAMILIES:
        recorder = Recorder(*make_model(family, arguments.seed))
        recorder.forward()
        recorder.likelihoods()
        recorder.gradients()
        recorder.generation()
        seed = f"-{arguments.seed}" if arguments.seed else ""
        folder = arguments.output / f"causal-{family}{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        recorder.save(folder)
        print(f"{folder}: {len(recorder.cases)} cases")


if __name__ == "__main__":
    main()
