#!/usr/bin/env bash
# Compiles and runs the first Rust program of README.md, to the letter, as a crate of its own, and the program with an
# embedder of the user's own. Arguments go to cargo.
set -euo pipefail
cd "$(dirname "$0")/../.."

program=tests/outside/src/main.rs
fence="$(grep -m 1 '^```rust' README.md || true)"
if [ -z "$fence" ]; then
    echo "README.md has no \`\`\`rust block: there is no program to run" >&2
    exit 1
fi
mkdir -p "$(dirname "$program")"
awk '/^```rust/ { inside = 1; next } inside && /^```/ { exit } inside' README.md > "$program"
if ! grep -q 'fn main' "$program"; then
    echo "the first \`\`\`rust block of README.md is no program: it has no main" >&2
    exit 1
fi
echo "README.md's program has $(grep -c . "$program") lines"

# The same versions, profile and target folder as the workspace, whose compiled dependencies are used again.
cp Cargo.lock tests/outside/Cargo.lock
profile=tests/outside/profile.toml
awk '/^\[/ { inside = /^\[profile\.dev/ } inside' Cargo.toml > "$profile"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
outside=(--manifest-path tests/outside/Cargo.toml --config "$profile" "$@")
case "$fence" in
    *no_run*) cargo build "${outside[@]}" ;;
    *) cargo run "${outside[@]}" ;;
esac
cargo run "${outside[@]}" --bin embedder
