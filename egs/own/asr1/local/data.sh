#!/usr/bin/env bash
# Import your data in data/<set>: a folder of audio, a table or a manifest.
# Usage: local/data.sh --corpus FILE_OR_FOLDER [--data_dir data] [--sets SET...] [options of import_data]
# Sets of the corpus are kept. Where a set called train is asked for, those that the corpus lacks are
# taken from it, whole speakers, by --split (train=0.9 dev=0.05 test=0.05). Without --corpus, sets that
# import_data has made are checked and left as they are.
# `python -m espnet_lite.bin.import_data --help` lists its options.
# Run from the recipe folder, with PYTHON=... for an interpreter that is not `python`.
set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

corpus="" data_dir=data
sets=()
arguments=()
while (($# > 0)); do
    case $1 in
        --help | -h)
            sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"
            exit 0
            ;;
        --corpus=*) corpus=${1#*=} ;;
        --data_dir=*) data_dir=${1#*=} ;;
        --corpus)
            corpus=${2:-}
            shift $(($# > 1))
            ;;
        --data_dir)
            data_dir=${2:-}
            shift $(($# > 1))
            ;;
        --sets)
            while (($# > 1)) && [[ $2 != --* ]]; do
                sets+=("$2")
                shift
            done
            ;;
        *) arguments+=("$1") ;;
    esac
    shift
done
((${#sets[@]} > 0)) || sets=(train dev test)

missing=()
find_missing() { # set missing to the sets that are not there
    local name
    missing=()
    for name in "${sets[@]}"; do
        [[ -d ${data_dir}/${name} ]] || missing+=("${name}")
    done
}

root=$(cd ../../.. && pwd)
export PYTHONPATH="${root}${PYTHONPATH:+:${PYTHONPATH}}"
# UTF-8 names of files, whatever the locale.
export PYTHONUTF8=1

find_missing
if [[ -z ${corpus} && ${#missing[@]} -gt 0 ]]; then
    echo "error: no corpus and no ${data_dir}/${missing[0]}, expected --corpus FILE_OR_FOLDER, or" \
        "${sets[*]} in ${data_dir} as import_data makes them" >&2
    exit 2
elif [[ -z ${corpus} ]]; then
    echo "no --corpus: ${sets[*]} in ${data_dir} stay as they are"
    for name in "${sets[@]}"; do
        "${PYTHON:-python}" -m espnet_lite.bin.validate_data "${data_dir}/${name}"
    done
    exit 0
fi

split=()
if [[ " ${sets[*]} " == *" train "* ]]; then
    split=(--split train=0.9 dev=0.05 test=0.05)
fi
"${PYTHON:-python}" -m espnet_lite.bin.import_data "${corpus}" --data_dir "${data_dir}" \
    "${split[@]}" "${arguments[@]}"
find_missing
if ((${#missing[@]} > 0)); then
    echo "error: ${corpus}: no set '${missing[0]}' in it, and none was made; the sets that there are" \
        "stand above: name those by --train_sets, --dev_sets, --test_sets" >&2
    exit 2
fi
