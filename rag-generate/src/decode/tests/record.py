"""Records searches of transformers 4.57.6 as JSON, for recorded.rs.

    python record.py 14 7 > recorded.json        # number of cases, seed

The model is `Markov` of markov.rs: its scores are a hash of everything before.
"""

import json
import random
import sys
import warnings

import numpy as np
import torch
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel, logging
from transformers.modeling_outputs import CausalLMOutput

warnings.filterwarnings("ignore")
logging.set_verbosity_error()


def mix(bits):
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


class Markov(PreTrainedModel, GenerationMixin):
    config_class = PretrainedConfig

    def __init__(self, seed, vocabulary, end_bias):
        super().__init__(PretrainedConfig(vocab_size=vocabulary))
        self.seed, self.vocabulary, self.end_bias = seed, vocabulary, end_bias
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def prepare_inputs_for_generation(self, input_ids, search=None, **_):
        return {"input_ids": input_ids, "search": search}

    def _supports_default_dynamic_cache(self):
        return False

    def forward(self, input_ids, search, return_dict=True):
        with np.errstate(over="ignore"):
            state = mix(np.uint64(self.seed) * np.uint64(1_000_003) + search.numpy().astype(np.uint64))
            for column in input_ids.numpy().astype(np.uint64).T:
                state = mix(state + column + np.uint64(1))
            tokens = np.arange(self.vocabulary, dtype=np.uint64)
            bits = mix(state[:, None] + np.uint64(1000) + tokens[None]) >> np.uint64(40)
        scores = bits.astype(np.float32) / np.float32(1 << 24) * np.float32(8) - np.float32(4)
        scores[:, -1] += np.float32(self.end_bias)
        return CausalLMOutput(logits=torch.from_numpy(scores)[:, None])


def draw_case(rng):
    beams = rng.choice([1, 2, 3, 4, 5])
    vocabulary = rng.choice([16, 24, 40])
    end = vocabulary - 1
    longest = rng.randint(3, 12)
    config = {
        "decoder_start_token_id": rng.choice([0, end]),
        "eos_token_id": rng.choice([end, end, end, [end, 5]]),
        "max_length": longest,
        "num_beams": beams,
        "num_return_sequences": rng.randint(1, beams),
        "length_penalty": rng.choice([0.0, 0.5, 1.0, 1.0, 2.0, -1.0]),
        "early_stopping": rng.choice([True, False, "never"]),
        "min_length": rng.choice([0, 0, rng.randint(0, longest)]),
        "no_repeat_ngram_size": rng.choice([0, 0, 1, 2, 3]),
        "repetition_penalty": rng.choice([1.0, 1.0, 1.3, 0.8]),
    }
    if rng.random() < 0.3:
        word = lambda: [rng.randrange(vocabulary) for _ in range(rng.choice([1, 1, 2, 3]))]
        config["bad_words_ids"] = [[1]] + [word() for _ in range(rng.randint(0, 3))]
    if rng.random() < 0.25:
        config["forced_bos_token_id"] = rng.randrange(1, vocabulary - 1)
    if rng.random() < 0.3:
        config["forced_eos_token_id"] = end
    if beams == 1:
        del config["length_penalty"], config["early_stopping"]
    allowed = None
    if rng.random() < 0.2:
        allowed = [sorted({end, 5, *rng.sample(range(vocabulary), 13)}) for _ in range(vocabulary)]
    return {
        "seed": rng.randrange(1 << 30),
        "batch": rng.choice([1, 2, 3]),
        "vocabulary": vocabulary,
        "end_bias": rng.choice([-2.0, 0.0, 1.0, 2.0, 3.0]),
        "config": config,
        "allowed": allowed,
    }


def run(case):
    config, vocabulary = case["config"], case["vocabulary"]
    model = Markov(case["seed"], vocabulary, case["end_bias"])
    ends = config["eos_token_id"]
    ends = [ends] if isinstance(ends, int) else ends
    allowed = case["allowed"]
    settings = {name: value for name, value in config.items() if name not in ("decoder_start_token_id", "max_length")}
    with torch.no_grad():
        found = model.generate(
            torch.full((case["batch"], 1), config["decoder_start_token_id"]),
            generation_config=GenerationConfig(pad_token_id=0, **settings),
            max_length=config["max_length"],
            search=torch.arange(case["batch"]),
            prefix_allowed_tokens_fn=(lambda _, prefix: allowed[prefix[-1]]) if allowed else None,
            use_cache=False,
            return_dict_in_generate=True,
            output_scores=True,
            output_logits=True,
        )
    sequences = []
    for row, tokens in enumerate(found.sequences.tolist()):
        stops = [place + 1 for place, token in enumerate(tokens) if place > 0 and token in ends]
        tokens = tokens[: stops[0]] if stops else tokens
        if config["num_beams"] > 1:
            score = found.sequences_scores[row].item()
        else:
            chosen = enumerate(tokens[1:])
            score = sum(found.logits[step][row].log_softmax(-1)[token].item() for step, token in chosen)
        sequences.append([tokens, score])
    each = config["num_return_sequences"]
    searches = [sequences[start : start + each] for start in range(0, len(sequences), each)]
    # Places that no answer was found for hold a filler of score -1e9 or so; ours are left out.
    return [[answer for answer in answers if answer[1] > -1e8] for answers in searches]


def main():
    torch.set_num_threads(1)
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    rng = random.Random(seed)
    cases = [draw_case(rng) for _ in range(count)]
    recorded = [json.dumps({**case, "expected": run(case)}) for case in cases]
    print("[\n" + ",\n".join(recorded) + "\n]")


main()
