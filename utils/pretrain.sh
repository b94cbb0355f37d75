# shellcheck shell=bash disable=SC2154
# (SC2154: options are assigned by the function `option`.)
# Stages 4 and 5 of a recipe, units and HuBERT pre-training, once for each iteration. Sourced by asr.sh.
#
# Iteration 1 is the stages `units` and `pretrain`, iteration 2 `units_2` and `pretrain_2`: each
# iteration's units are made of the iteration before it.

option pretrain_config "" "HuBERT pre-training: model and training; a file for each iteration, parted by commas (none: no stages 4 and 5)"
option pretrain_sets "" "data sets to pre-train on; they need no text (default: the training sets)"
option pretrain_dev_sets "" "data sets to validate the pre-training on (default: the dev sets)"
option iters 1 "iterations of pre-training to run, e.g. 1,2, or 2 where iteration 1 is done"
option clusters 100,500 "number of units in each iteration, parted by commas"
option unit_layers 6 "block whose output makes the units of iteration 2, 3, ..., parted by commas"
option unit_mean keep "keep or subtract: each utterance's mean, before frames of that block are clustered"
option alignments "" "folder of TextGrids of utterances in --pretrain_dev_sets: their units are compared with phones" file
option sample_megabytes 512 "memory for the frames that units are fitted to" count
option_list pretrain_set "KEY=VALUE: a value of the pretrain_config"
option pretrain_tag "" "further name of the pre-training, for another variant"
option pretrained "" "encoder to begin the recognizer with: experiment or file; none: train from scratch (default: the last of --iters, where there is a pretrain_config)" file

