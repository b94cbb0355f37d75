#!/usr/bin/env bash
# Mini LibriSpeech (OpenSLR 31): five hours of read English, train-clean-5, downloaded (459 MB with
# dev-clean-2) or --corpus DIR. Where DIR holds dev-clean-part, the sets are train-clean-5 and
# train-clean-more, dev-clean-part and test-clean-part: 8.9 hours and a test set. Results: RESULTS.md.
#
# Usage: ./run.sh [--option value ...]
#   ./run.sh --corpus /path/to/LibriSpeech     all stages on a local copy
#   ./run.sh --train_sets train-clean-5 --dev_sets dev-clean-2 --test_sets test-clean
#   ./run.sh --list                            name the stages
#   ./run.sh --stage decode --model models/NAME.esp
set -euo pipefail

recipe=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# shellcheck source-path=SCRIPTDIR source=local/choose_sets.sh
source "$recipe/local/choose_sets.sh"
exec "$recipe/../../../utils/asr.sh" "$recipe" \
    --train_sets "$train_sets" --dev_sets "$dev_sets" --test_sets "$test_sets" \
    --sets_by_name \
    --token_type char --nproc 2 \
    --asr_config conf/train_asr.yaml \
    --quantize_config conf/quantize_bf16.yaml \
    --inference_config conf/decode_greedy.yaml \
    -- "$@"
