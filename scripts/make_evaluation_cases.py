#!/usr/bin/env python3
"""Numbers of the reference implementations for answers and their accepted ones, which
`tests/evaluation.rs` compares with this library's.

    pip install transformers==4.57.6 sacrebleu==2.6.0 rouge-score==0.1.2 regex
    python scripts/make_evaluation_cases.py --output tests/evaluation/cases.json

A case is an answer with accepted ones in a language. English has exact match and F1 by SQuAD's script
(the copy in transformers); both languages have BLEU by sacrebleu and ROUGE by rouge-score, which knows
no Chinese and is given the tokens that this library defines. Besides the sentences below there are
random strings of awkward pieces: `--random` says how many in each language, `--seed` which. With

    RAG_EVALUATION_CASES=more.json cargo test --test evaluation

another file is checked besides the recorded one.
"""

import argparse
import json
import random
from importlib.metadata import version
from pathlib import Path

import regex
import sacrebleu
from rouge_score import rouge_scorer
from rouge_score.tokenizers import Tokenizer
from transformers.data.metrics.squad_metrics import compute_exact, compute_f1

ENGLISH = [
    ("The Ural Mountains", ["Ural Mountains"]),
    ("in the Ural mountains.", ["Ural Mountains", "the Urals"]),
    ("", ["nothing"]),
    ("nothing", [""]),
    ("", [""]),
    ("The", ["a"]),
    ("...", ["!?"]),
    ("...", ["dots"]),
    ("“”", ["„“"]),
    ("yes", ["yes", "no"]),
    ("no no no no", ["no"]),
    ("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"]),
    ("Water boils at 100 degrees.", ["Water boils at 100 degrees."]),
    ("Water boils at 100°C", ["Water boils at 100 °C"]),
    ("1,234,567.89 dollars", ["1234567.89 dollars", "1,234,567.89"]),
    ("3.14, 2.71 and .5", ["3.14, 2.71, and 0.5"]),
    ("It costs $5.00 (five dollars), i.e. 20% less.", ["It costs $5 - i.e. 20 % less."]),
    ("between 1914-1918", ["between 1914 - 1918", "1914–1918"]),
    ("well-known 5-year-old", ["well known five-year-old"]),
    ("Marie Curie discovered radium.", ["Radium was discovered by Marie Curie."]),
    ("Radium was discovered by Marie and Pierre Curie in Paris in 1898.", ["Marie and Pierre Curie discovered radium in 1898, in Paris.", "In 1898 in Paris."]),
    ("Zürich", ["Zurich", "Zu\u0308rich"]),
    ("Café de l’Opéra", ["the cafe\u0301 de l'Opera", "CAFÉ DE L’OPÉRA"]),
    ("a\u0301 the\u0301 an", ["\u0301"]),
    ("ΟΔΥΣΣΕΥΣ", ["οδυσσευς", "οδυσσευσ"]),
    ("İstanbul", ["istanbul", "i\u0307stanbul"]),
    ("Straße", ["STRASSE", "straße"]),
    ("the—a – an", ["— –"]),
    ("A_B the_c", ["ab thec"]),
    ("theatre another anthem", ["atre other them"]),
    ("don't can't o'clock", ["dont cant oclock"]),
    ("non\u00a0breaking\u3000spaces\u2009here", ["non breaking spaces here"]),
    ("one\x1ctwo\x1fthree\x85four", ["one two three four"]),
    ("line one\nline two-\nbroken\n", ["line one line twobroken"]),
    ("R&amp;D &lt;b&gt; &quot;x&quot; <skipped>", ['R&D <b> "x"']),
    ("\u0664\u0665 क्षत्रिय को", ["45 क्षत्रिय", "\u0664\u0665"]),
    ("x² + y² = 1½", ["x2 + y2 = 1 1/2"]),
    ("🙂 fine 🙂🙂", ["fine 🙂"]),
    ("The Yangtze (长江) is 6,300 km long.", ["The Yangtze, 长江, is 6,300 kilometres long."]),
    ("A", ["The a an A"]),
    ("U.S. Army", ["US Army", "the U. S. Army"]),
    ("e.g., i.e., etc...", ["eg ie etc"]),
    ("two words", ["two words"]),
    ("one two three", ["one two three four five six seven eight"]),
    ("one two three four five six seven eight", ["one two three", "one two three four five six seven"]),
    ("a b c d e f", ["f e d c b a", "a c e b d f"]),
    ("the river ran past the old mill and under the stone bridge", ["under the stone bridge the river ran past an old mill"]),
]

