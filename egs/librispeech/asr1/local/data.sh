#!/usr/bin/env bash
# Prepare sets of LibriSpeech in data/<set>, from a copy on this machine or downloaded.
# Usage: local/data.sh [--corpus DIR] [--download_dir downloads] [--data_dir data]
#            [--mirror https://www.openslr.org/resources] [--expect_official yes|no] --sets SET...
# DIR holds one folder for each set, in LibriSpeech's layout; a set is called as its folder.
# Run from the recipe folder, with PYTHON=... for an interpreter that is not `python`.
set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

root=$(cd ../../.. && pwd)
export PYTHONPATH="${root}${PYTHONPATH:+:${PYTHONPATH}}"

"${PYTHON:-python}" local/prepare.py "$@"
