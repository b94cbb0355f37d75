#!/usr/bin/env bash
# Error analyses of the quantization study: where quantized recognizers of each encoder err, and whether the
# errors of attention and convolution make each other worse (docs/quantization_errors.md).
# What is there of local/quantization_study.sh's experiments is analysed, on dev; what is not is named and
# left out. Policies that are put in after training (*_ptq) are packed here. An analysis that is
# there is not made again.
#
# Usage: local/quantization_errors.sh --work DIR [--encoders "transformer conformer …"]
#            [--rows "w8a8 w1a8 …"] [--results DIR] [--threads N]
# Run from the recipe folder. WORK has dump/ and exp/; RESULTS (default: .) gets
# results/quantization_errors/<encoder>_<row>.json and .png.
set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

work="" results=. threads=1 encoders="transformer conformer squeezeformer sparseformer"
rows="int8_dynamic_ptq int4_ptq w4a4_ptq w8a8 w2a8 w1a8 w1a1"
while (($# > 0)); do
    case $1 in
        --work | --encoders | --rows | --results | --threads)
            printf -v "${1#--}" '%s' "$2"
            shift 2
            ;;
        *)
            sed -n '2,${/^#/!q; s/^# \{0,1\}//p}' "$0" >&2
            exit 2
            ;;
    esac
done
[[ -n $work ]] || {
    echo "error: --work is needed" >&2
    exit 2
}
root=$(realpath ../../..)
export PYTHONPATH=$root OMP_NUM_THREADS=$threads
python=python3
[[ ! -x $root/.venv/bin/python ]] || python=$root/.venv/bin/python
run() { # run PROGRAM ARGUMENT...: one of the toolkit's programs
    "$python" -m "espnet_lite.bin.$1" "${@:2}"
}

for encoder in $encoders; do
    name=asr_${encoder}_4m_bpe30
    reference=$work/exp/$name
    [[ -e $reference/model.safetensors ]] || {
        echo "$encoder: left out, there is no $reference/model.safetensors"
        continue
    }
    for row in $rows; do
        output=$results/results/quantization_errors/${encoder}_$row.json
        quantized=$reference/model_$row.esp
        rule=teacher
        if [[ $row == *_ptq ]]; then
            rule=own
            [[ -e $quantized ]] || run pack_model --expdir "$reference" --config "conf/quantize_$row.yaml" \
                --train_dirs "$work/dump/train" --dev_dirs "$work/dump/dev" --output "$quantized"
        fi
        if [[ -e $output ]]; then
            echo "$encoder $row: $output is there"
        elif [[ ! -e $quantized ]]; then
            echo "$encoder $row: left out, there is no $quantized"
        else
            run analyze_quantization --reference "$reference" --quantized "$quantized" --rule "$rule" \
                --data_dir "$work/dump/dev" --threads "$threads" --output "$output"
        fi
    done
done
