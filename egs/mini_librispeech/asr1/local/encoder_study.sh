#!/usr/bin/env bash
# The four encoders of 4.9 M parameters, each trained alike on a GPU. Rows, for each encoder:
#   ENCODER          from random weights
#   ENCODER_hubert   pre-trained first, then trained as long
# All four are pre-trained on the units of iteration 2 of conf/pretrain.yaml, which are made first where
# WORK has none: so they learn the same targets.
# A row whose results/<row>.json is there is skipped, so this can be stopped and started again, and
# the rows of several machines are shared out by naming them: --rows "conformer conformer_hubert".
#
# Usage: local/encoder_study.sh --corpus DIR --work DIR [--rows "transformer transformer_hubert …"]
# Run from the recipe folder. WORK gets data, dumps and experiments.
set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

corpus="" work="" rows=""
for encoder in transformer conformer squeezeformer sparseformer; do
    rows+=" $encoder ${encoder}_hubert"
done
while (($# > 0)); do
    case $1 in
        --corpus | --work | --rows)
            printf -v "${1#--}" '%s' "$2"
            shift 2
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

recipe() { # recipe OPTION...: run.sh on the folders of this study
    ./run.sh --corpus "$corpus" --datadir "$work/data" --dumpdir "$work/dump" --expdir "$work/exp" \
        --train_sets "train-clean-5 train-clean-more" "$@"
}

program() { # program NAME ARGUMENT...: a program of the toolkit
    PYTHONPATH=../../.. "${PYTHON:-../../../.venv/bin/python}" -m "espnet_lite.bin.$1" "${@:2}"
}

pretrain() { # pretrain ENCODER: HuBERT on the units of pretrain_it2
    local exp=$work/exp/pretrain_$1_gpu units=$work/exp/units_pretrain_it2
    [[ -e $units ]] || recipe --stage data --stop_stage units_2
    program train_hubert --config "conf/pretrain_$1_gpu.yaml" \
        --train_dirs "$work/dump/train-clean-5" "$work/dump/train-clean-more-rest" \
        --dev_dirs "$work/dump/pretrain-dev" --units "$units" --cmvn "$work/dump/cmvn_pretrain.safetensors" \
        --expdir "$exp"
    program write_pretraining --name "pretrain_$1_gpu" --expdir "$exp" --units "$units" --results_dir .
}

train() { # train ENCODER KIND: train, pack, decode and score one row; KIND is scratch or hubert
    local options=(--pretrained none)
    if [[ $2 == hubert ]]; then
        pretrain "$1"
        options=(--pretrained "$work/exp/pretrain_$1_gpu"
            --set "train.freeze_parts=[front_end, encoder]" --set train.freeze_updates=300)
    fi
    recipe --asr_config "conf/train_asr_$1_4m_gpu.yaml" "${options[@]}"
}

for row in $rows; do
    encoder=${row%_hubert}
    kind=scratch name=asr_${encoder}_4m_gpu_char
    if [[ $row == *_hubert ]]; then
        kind=hubert
        name+=_from_${encoder}_gpu
    fi
    result=results/${name}_bf16_greedy.json
    if [[ -e $result ]]; then
        echo "$row: $result is there"
    else
        train "$encoder" "$kind"
        [[ -e $result ]] || {
            echo "error: $row ended without $result" >&2
            exit 1
        }
    fi
done
