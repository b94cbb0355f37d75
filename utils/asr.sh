#!/usr/bin/env bash
# The staged recipe of speech recognition: every egs/*/asr*/run.sh calls it.
# Usage: asr.sh RECIPE_FOLDER [--option value ...] -- [the user's arguments]
# `run.sh --help` lists the options, `run.sh --list` the stages. egs/README.md says what they mean.
# shellcheck disable=SC2154 # options are assigned by the function `option`; see utils/recipe.sh

recipe_dir=$(realpath "$1")
shift
# shellcheck source=utils/recipe.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/recipe.sh"

option corpus "" "local copy of the corpus (default: downloaded, where the recipe can)" file
option local_data_opts "" "further arguments of local/data.sh"
option_flag sets_by_name "local/data.sh takes the sets to prepare: --sets SET..."
option train_sets train "data sets to train on"
option dev_sets dev "data sets to validate on and to choose the headline by"
option test_sets test "data sets to decode and score, beside the dev sets"
option datadir data "where data sets lie: DATADIR/SET" folder
option dumpdir dump "where prepared data sets are written" folder
option expdir exp "where experiments are written" folder
option results_dir . "where RESULTS.md and results/ are written" folder
option sample_rate 16000 "audio is resampled to this rate, in Hz" count
option min_seconds 0.1 "shorter utterances of the training sets are dropped" number
option max_seconds 30 "longer utterances of the training sets are dropped" number
option audio_format flac "flac: audio stays where it can, else a file each; ark: archives of many"
option channel "" "channel of stereo audio to take: 0, 1, ... or mix"
option_flag allow_pipes "run the commands that wav.scp holds (not through a shell)"
option token_type bpe "char, bpe, word or phone"
option vocab_size 30 "number of bpe tokens" count
option word_vocab_size 0 "number of word tokens, the most frequent ones; 0 for all" number
option lexicon "" "phone tokens: file of words and their phones" file
option oov_phone "" "phone tokens: the phone of words that the lexicon lacks (none: refused)"
option nlsyms "" "file of non-linguistic symbols, one a line, kept as one token" file
# shellcheck source=utils/pretrain.sh
source "$toolkit/utils/pretrain.sh"
option asr_config conf/train_asr.yaml "model and training" file
option speed_factors "" "speed perturbation of the training audio, e.g. \"0.9 1.0 1.1\""
option noise_dir "" "folder of noise recordings, added to training audio on the fly" file
option nproc 1 "processes that train one model together (torchrun); on GPUs, one for each" count
option_list set "KEY=VALUE: a value of the asr_config, e.g. --set train.updates=1000"
option exp_tag "" "further name of the experiment, for another variant"
option_flag fresh "move an existing experiment aside and train anew"
# shellcheck source=utils/lm.sh
source "$toolkit/utils/lm.sh"
option quantize_config conf/quantize_bf16.yaml "bits of the packed model, and its training in few bits" file
option_list quantize_set "KEY=VALUE: a value of quantize_config, e.g. training.distillation=null"
option quantize_tag "" "further name of the quantized model, for another variant"
option inference_config conf/decode_greedy.yaml "decoding" file
option runtime packed "what computes in stage decode: packed, the kernels for few bits; torch, the reference"
option model "" "decode, score and profile this packed model; nothing is trained" file
option nj "$(nproc)" "processes of stage decode" count
option profile_configs "" "training configurations to profile beside the model, with random weights"
option profile_threads "1 2" "numbers of threads that stage profile times with"
option profile_runs 5 "timed runs of each clip in stage profile; their median counts" count

find_python
parse_options "$@"
cd "$recipe_dir"
nproc=${ngpu:-$nproc}
if [[ -n $corpus ]]; then
    require "$corpus"
    corpus=$(realpath "$corpus")
fi

