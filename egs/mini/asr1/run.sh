#!/usr/bin/env bash
# Mini: the embedded default. Stage 1 synthesises the corpus itself (espeak-ng: several voices,
# rates, pitches, some noise; a closed vocabulary; train, dev and test with disjoint voices and
# sentences), so this recipe needs no download and shows every stage in a few minutes.
#
# Usage: ./run.sh [--option value ...]
#   ./run.sh                                   all stages
#   ./run.sh --list                            name the stages
#   ./run.sh --stage finetune --set train.updates=500 --exp_tag short
#   ./run.sh --stage decode --model models/NAME.esp
set -euo pipefail

recipe=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
exec "$recipe/../../../utils/asr.sh" "$recipe" \
    --train_sets train --dev_sets dev --test_sets test \
    --token_type char \
    --pretrain_config conf/pretrain.yaml --clusters 50 \
    --asr_config conf/train_asr.yaml \
    --quantize_config conf/quantize_bf16.yaml \
    --inference_config conf/decode_greedy.yaml \
    --profile_runs 3 \
    -- "$@"
