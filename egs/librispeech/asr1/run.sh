#!/usr/bin/env bash
# LibriSpeech (OpenSLR 12): read English of LibriVox' audio books, 100 to 960 hours of training speech,
# dev and test in clean and other; downloaded (about 7.6 GB for 100 hours), or --corpus DIR.
#
# Usage: ./run.sh [--option value ...]
#   ./run.sh --corpus /path/to/LibriSpeech     all stages, 100 hours
#   ./run.sh --train_sets "train-clean-100 train-clean-360 train-other-500" --exp_tag 960h
#   ./run.sh --pretrain_config conf/pretrain_mel.yaml --exp_tag NAME     HuBERT first; README.md has more
#   ./run.sh --list                            name the stages
set -euo pipefail

recipe=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
exec "$recipe/../../../utils/asr.sh" "$recipe" \
    --train_sets train-clean-100 --dev_sets "dev-clean dev-other" \
    --test_sets "test-clean test-other" \
    --sets_by_name \
    --token_type bpe --vocab_size 500 \
    --asr_config conf/train_asr.yaml \
    --quantize_config conf/quantize_bf16.yaml \
    --inference_config conf/decode_greedy.yaml \
    -- "$@"