stem() { # stem conf/decode_greedy.yaml decode → greedy: the config's name without the kind
    local name=${1##*/}
    name=${name%.*}
    printf '%s' "${name#"$2"_}"
}

# Names. The folder of an experiment depends on config, tokens and tag, never on training length.
read -r -a train_list <<<"$train_sets"
# A packed model needs no training set: one that is not prepared is left out.
if [[ -n $model && ! -e $dumpdir/${train_list[0]:-}/wav.scp ]]; then
    train_list=()
fi
read -r -a dev_list <<<"$dev_sets"
read -r -a test_list <<<"$test_sets"
choose_pretraining
train_texts=("${train_list[@]/#/$dumpdir/}")
train_texts=("${train_texts[@]/%//text}")
unique() { # unique ARRAY WORD...: set ARRAY to the words, each once
    local -n words=$1
    local word
    words=()
    for word in "${@:2}"; do
        [[ " ${words[*]} " == *" $word "* ]] || words+=("$word")
    done
}
unique eval_list "${dev_list[@]}" "${test_list[@]}"
unique all_list "${train_list[@]}" "${pretrain_list[@]}" "${pretrain_dev_list[@]}" "${eval_list[@]}"
dev_texts=("${dev_list[@]/#/$dumpdir/}")
dev_texts=("${dev_texts[@]/%//text}")
[[ ${#train_list[@]} -gt 0 || -n $model ]] || die "--train_sets is empty, expected names of sets"
((${#eval_list[@]} > 0)) || die "--dev_sets and --test_sets are empty, expected names of sets"
for word in "${train_list[@]}" "${pretrain_list[@]}"; do
    [[ " ${eval_list[*]} " != *" $word "* ]] ||
        echo "warning: $word is trained on and scored: its error rate says nothing of new speech" >&2
done

token_name=$token_type
token_options=()
case $token_type in
    bpe)
        token_name=bpe$vocab_size
        token_options=(--vocab_size "$vocab_size")
        ;;
    word)
        token_name=word${word_vocab_size#0}
        token_options=(--vocab_size "$word_vocab_size")
        ;;
    phone)
        [[ -n $lexicon || -n $model ]] || die "--token_type phone needs --lexicon FILE"
        # The dev words' pronunciations are kept too: validation needs them. Those of test words
        # come from the lexicon when they are scored.
        token_options=(--lexicon "$lexicon" --dev_text "${dev_texts[@]}")
        [[ -z $oov_phone ]] || token_options+=(--oov_phone "$oov_phone")
        ;;
esac
asr_name=asr_$(stem "$(stem "$asr_config" train)" asr)_$token_name
[[ -z $pretrained ]] || asr_name+=_from_$pretrained_name
asr_name=${asr_name/#asr_asr_/asr_}${exp_tag:+_$exp_tag}
asr_exp=$expdir/$asr_name
tokens=$dumpdir/tokens_$token_name
cmvn=${train_list[0]:+$dumpdir/${train_list[0]}/cmvn.safetensors}
decode_name=decode_$(stem "$inference_config" decode)
skipped=()
if [[ -n $model ]]; then
    model_name=$(stem "$model" "")
    packed=$model
    decode_dir=$expdir/packed_$model_name/$decode_name
    packed_after=()
    skipped=(tokens finetune quantize)
else
    quantize_name=$(stem "$quantize_config" quantize)${quantize_tag:+_$quantize_tag}
    model_name=${asr_name}_$quantize_name
    packed=$asr_exp/model_$quantize_name.esp
    decode_dir=$asr_exp/${decode_name}_$quantize_name
    packed_after=(quantize)
fi
# A policy with `training` is trained from the recognizer, in an experiment of its own; then that is packed.
# One with `rules` alone is put in when packing: scales from training utterances, quality on dev.
quantize_exp=""
quantize_inputs=()
pack_speech=()
if [[ -z $model ]] && grep -qs '^rules:' "$quantize_config"; then
    quantize_inputs=("${train_list[@]/#/$dumpdir/}" "${dev_list[@]/#/$dumpdir/}")
    if grep -qs '^training:' "$quantize_config"; then
        quantize_exp=$expdir/quantized_$model_name
    else
        pack_speech=(--train_dirs "${train_list[@]/#/$dumpdir/}" --dev_dirs "${dev_list[@]/#/$dumpdir/}")
    fi
fi
row=${model_name}_${decode_name#decode_}
choose_lm
if [[ -n $speed_factors ]]; then
    set_list+=("data.speed_factors=[${speed_factors// /, }]")
fi
if [[ -n $noise_dir ]]; then
    set_list+=("data.noise_dir=$(realpath -m "$noise_dir")")
fi

# What the statistics of the features depend on, in the config and in --set.
features=(name num_mels sample_rate cmvn)
feature_keys=("${features[@]/#/model.front_end.}")
feature_overrides() { # feature_overrides ARRAY OVERRIDE...: set ARRAY to those of features
    local -n kept=$1
    local override
    kept=()
    for override in "${@:2}"; do
        [[ " model model.front_end ${feature_keys[*]} " != *" ${override%%=*} "* ]] ||
            kept+=("$override")
    done
}
feature_overrides front_end_list "${set_list[@]}"
feature_overrides pretrain_front_end_list "${pretrain_set_list[@]}"
pretrain_features=()
((${#pretrain_list[@]} == 0)) || pretrain_features=(@option "pretrain_sets=${pretrain_list[*]}"
    "${pretrain_front_end_list[@]/#/pretrain_set }")
each_iteration describe_statistics

limits_of() { # limits_of SET: set the array limits to how long an utterance of it may be
    # An error rate counts every utterance: nothing is left out of a set that is scored.
    limits=(--min_seconds "$min_seconds" --max_seconds "$max_seconds")
    [[ " ${eval_list[*]} " != *" $1 "* ]] || limits=(--keep_all)
}
limits_of_all=()
for word in "${all_list[@]}"; do
    limits_of "$word"
    limits_of_all+=("limits of $word=${limits[*]}")
done

# What each stage is made from: a stage runs again when one of these changed.
describe 1 data "corpus → $datadir/<set>" \
    @stamp "$datadir/.stamps/data.json" @given @separate \
    @given_option "corpus=$corpus" "local_data_opts=$local_data_opts" \
    @output "${all_list[@]/#/$datadir/}"
describe 2 dump "validate, cut, resample, drop too short or long with counts; CMVN → $dumpdir/<set>" \
    @stamp "$dumpdir/.stamps/dump.json" @after data @separate \
    @option "${limits_of_all[@]}" "sample_rate=$sample_rate" "audio_format=$audio_format" \
    "channel=$channel" "allow_pipes=$allow_pipes" ${cmvn:+"train_sets=${train_list[*]}"} \
    "${front_end_list[@]/#/set }" @config "${feature_keys[@]/#/$asr_config#}" \
    @input "${all_list[@]/#/$datadir/}" @output "${all_list[@]/#/$dumpdir/}" ${cmvn:+"$cmvn"} \
    "${pretrain_features[@]}"
describe 3 tokens "token table and tokenizer of the training text → $tokens" \
    @stamp "$dumpdir/.stamps/tokens_$token_name.json" @after dump \
    @option "token_type=$token_type" "options=${token_options[*]}" \
    @input "${train_texts[@]}" ${lexicon:+"$lexicon" "${dev_texts[@]}"} ${nlsyms:+"$nlsyms"} \
    @output "$tokens"
each_iteration describe_pretraining
describe 6 finetune "train the recognizer → $asr_exp" \
    @stamp "$expdir/.stamps/$asr_name.finetune.json" @after dump tokens @always "$fresh" \
    @config "$asr_config" @option "${set_list[@]/#/set }" \
    @input "${train_list[@]/#/$dumpdir/}" "${dev_list[@]/#/$dumpdir/}" "$tokens" \
    "${pretrained_inputs[@]}" @after ${pretraining:+"$pretraining"} \
    @output "$asr_exp/model.safetensors" "$asr_exp/model.json"
describe 7 quantize "${quantize_exp:+train in few bits → $quantize_exp; }pack weights, tokenizer and features into one file → $packed" \
    @stamp "$expdir/.stamps/$model_name.quantize.json" @after finetune @always "${quantize_exp:+$fresh}" \
    @config "$quantize_config" @option "${quantize_set_list[@]/#/set }" \
    @input "$asr_exp/model.safetensors" "$asr_exp/model.json" "${quantize_inputs[@]}" @output "$packed"
describe_lm
describe 9 decode "decode the dev and test sets → $decode_dir/<set>" \
    @stamp "$expdir/.stamps/$row.decode.json" @after dump "${packed_after[@]}" "${lm_after[@]}" \
    @config "$inference_config" @option "sets=${eval_list[*]}" "runtime=$runtime" \
    @input "$packed" "${eval_list[@]/#/$dumpdir/}" ${lm:+"$lm"} \
    @output "${eval_list[@]/#/$decode_dir/}"
describe 10 score "WER, CER and TER → $decode_dir/<set>/score, $results_dir/RESULTS.md, $expdir/report.html" \
    @stamp "$expdir/.stamps/$row.score.json" @after decode \
    @option "dev_sets=${dev_list[*]}" \
    @input "${eval_list[@]/#/$decode_dir/}" ${lexicon:+"$lexicon"} \
    @output "$results_dir/results/$row.json"
read -r -a profile_config_list <<<"$profile_configs"
profile_of() { # profile_of NAME: print the file of its profile
    printf '%s' "$results_dir/results/profile/$1.json"
}
profile_outputs=("$(profile_of "$model_name")")
for word in "${profile_config_list[@]}"; do
    profile_outputs+=("$(profile_of "$(stem "$word" "")")")
done
describe 11 profile "parameters, MACs, bytes, real-time factor → $results_dir/results/profile, $results_dir/RESULTS.md" \
    @stamp "$expdir/.stamps/$model_name.profile.json" @after "${packed_after[@]}" \
    @option "profile_runs=$profile_runs" "profile_threads=$profile_threads" @config "${profile_config_list[@]}" \
    @input "$packed" @output "${profile_outputs[@]}"

stage_data() {
    local arguments
    read -r -a arguments <<<"$local_data_opts"
    [[ -z $corpus ]] || arguments+=(--corpus "$corpus")
    [[ $sets_by_name == false ]] || arguments+=(--sets "${all_list[@]}")
    execute local/data.sh --data_dir "$datadir" "${arguments[@]}"
}

stage_dump() {
    local set_name limits text arguments=()
    arguments=(--audio_format "$audio_format")
    [[ -z $channel ]] || arguments+=(--channel "$channel")
    [[ $allow_pipes == false ]] || arguments+=(--allow_pipes)
    for set_name in "${all_list[@]}"; do
        limits_of "$set_name"
        text=()
        if [[ " ${train_list[*]} ${eval_list[*]} " != *" $set_name "* &&
            -e $datadir/$set_name/wav.scp && ! -e $datadir/$set_name/text ]]; then
            text=(--no_text) # only pre-trained on
        fi
        run dump_data --data_dir "$datadir/$set_name" --dump_dir "$dumpdir/$set_name" \
            --sample_rate "$sample_rate" "${limits[@]}" "${text[@]}" "${arguments[@]}"
    done
    if [[ -n $cmvn ]]; then
        statistics "$asr_config" "$cmvn" front_end_list "${train_list[@]/#/$dumpdir/}"
    fi
    each_iteration make_statistics
}

statistics() { # statistics CONFIG FILE OVERRIDES SET...: mean and variance of the features of sets
    local override arguments=()
    local -n overrides=$3
    for override in "${overrides[@]}"; do
        arguments+=(--set "$override")
    done
    run compute_cmvn --data_dirs "${@:4}" --config "$1" --output "$2" "${arguments[@]}"
}

stage_tokens() {
    run make_tokens --text "${train_texts[@]}" --token_type "$token_type" \
        "${token_options[@]}" ${nlsyms:+--nlsyms "$nlsyms"} --output_dir "$tokens"
}

stage_finetune() {
    local override arguments=() together=()
    for override in "${set_list[@]}"; do
        arguments+=(--set "$override")
    done
    [[ $fresh == false ]] || arguments+=(--fresh)
    [[ -z $pretrained ]] || arguments+=(--pretrained "$pretrained")
    ((nproc == 1)) || together=(run_processes --nproc "$nproc")
    run "${together[@]}" train_asr --config "$asr_config" --train_dirs "${train_list[@]/#/$dumpdir/}" \
        --dev_dirs "${dev_list[@]/#/$dumpdir/}" --tokenizer "$tokens" --cmvn "$cmvn" \
        --expdir "$asr_exp" "${arguments[@]}"
}

stage_quantize() {
    local override overrides=() again=()
    for override in "${quantize_set_list[@]}"; do
        overrides+=(--set "$override")
    done
    if [[ -n $quantize_exp ]]; then
        [[ $fresh == false ]] || again=(--fresh)
        run quantize_asr --config "$quantize_config" --teacher "$asr_exp" \
            --train_dirs "${train_list[@]/#/$dumpdir/}" --dev_dirs "${dev_list[@]/#/$dumpdir/}" \
            --expdir "$quantize_exp" "${overrides[@]}" "${again[@]}"
    fi
    run pack_model --expdir "${quantize_exp:-$asr_exp}" --config "$quantize_config" \
        "${overrides[@]}" "${pack_speech[@]}" --output "$packed"
}

stage_decode() {
    local set_name
    for set_name in "${eval_list[@]}"; do
        run decode_asr --model "$packed" --data_dir "$dumpdir/$set_name" \
            --config "$inference_config" --output_dir "$decode_dir/$set_name" \
            --runtime "$runtime" --nj "$nj" ${lm:+--lm "$lm"}
    done
}

stage_score() {
    local set_name pairs=()
    for set_name in "${eval_list[@]}"; do
        run score_asr --data_dir "$dumpdir/$set_name" --hyp "$decode_dir/$set_name/text" \
            --tokenizer_of "$packed" ${lexicon:+--lexicon "$lexicon"} \
            --output_dir "$decode_dir/$set_name/score"
        pairs+=("$set_name=$decode_dir/$set_name")
    done
    run write_results --row "$row" --model "$packed" --decode_dirs "${pairs[@]}" \
        --results_dir "$results_dir" --dev_sets "${dev_list[@]}"
    run write_report --results_dir "$results_dir" --expdir "$expdir"
}

stage_profile() {
    local one threads timing
    read -r -a threads <<<"$profile_threads"
    timing=(--threads "${threads[@]}" --runs "$profile_runs")
    run profile_model --model "$packed" "${timing[@]}" --output "$(profile_of "$model_name")"
    for one in "${profile_config_list[@]}"; do
        run profile_model --model "$one" "${timing[@]}" --output "$(profile_of "$(stem "$one" "")")"
    done
    run draw_results --results_dir "$results_dir"
    run write_report --results_dir "$results_dir" --expdir "$expdir"
}

if [[ $list == true ]]; then
    print_stages
    exit 0
fi
each_iteration skip_unasked
choose_stages "${skipped[@]}"
need_python
require conf local/data.sh "$asr_config" "${pretrain_configs[@]}" "$quantize_config" "$inference_config" \
    "${profile_config_list[@]}" ${lm_config:+"$lm_config"} ${model:+"$model"} ${nlsyms:+"$nlsyms"} ${alignments:+"$alignments"}
[[ -z $pretrained || -n $pretraining || -n $model ]] || require "$pretrained"
if [[ $dry_run == true ]]; then
    show_stages
else
    run_stages
fi