CHINESE = [
    ("长江", ["长江"]),
    ("长江。", ["长江，"]),
    ("", ["长江"]),
    ("长江", [""]),
    ("", [""]),
    ("，。！？", ["……"]),
    ("《静夜思》是李白写的。", ["李白写了《静夜思》。"]),
    ("长江全长约6300公里。", ["长江，长约6,300公里", "六千三百公里"]),
    ("长江全长约６３００公里", ["长江全长约6300公里"]),
    ("二〇〇八年八月八日，北京奥运会开幕。", ["北京奥运会于二〇〇八年八月八日开幕。"]),
    ("iPhone和MacBook都是Apple公司的产品。", ["Apple的产品有iPhone、iPad和MacBook。"]),
    ("圆周率约等于3.14，自然常数约等于2.718。", ["圆周率约为3.1416。"]),
    ("好好好好好", ["好", "好好"]),
    ("天天向上", ["好好学习，天天向上"]),
    ("水在100℃沸腾", ["水在 100 ℃ 沸腾。"]),
    ("约翰·史密斯", ["约翰史密斯", "约翰•史密斯"]),
    ("“维生素A”——一种脂溶性维生素", ["维生素a是一种脂溶性维生素"]),
    ("他说：“我住在𠮷野家附近。”", ["他说他住在𠮷野家附近"]),
    ("价格是￥5.00（五元），便宜了20％。", ["价格为五元，便宜20%。"]),
    ("東京は日本の首都です。", ["日本の首都は東京である。"]),
    ("人工智能（AI）是计算机科学的一个分支。", ["人工智能是计算机科学的分支", "AI是计算机科学的一个分支。"]),
    ("第一行\n第二行", ["第一行 第二行"]),
    ("\u3000全角空格\u3000", ["全角 空格"]),
    ("GB/T 1.1-2020标准", ["国家标准GB/T 1.1－2020"]),
    ("⼀⼆三①②③", ["一二三123"]),
    ("☀今天天气晴朗✓", ["今天天气很晴朗"]),
    ("English only, no Han.", ["English only"]),
    ("豈更車", ["豈更車"]),
]

PIECES = (
    ["a", "an", "the", "A", "The", "cat", "x", "Ab", "is", "on", "1", "23", "4,5", "6.7", "0"]
    + list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
    + [" "] * 24
    + ["\n", "-\n", "\t", "\x1d", "\x85", "\u00a0", "\u3000", "\u2028", "\u200b"]
    + ["é", "e\u0301", "a\u0301", "ß", "Σ", "İ", "Ж", "ｅ", "Ａ", "３", "－", "，", "。", "、", "·"]
    + ["—", "–", "…", "“", "’", "½", "²", "\u0663", "को", "は", "カ", "한", "🙂", "℃", "€", "￥"]
    + ["&amp;", "&lt;", "&quot;", "<skipped>", "..", ",.", ".1", "1.", "1-", "-1"]
    + ["长", "江", "〇", "々", "龦", "龼", "\uf900", "\ufa2e", "𠮷", "⼀", "㈱", "①", "☀", "ㄅ", "︰", "︙"]
    + ["\u2000", "\u2001", "\u2a6d", "\u2a6e", "\u33ff", "\u4db5", "\u4dc0", "ｱ", "＋"]
)


