#!/usr/bin/env bash
# Encoders × bits: the rows of the quantization study. For each encoder the recognizer is trained first,
# where it is not there; then each row from it. Rows, by the names of conf/quantize_*.yaml:
#   bf16 fp32 w8a8 w4a8 w2a8 w1_58a8 w2a16 w1a16 w1a8 w1a4 w1a1
#   w1a8_cotrained int8_dynamic_ptq int8_ptq int4_ptq
#   w1a8_no_distillation w1a4_no_distillation w1a1_no_distillation
# A row whose results/<row>.json is there is skipped, so this can be stopped and started again, and
# machines share the rows by naming encoders and rows.
#
# Usage: local/quantization_study.sh --corpus DIR --work DIR [--encoders "transformer conformer …"]
#            [--rows "bf16 w8a8 …"] [--results DIR] [-- OPTION...]
# Run from the recipe folder. WORK gets data, dumps and experiments; RESULTS (default: WORK/results_of_study)
# gets results/<row>.json. OPTIONs go to run.sh: -- --nj 16 --quantize_set training.train.threads=4
set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

corpus="" work="" results="" encoders="transformer conformer squeezeformer sparseformer"
rows="bf16 fp32 w8a8 w2a8 w1a8 w1a1 w4a8 w1_58a8 w2a16 w1a16 w1a4
w1a8_cotrained int8_dynamic_ptq int8_ptq int4_ptq
w1a8_no_distillation w1a4_no_distillation w1a1_no_distillation"
while (($# > 0)); do
    case $1 in
        --corpus | --work | --results | --encoders | --rows)
            printf -v "${1#--}" '%s' "$2"
            shift 2
            ;;
        --)
            shift
            break
            ;;
        *)
            sed -n '2,${/^#/!q; s/^# \{0,1\}//p}' "$0" >&2
            exit 2
            ;;
    esac
done
[[ -n $corpus && -n $work ]] || {
    echo "error: --corpus and --work are needed" >&2
    exit 2
}
results=${results:-$work/results_of_study}
mkdir -p "$results"

train() { # train ENCODER ROW OPTION...: train (where it is not there), pack, decode and score one row
    local config=conf/train_asr_${1}_4m.yaml options=()
    options=(--quantize_config "conf/quantize_${2%_no_distillation}.yaml")
    [[ $2 != *_no_distillation ]] || options+=(--quantize_tag no_distillation
        --quantize_set training.distillation=null)
    ./run.sh --corpus "$corpus" --datadir "$work/data" --dumpdir "$work/dump" --expdir "$work/exp" \
        --results_dir "$results" --stop_stage score --asr_config "$config" "${options[@]}" "${@:3}"
}

result_of() { # result_of ENCODER ROW: print the file of its results
    local name=asr_${1}_4m
    printf '%s/results/%s_bpe30_%s_greedy.json' "$results" "$name" "$2"
}

for encoder in $encoders; do
    for row in $rows; do
        result=$(result_of "$encoder" "$row")
        if [[ -e $result ]]; then
            echo "$encoder $row: $result is there"
        else
            train "$encoder" "$row" "$@"
            [[ -e $result ]] || {
                echo "error: $encoder $row ended without $result" >&2
                exit 1
            }
        fi
    done
done
