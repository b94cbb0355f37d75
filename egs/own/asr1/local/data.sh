#!/usr/bin/env bash
# Import your data in data/{train,dev,test}: a folder of audio, a table or a manifest.
# Usage: local/data.sh --corpus FILE_OR_FOLDER [--data_dir data] [options of import_data]
# Sets of the corpus are kept. Those that it lacks are taken from its train, whole speakers, by
# --split (train=0.9 dev=0.05 test=0.05). `python -m espnet_lite.bin.import_data --help` lists options.
# Run from the recipe folder, with PYTHON=... for an interpreter that is not `python`.
set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

corpus=""
arguments=()
while (($# > 0)); do
    case $1 in
        --help | -h)
            sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"
            exit 0
            ;;
        --corpus=*) corpus=${1#*=} ;;
        --corpus)
            corpus=${2:-}
            shift $(($# > 1))
            ;;
        *) arguments+=("$1") ;;
    esac
    shift
done
if [[ -z ${corpus} ]]; then
    echo "error: no corpus, expected --corpus FILE_OR_FOLDER; where import_data has made" \
        "data/{train,dev,test} already, start with ./run.sh --stage dump" >&2
    exit 2
fi

root=$(cd ../../.. && pwd)
export PYTHONPATH="${root}${PYTHONPATH:+:${PYTHONPATH}}"
# UTF-8 names of files, whatever the locale.
export PYTHONUTF8=1

"${PYTHON:-python}" -m espnet_lite.bin.import_data "${corpus}" \
    --data_dir data --split train=0.9 dev=0.05 test=0.05 "${arguments[@]}"