class ChineseTokens(Tokenizer):
    """What `normalize` of this library makes of Chinese: Han characters, and runs of what is left."""

    PUNCTUATION = regex.compile(r"[!-/:-@\[-`{-~]")
    TOKEN = regex.compile(r"\p{Han}|[^\p{Han}\p{Z}\p{C}\p{P}！-／：-＠［-｀｛-～]+")
    HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}

    def tokenize(self, text):
        tokens = self.TOKEN.findall(self.PUNCTUATION.sub("", text.lower()))
        return [token.translate(self.HALF_WIDTH) for token in tokens]


SACREBLEU = {"english": "13a", "chinese": "zh"}
KINDS = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
SCORERS = {
    "english": rouge_scorer.RougeScorer(list(KINDS.values()), use_stemmer=False),
    "chinese": rouge_scorer.RougeScorer(list(KINDS.values()), tokenizer=ChineseTokens()),
}


def bleu(score):
    return {
        "score": score.score,
        "precisions": list(score.precisions),
        "brevity_penalty": score.bp,
        "length": score.sys_len,
        "reference_length": score.ref_len,
    }


def rouge(answer, accepted, language):
    scores = SCORERS[language].score_multi(accepted, answer)
    overlap = lambda score: {
        "precision": float(score.precision),
        "recall": float(score.recall),
        "f1": float(score.fmeasure),
    }
    return {ours: overlap(scores[theirs]) for ours, theirs in KINDS.items()}


def case(answer, accepted, language):
    found = {
        "language": language,
        "answer": answer,
        "accepted": accepted,
        "bleu": bleu(sacrebleu.sentence_bleu(answer, accepted, tokenize=SACREBLEU[language])),
        "rouge": rouge(answer, accepted, language),
    }
    if language == "english":
        found["squad"] = {
            "exact_match": max(compute_exact(one, answer) for one in accepted) == 1,
            "f1": float(max(compute_f1(one, answer) for one in accepted)),
        }
    return found


def corpus(pairs, language):
    most = max(len(accepted) for _, accepted in pairs)
    streams = [[dict(enumerate(accepted)).get(i) for _, accepted in pairs] for i in range(most)]
    score = sacrebleu.corpus_bleu([answer for answer, _ in pairs], streams, tokenize=SACREBLEU[language])
    pairs = [{"answer": answer, "accepted": accepted} for answer, accepted in pairs]
    return {"language": language, "pairs": pairs, "bleu": bleu(score)}


def awkward(rng):
    """An answer and accepted ones: some are the answer with a piece changed, some have nothing of it."""
    pieces = [rng.choice(PIECES) for _ in range(rng.randrange(24))]
    accepted = []
    for _ in range(rng.randint(1, 3)):
        other = list(pieces)
        for _ in range(rng.randrange(5)):
            place = rng.randint(0, len(other))
            other[place : place + rng.randrange(2)] = [rng.choice(PIECES)]
        if rng.random() < 0.2:
            rng.shuffle(other)
        accepted.append("".join(other))
    return "".join(pieces), accepted


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--random", type=int, default=40, help="random cases in each language")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    rng = random.Random(arguments.seed)
    cases, corpora = [], []
    for language, written in (("english", ENGLISH), ("chinese", CHINESE)):
        drawn = [awkward(rng) for _ in range(arguments.random)]
        cases += [case(answer, accepted, language) for answer, accepted in written + drawn]
        corpora += [
            corpus(pairs, language)
            for pairs in (written, written[:2], written[8:11], [written[-1], written[0]], drawn)
            if pairs
        ]
    names = ("transformers", "sacrebleu", "rouge-score")
    made = {"references": {name: version(name) for name in names}, "cases": cases, "corpora": corpora}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"{len(cases)} cases, {len(corpora)} corpora")


if __name__ == "__main__":
    main()
