#!/usr/bin/env bash
# What pre-training is worth with one and with five hours of labels. Rows, for each of 1h and 5h:
#   from_it2         two seeds: fine-tuned from the pre-trained encoder
#   scratch          two seeds: from random weights, trained as long
#   scratch_long     one seed: from random weights, for --long_updates: what pre-training and fine-tuning
#                    take together, or where more no longer helps
# A row whose results/<row>.json is there is skipped, so this can be stopped and started again, and
# the rows of one machine are shared out by naming them: local/label_study.sh --rows "1h_from_it2 …".
#
# Usage: local/label_study.sh --encoder models/pretrain_it2.safetensors --corpus DIR --work DIR
#            [--rows "1h_from_it2 1h_scratch …"] [--long_updates N]
# Run from the recipe folder. WORK gets data, dumps and experiments of each set of labels.
set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

encoder=models/pretrain_it2.safetensors corpus="" work="" long_updates=12000
rows="1h_from_it2 1h_scratch 5h_from_it2 5h_scratch 1h_from_it2_seed2 1h_scratch_seed2
5h_from_it2_seed2 5h_scratch_seed2 1h_scratch_long 5h_scratch_long"
while (($# > 0)); do
    case $1 in
        --encoder | --corpus | --work | --rows | --long_updates)
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

train() { # train ROW: train, pack, decode and score one row
    local row=$1 hours=${1%%_*} set_name=train-clean-5 options=()
    [[ $hours != 1h ]] || set_name=train-1h
    case $row in
        *_from_it2*) options=(--pretrained "$encoder") ;;
        *) options=(--pretrained none --set "train.freeze_parts=[]" --set train.freeze_updates=0) ;;
    esac
    case $row in
        *_seed2) options+=(--exp_tag seed2 --set train.seed=2) ;;
        *_long) options+=(--exp_tag long --set "train.updates=$long_updates") ;;
    esac
    ./run.sh --corpus "$corpus" --datadir "$work/data_$hours" --dumpdir "$work/dump_$hours" \
        --expdir "$work/exp" --train_sets "$set_name" --pretrain_sets "$set_name" \
        --asr_config "conf/train_asr_$hours.yaml" --nproc 1 "${options[@]}"
}

result_of() { # result_of ROW: print the file of its results
    local kind=${1#*_} name=asr_${1%%_*}_char
    [[ $kind != from_it2* ]] || name+=_from_$(basename "${encoder%.*}" | sed 's/^pretrain_//')
    case $kind in
        *_seed2) name+=_seed2 ;;
        *_long) name+=_long ;;
    esac
    printf 'results/%s_bf16_greedy.json' "$name"
}

for row in $rows; do
    result=$(result_of "$row")
    if [[ -e $result ]]; then
        echo "$row: $result is there"
    else
        train "$row"
        [[ -e $result ]] || {
            echo "error: $row ended without $result" >&2
            exit 1
        }
    fi
done
