#!/usr/bin/env bash
# Own: a recognizer of your own speech. --corpus names what you have: a folder of audio and
# transcripts, a TSV or CSV table (Common Voice), a Hugging Face AudioFolder, a NeMo manifest, or
# lhotse manifests. Sets that it lacks are taken from its train speakers. docs/import.md tells more.
#
# Usage: ./run.sh --corpus FILE_OR_FOLDER [--option value ...]
#   ./run.sh --corpus clips.csv --local_data_opts "--text_case lower --strip_punctuation"
#   ./run.sh --corpus clips.csv --local_data_opts "--split_by utterance"    one speaker alone
#   ./run.sh                                   data/{train,dev,test} are there: import_data made them
#   ./run.sh --list                            name the stages
set -euo pipefail

recipe=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
exec "$recipe/../../../utils/asr.sh" "$recipe" \
    --train_sets train --dev_sets dev --test_sets test \
    --sets_by_name \
    --token_type char \
    --asr_config conf/train_asr.yaml \
    --quantize_config conf/quantize_bf16.yaml \
    --inference_config conf/decode_greedy.yaml \
    -- "$@"