# nth COUNT WORD...: print the COUNT-th word (from 1), or the last where there are fewer.
nth() {
    local place=$(($1 < $# - 1 ? $1 + 1 : $#))
    printf '%s' "${!place}"
}

# choose_pretraining: set the names of what is read and written, and the encoder that stage 6 takes.
choose_pretraining() {
    pretrain_list=() pretrain_dev_list=() pretrain_configs=() iter_list=() pretrained_inputs=()
    pretrain_name="" pretraining="" # pretraining: the stage that stage 6 waits for
    pretrained_name=""              # of the encoder, as part of the recognizer's name
    if [[ -n $pretrain_config && -z $pretrained && -z $model ]]; then
        check_numbers_of_iterations
        IFS=, read -r -a pretrain_configs <<<"$pretrain_config"
        read -r -a pretrain_list <<<"${pretrain_sets:-$train_sets}"
        read -r -a pretrain_dev_list <<<"${pretrain_dev_sets:-$dev_sets}"
        ((${#pretrain_list[@]} > 0)) || die "--pretrain_sets and --train_sets are empty, expected names of sets"
        ((${#pretrain_dev_list[@]} > 0)) || die "--pretrain_dev_sets and --dev_sets are empty, expected names of sets"
        pretrain_name=pretrain_$(stem "${pretrain_configs[0]}" pretrain)${pretrain_tag:+_$pretrain_tag}
        pretrain_name=${pretrain_name/#pretrain_pretrain/pretrain}
        pretrained=$expdir/${pretrain_name}_it${iter_list[-1]}
        pretraining=$(stage_of pretrain "${iter_list[-1]}")
    fi
    [[ $pretrained != none ]] || pretrained=""
    if [[ -n $pretrained ]]; then
        pretrained=${pretrained%"${pretrained##*[!/]}"} # no slash at its end
        pretrained_name=${pretrained##*/}
        pretrained_name=${pretrained_name%.safetensors} pretrained_name=${pretrained_name%.esp}
        pretrained_name=${pretrained_name#pretrain_} pretrained_name=${pretrained_name#asr_}
        pretrained_name=${pretrained_name%_bf16}
        # Of a folder the weights count: the record tells of minutes and dates.
        pretrained_inputs=("$pretrained")
        if [[ -n $pretraining || -d $pretrained ]]; then
            # shellcheck disable=SC2034 # asr.sh reads it
            pretrained_inputs=("$pretrained/model.safetensors")
        fi
    fi
}

# check_numbers_of_iterations: split the options that hold a number for each iteration.
check_numbers_of_iterations() {
    local i before=0 asked
    [[ $iters =~ ^[1-9](,[1-9])*$ ]] || die "--iters $iters: expected iterations from 1 to 9, as 1,2"
    [[ $clusters =~ ^[1-9][0-9]*(,[1-9][0-9]*)*$ ]] || die "--clusters $clusters: expected whole numbers from 1, as 100,500"
    [[ $unit_layers =~ ^[0-9]+(,[0-9]+)*$ ]] || die "--unit_layers $unit_layers: expected whole numbers, as 6,9"
    [[ $unit_mean == keep || $unit_mean == subtract ]] || die "--unit_mean $unit_mean: expected keep or subtract"
    IFS=, read -r -a iter_list <<<"$iters"
    IFS=, read -r -a cluster_list <<<"$clusters"
    IFS=, read -r -a unit_layer_list <<<"$unit_layers"
    for i in "${iter_list[@]}"; do
        ((i > before)) || die "--iters $iters: expected rising numbers, as 1,2"
        before=$i
    done
    # A command that mends what an iteration is made from must not leave out the one before it.
    asked=" --iters $(printf '%q' "$iters")"
    recipe_command=${recipe_command/"$asked"/ --iters "$(seq -s , "$before")"}
}

# cmvn_of ITERATION: print the file of statistics of the features that its config asks for.
cmvn_of() {
    local config name=$pretrain_name
    config=$(nth "$1" "${pretrain_configs[@]}")
    [[ $config == "${pretrain_configs[0]}" ]] || name+=_$(stem "$config" pretrain)
    printf '%s' "$dumpdir/cmvn_$name.safetensors"
}

# config_is_new ITERATION: succeed where no iteration before it has the same config.
config_is_new() {
    local i config
    config=$(nth "$1" "${pretrain_configs[@]}")
    for ((i = 1; i < $1; i++)); do
        [[ $(nth "$i" "${pretrain_configs[@]}") != "$config" ]] || return 1
    done
}

describe_statistics() { # describe_statistics ITERATION: add what stage 2 makes for it
    local config
    config_is_new "$1" || return 0
    config=$(nth "$1" "${pretrain_configs[@]}")
    pretrain_features+=(@config "${feature_keys[@]/#/$config#}" @output "$(cmvn_of "$1")")
}

make_statistics() { # make_statistics ITERATION
    config_is_new "$1" || return 0
    statistics "$(nth "$1" "${pretrain_configs[@]}")" "$(cmvn_of "$1")" pretrain_front_end_list \
        "${pretrain_list[@]/#/$dumpdir/}"
}

# each_iteration COMMAND...: call it with every iteration up to the last one that is asked for.
each_iteration() {
    local i last=0
    ((${#iter_list[@]} == 0)) || last=${iter_list[-1]}
    for ((i = 1; i <= last; i++)); do
        "$@" "$i"
    done
}

# stage_of NAME ITERATION: print the name of a stage in an iteration.
stage_of() {
    if (($2 == 1)); then
        printf '%s' "$1"
    else
        printf '%s_%s' "$1" "$2"
    fi
}

describe_pretraining() { # describe_pretraining ITERATION
    local i=$1 before=() exp units tables
    tables=("${pretrain_list[@]/#/$dumpdir/}" "${pretrain_dev_list[@]/#/$dumpdir/}")
    # Of their folders these tables count: one may get the statistics of a recognizer, too.
    tables=("${tables[@]/%//wav.scp}" "${tables[@]/%//utt2num_samples}")
    exp=$expdir/${pretrain_name}_it$i
    units=$expdir/units_${pretrain_name}_it$i
    if ((i > 1)); then
        before=(@after "$(stage_of pretrain $((i - 1)))"
        @option "layer=$(nth $((i - 1)) "${unit_layer_list[@]}")" "mean=$unit_mean"
        @input "$expdir/${pretrain_name}_it$((i - 1))/model.safetensors")
    fi
    describe 4 "$(stage_of units "$i")" "k-means units of HuBERT iteration $i → $units" \
        @stamp "$expdir/.stamps/${pretrain_name}_it$i.units.json" @after dump "${before[@]}" \
        @option "clusters=$(nth "$i" "${cluster_list[@]}")" "sample_megabytes=$sample_megabytes" \
        @input "${tables[@]}" @output "$units"
    describe 5 "$(stage_of pretrain "$i")" "HuBERT iteration $i → $exp" \
        @stamp "$expdir/.stamps/${pretrain_name}_it$i.pretrain.json" @after dump "$(stage_of units "$i")" \
        @always "$fresh" @config "$(nth "$i" "${pretrain_configs[@]}")" \
        @option "${pretrain_set_list[@]/#/set }" "alignments=$alignments" \
        @input "${tables[@]}" "$units" "$(cmvn_of "$i")" \
        @output "$exp/model.safetensors" "$exp/model.json" ${alignments:+"$units.phones.json"}
}

skip_unasked() { # skip_unasked ITERATION: add its stages to `skipped` when --iters leaves it out
    [[ ,$iters, == *",$1,"* ]] || skipped+=("$(stage_of units "$1")" "$(stage_of pretrain "$1")")
}

# iteration_of STAGE: print the iteration that a stage's name belongs to.
iteration_of() {
    local number=${1##*_}
    [[ $number =~ ^[0-9]$ ]] || number=1
    printf '%s' "$number"
}

stage_units() { # stage_units NAME
    local i source=(--features mfcc --sample_rate "$sample_rate")
    i=$(iteration_of "$1")
    if ((i > 1)); then
        source=(--model "$expdir/${pretrain_name}_it$((i - 1))"
            --layer "$(nth $((i - 1)) "${unit_layer_list[@]}")")
        [[ $unit_mean == keep ]] || source+=(--subtract_mean)
    fi
    run make_units --data_dirs "${pretrain_list[@]/#/$dumpdir/}" \
        --label_dirs "${pretrain_dev_list[@]/#/$dumpdir/}" "${source[@]}" \
        --clusters "$(nth "$i" "${cluster_list[@]}")" --sample_megabytes "$sample_megabytes" \
        --nj "$nj" --output "$expdir/units_${pretrain_name}_it$i"
}

stage_pretrain() { # stage_pretrain NAME
    local i override arguments=() together=()
    i=$(iteration_of "$1")
    if [[ -n $alignments ]]; then
        run score_units --units "$expdir/units_${pretrain_name}_it$i" --alignments "$alignments" \
            --output "$expdir/units_${pretrain_name}_it$i.phones.json"
    fi
    for override in "${pretrain_set_list[@]}"; do
        arguments+=(--set "$override")
    done
    [[ $fresh == false ]] || arguments+=(--fresh)
    ((nproc == 1)) || together=(run_processes --nproc "$nproc")
    run "${together[@]}" train_hubert --config "$(nth "$i" "${pretrain_configs[@]}")" \
        --train_dirs "${pretrain_list[@]/#/$dumpdir/}" \
        --dev_dirs "${pretrain_dev_list[@]/#/$dumpdir/}" \
        --units "$expdir/units_${pretrain_name}_it$i" --cmvn "$(cmvn_of "$i")" \
        --expdir "$expdir/${pretrain_name}_it$i" "${arguments[@]}"
    run write_pretraining --name "${pretrain_name}_it$i" --expdir "$expdir/${pretrain_name}_it$i" \
        --units "$expdir/units_${pretrain_name}_it$i" --results_dir "$results_dir" \
        ${alignments:+--phones "$expdir/units_${pretrain_name}_it$i.phones.json"}
}
