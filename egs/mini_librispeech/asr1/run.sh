#!/usr/bin/env bash
# Mini LibriSpeech (OpenSLR 31): five hours of read English, train-clean-5, downloaded (459 MB with
# dev-clean-2) or --corpus DIR. HuBERT is pre-trained in two iterations and fine-tuned to letters. Where
# DIR holds dev-clean-part, pre-training has train-clean-more too, dev is dev-clean-part and there is a
# test set, test-clean-part. Results: RESULTS.md.
#
# Usage: ./run.sh [--option value ...]
#   ./run.sh --corpus /path/to/LibriSpeech     all stages on a local copy
#   ./run.sh --train_sets train-1h --asr_config conf/train_asr_1h.yaml --exp_tag NAME
#   ./run.sh --pretrained none                 the same recognizer from scratch
#   ./run.sh --dev_sets dev-clean-2 --test_sets test-clean
#   ./run.sh --list                            name the stages
#   ./run.sh --stage decode --model models/NAME.esp
set -euo pipefail

recipe=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# shellcheck source-path=SCRIPTDIR source=local/choose_sets.sh
source "$recipe/local/choose_sets.sh"
exec "$recipe/../../../utils/asr.sh" "$recipe" \
    --train_sets "$train_sets" --dev_sets "$dev_sets" --test_sets "$test_sets" \
    --pretrain_sets "$pretrain_sets" --pretrain_dev_sets "$pretrain_dev_sets" \
    --sets_by_name \
    --token_type char --nproc 2 \
    --pretrain_config conf/pretrain.yaml --iters 1,2 --clusters 100,200 --unit_layers 0 --unit_mean subtract \
    --asr_config conf/train_asr_5h.yaml \
    --quantize_config conf/quantize_bf16.yaml \
    --inference_config conf/decode_greedy.yaml \
    -- "$@"
