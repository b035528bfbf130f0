#!/usr/bin/env bash
# Checkpoints of burn-rag opened by transformers, and those of transformers by burn-rag.
# $PYTHON (python3) needs torch, transformers and safetensors; without them this is skipped.
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
    cargo test --test interop_save save_for_transformers -- --exact --nocapture
"$python" tests/interop/interop.py "$folder/ours" "$folder/theirs"
RAG_INTEROP_FROM="$folder/theirs" \
    cargo test --test interop_save load_from_transformers -- --exact --nocapture
