# shellcheck shell=bash disable=SC2034,SC2154
# (SC2154: options are assigned by the function `option`; SC2034: asr.sh reads what is set here.)
# Stage 8 of a recipe, the language model. Sourced by asr.sh.

option lm_config "" "language model: an n-gram or a Transformer (none: no stage 8)" file
option lm_text "" "its texts, in place of the training transcripts: Kaldi \`text\` files, .gz too"
option lm_plain_text "" "its texts without ids, a sentence a line, beside --lm_text"
option_list lm_set "KEY=VALUE: a value of the lm_config"
option lm_tag "" "further name of the language model, for another variant"
option lm "" "decode with this language model (lm.esp or an ARPA file); none is trained" file

# find_texts ARRAY FILES: set ARRAY to the files, looked for where the user stands, then in the recipe.
find_texts() {
    local -n files=$1
    local i
    read -r -a files <<<"$2"
    for i in "${!files[@]}"; do
        [[ ${files[i]} == /* || ! -e $caller_dir/${files[i]} ]] ||
            files[i]=$(realpath "$caller_dir/${files[i]}")
        require "${files[i]}"
        files[i]=${files[i]#"$recipe_dir"/}
    done
}

# choose_lm: set the names of what is read and written, and `lm`, the file that stage 9 reads.
choose_lm() {
    lm_texts=() lm_plain_texts=() lm_after=()
    lm_tokens=$tokens # what has the table of tokens: the tokenizer's folder, or the packed model
    lm_tokens_after=(tokens)
    lm_name=""
    if [[ -n $lm ]]; then
        require "$lm"
        lm_config=""
    fi
    [[ -n $lm_config ]] || return 0
    find_texts lm_texts "$lm_text"
    find_texts lm_plain_texts "$lm_plain_text"
    ((${#lm_texts[@]} + ${#lm_plain_texts[@]} > 0)) || lm_texts=("${train_texts[@]}")
    ((${#lm_texts[@]} + ${#lm_plain_texts[@]} > 0)) ||
        die "--lm_config $lm_config: no training set is prepared, name texts with --lm_text"
    lm_name=lm_$(stem "$lm_config" lm)_$token_name
    if [[ -n $model ]]; then
        lm_name=lm_$(stem "$lm_config" lm)_$model_name
        lm_tokens=$model
        lm_tokens_after=()
    fi
    lm_name=${lm_name/#lm_lm_/lm_}${lm_tag:+_$lm_tag}
    lm_exp=$expdir/$lm_name
    lm=$lm_exp/lm.esp
    lm_after=(lm)
}

describe_lm() {
    local held_out=("${eval_list[@]/#/$dumpdir/}")
    [[ -n $lm_name ]] || return 0
    describe 8 lm "language model of text → $lm_exp" \
        @stamp "$expdir/.stamps/$lm_name.lm.json" @after dump "${lm_tokens_after[@]}" \
        @always "$fresh" @config "$lm_config" @option "${lm_set_list[@]/#/set }" \
        @input "${lm_texts[@]}" "${lm_plain_texts[@]}" "$lm_tokens" "${held_out[@]/%//text}" \
        @output "$lm"
}

stage_lm() {
    local override arguments=() held_out=("${test_list[@]/#/$dumpdir/}")
    for override in "${lm_set_list[@]}"; do
        arguments+=(--set "$override")
    done
    [[ $fresh == false ]] || arguments+=(--fresh)
    ((${#lm_texts[@]} == 0)) || arguments+=(--text "${lm_texts[@]}")
    ((${#lm_plain_texts[@]} == 0)) || arguments+=(--plain_text "${lm_plain_texts[@]}")
    ((${#dev_texts[@]} == 0)) || arguments+=(--dev_text "${dev_texts[@]}")
    ((${#held_out[@]} == 0)) || arguments+=(--held_out_text "${held_out[@]/%//text}")
    run train_lm --config "$lm_config" --tokenizer "$lm_tokens" --expdir "$lm_exp" "${arguments[@]}"
}
