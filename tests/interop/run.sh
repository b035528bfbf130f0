#!/usr/bin/env bash
# Checkpoints of burn-rag opened by transformers, and those of transformers by burn-rag; then decoder-only generators.
# Then LoRA adapters and PEFT, likewise.
# $PYTHON (python3) needs torch, transformers and safetensors; without them this is skipped. PEFT is
# downloaded for the time of the test where it has none. Arguments go to cargo.
set -euo pipefail
cd "$(dirname "$0")/../.."

python="${PYTHON:-python3}"
if ! "$python" -c 'import torch, transformers, safetensors' 2>/dev/null; then
    echo "skipped: $python has no torch and transformers (set PYTHON to one that has)"
    exit 0
fi

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
export HF_HUB_OFFLINE=1

RAG_INTEROP_DIR="$folder/ours" \
    cargo test --workspace "$@" --test interop_save save_for_transformers -- --exact --nocapture
"$python" tests/interop/interop.py "$folder/ours" "$folder/theirs"
RAG_INTEROP_FROM="$folder/theirs" \
    cargo test --workspace "$@" --test interop_save load_from_transformers -- --exact --nocapture

export RAG_CAUSAL_FROM="$folder/causal-theirs" RAG_CAUSAL_DIR="$folder/causal-ours"
"$python" tests/interop/causal.py write "$RAG_CAUSAL_FROM"
cargo test --workspace "$@" --test interop_save causal::exchange_with_transformers -- --exact --nocapture
"$python" tests/interop/causal.py check "$RAG_CAUSAL_FROM" "$RAG_CAUSAL_DIR"

if ! "$python" -c 'import peft' 2>/dev/null; then
    if ! "$python" -m pip install --quiet --no-deps --target "$folder/site" \
        peft==0.21.2 accelerate==1.15.0 psutil; then
        echo "skipped: LoRA, since $python has no peft and none could be downloaded"
        exit 0
    fi
    export PYTHONPATH="$folder/site"
fi
export RAG_LORA_DIR="$folder/lora"
cargo test --workspace "$@" --test lora peft::save_for_peft -- --exact --nocapture
"$python" tests/interop/lora_peft.py "$RAG_LORA_DIR"
cargo test --workspace "$@" --test lora peft::load_from_peft -- --exact --nocapture
