#!/usr/bin/env bash
# Prepare sets of mini LibriSpeech, as the recipe librispeech does: see data.sh there for the options.
# local/subsets names further sets that are parts of them.
# Usage: local/data.sh [--corpus DIR] [--data_dir data] --sets SET...
# Run from the recipe folder, with PYTHON=... for an interpreter that is not `python`.
set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

root=$(cd ../../.. && pwd)
export PYTHONPATH="${root}${PYTHONPATH:+:${PYTHONPATH}}"

"${PYTHON:-python}" "${root}/egs/librispeech/asr1/local/prepare.py" --subsets local/subsets "$@"
