#!/usr/bin/env bash
# Make the mini corpus: speech synthesised by espeak-ng, in data/{train,dev,test}.
# Usage: local/data.sh [--data_dir data] [--train_utterances N] [--dev_utterances N] [--test_utterances N]
# A smaller set is the beginning of the full one. --download_dir is taken and not used; --corpus is
# refused. Run from the recipe folder, with PYTHON=... for an interpreter that is not `python`.
set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

for argument in "$@"; do
    if [[ ${argument} == --help || ${argument} == -h ]]; then
        sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"
        exit 0
    fi
done

root=$(cd ../../.. && pwd)
export PYTHONPATH="${root}${PYTHONPATH:+:${PYTHONPATH}}"

# One process for each set: espeak-ng's state carries over from sentence to sentence, so a set comes
# out the same whatever was made before it.
for set in train dev test; do
    "${PYTHON:-python}" local/synthesize.py --set "${set}" "$@"
done
