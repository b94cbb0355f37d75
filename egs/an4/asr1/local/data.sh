#!/usr/bin/env bash
# Prepare AN4 in data/{train,dev,test}, from a copy on this machine or downloaded (64 MB).
# Usage: local/data.sh [--corpus DIR] [--download_dir downloads] [--data_dir data] [--expect_official yes|no]
#            [--unlabelled FOLDER]
# DIR holds etc/an4_train.fileids and wav/an4_clstk, with audio in SPHERE, FLAC or WAV. All audio below
# FOLDER becomes data/unlabelled, without texts, to pre-train on.
# Run from the recipe folder, with PYTHON=... for an interpreter that is not `python`.
set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

root=$(cd ../../.. && pwd)
export PYTHONPATH="${root}${PYTHONPATH:+:${PYTHONPATH}}"

"${PYTHON:-python}" local/prepare.py "$@"
