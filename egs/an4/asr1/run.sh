#!/usr/bin/env bash
# AN4 (CMU 1991): spelled words, numbers and control words, 948 training and 130 test utterances of
# 16 kHz speech, about 50 minutes; downloaded (64 MB), or --corpus DIR. The dev set is taken from
# the training speakers. Results: RESULTS.md.
#
# Usage: ./run.sh [--option value ...]
#   ./run.sh --corpus /path/to/an4             all stages on a local copy
#   ./run.sh --list                            name the stages
#   ./run.sh --stage finetune --set train.updates=500 --exp_tag short
#   ./run.sh --stage decode --model models/NAME.esp
#   ./run.sh --pretrain_config conf/pretrain.yaml --asr_config conf/train_asr_finetune.yaml
set -euo pipefail

recipe=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
exec "$recipe/../../../utils/asr.sh" "$recipe" \
    --train_sets train --dev_sets dev --test_sets test \
    --token_type bpe --vocab_size 30 \
    --asr_config conf/train_asr.yaml \
    --quantize_config conf/quantize_bf16.yaml \
    --inference_config conf/decode_greedy.yaml \
    -- "$@"
