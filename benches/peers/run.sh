#!/usr/bin/env bash
# Measures burn-rag beside its peers on this machine, and writes what it finds into docs/results.md.
#
#     benches/peers/run.sh [folder of all-MiniLM-L6-v2] [folder with passages.jsonl and qa.jsonl]
#
# Installs the peers into target/peers. Takes an hour on two cores; nothing else should run. The tables of
# docs/results.md are written over.
set -euo pipefail
cd "$(dirname "$0")/../.."
encoder="${1:-}"
passages="${2:-}"

venv=target/peers/venv
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet torch transformers==4.57.6 sentence-transformers faiss-cpu bm25s PyStemmer
fi
python="$PWD/$venv/bin/python"
found=target/peers/found.md
checkpoint=target/peers/checkpoint
cargo bench --no-run

{
    echo "$(date +%F), $(nproc) cores, $(lscpu | sed -n 's/^Model name: *//p'), by \`benches/peers/run.sh\`."
    for precisions in "f32 f32" "bf16 bf16" "bf16 int8"; do
        read -r theirs ours <<<"$precisions"
        printf '\n### Answers: transformers %s, burn-rag %s\n\n' "$theirs" "$ours"
        "$python" benches/peers/ask.py --folder "$checkpoint" --precision "$theirs" --own-precision "$ours" \
            --rounds 2 --repeats 2
    done
    for precisions in "f32 f32" "bf16 int8"; do
        read -r theirs ours <<<"$precisions"
        printf '\n### Eight questions: transformers %s, burn-rag %s\n\n' "$theirs" "$ours"
        "$python" benches/peers/ask.py --folder "$checkpoint" --precision "$theirs" --own-precision "$ours" \
            --workload ask-token --batch 8 --rounds 1 --repeats 1
    done
    if [ -n "$encoder" ] && [ -n "$passages" ]; then
        for precisions in "f32 f32" "bf16 bf16" "bf16 int8"; do
            read -r theirs ours <<<"$precisions"
            printf '\n### Embedding: sentence-transformers %s, burn-rag %s\n\n```text\n' "$theirs" "$ours"
            "$python" benches/peers/retrieve.py --encoder "$encoder" --folder "$passages" --work embed \
                --precision "$theirs" --own-precision "$ours" --rounds 2
            echo '```'
        done
    fi
    for settings in "adam_w kept" "adam_w_bf16 recomputed"; do
        read -r optimizer activations <<<"$settings"
        printf '\n### A step of training: %s, activations %s\n\n```text\n' "$optimizer" "$activations"
        "$python" benches/peers/train.py --rounds 2 --steps 2 --optimizer "$optimizer" --activations "$activations"
        echo '```'
    done
} | tee "$found"

# What stands between the marks is replaced.
"$python" - "$found" docs/results.md <<'EOF'
import pathlib
import sys

found, results = map(pathlib.Path, sys.argv[1:])
before, rest = results.read_text().split("<!-- measured -->\n", 1)
after = rest.split("<!-- end of measured -->\n", 1)[1]
marked = f"<!-- measured -->\n{found.read_text()}<!-- end of measured -->\n"
results.write_text(before + marked + after)
EOF
