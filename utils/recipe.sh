# shellcheck shell=bash disable=SC2154
# (SC2154: options are assigned by the function `option`; `set -u` finds a name that is not one.)
# Shell library of the recipes: options, stages, stamps. utils/asr.sh sources it.
#
# A recipe script declares its options (option, option_flag, option_list), parses the command line
# (parse_options), describes its stages (describe) and calls run_stages, which calls the function
# stage_NAME of every stage that must run, with the name; stage NAME_2, NAME repeated, is stage_NAME
# with NAME_2. Whether it must is decided by espnet_lite/stamps.py.

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || {
    echo "error: bash ${BASH_VERSION} is too old, expected 4.4 or newer" >&2
    exit 2
}
set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

toolkit=$(dirname "$(dirname "$(realpath "${BASH_SOURCE[0]}")")")
caller_dir=$PWD
option_names=()        # in the order of their declaration
declare -A option_kind # value, count, whole, number, file, folder, flag, list
declare -A option_help
plan=()        # words of all describe calls, for espnet_lite.bin.stage_stamp
stage_names=() # in the order in which they run
declare -A stage_number stage_what
chosen=()        # names of the stages to run
running_stage="" # the one that runs now, for the exit message
stage_begun=0
child="" # pid of the program that runs now
python=""

die() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# option NAME DEFAULT HELP [KIND]: `--NAME VALUE` sets the variable NAME. KIND: value, count (a whole
# number from 1), whole (from 0), number, file (read), folder (written). Paths given by the user are relative to
# where the user stands; a file that is not there is looked for in the recipe's folder.
option() {
    option_names+=("$1")
    option_kind[$1]=${4:-value}
    option_help[$1]=$3
    printf -v "$1" '%s' "$2"
}

# option_flag NAME HELP: `--NAME` sets the variable NAME, false before, to true.
option_flag() {
    option "$1" false "$2" flag
}

# option_list NAME HELP: every `--NAME VALUE` adds to the array NAME_list.
option_list() {
    option_names+=("$1")
    option_kind[$1]=list
    option_help[$1]=$2
    declare -g -a "$1_list=()"
}

# nearest WORD KNOWN...: print " (did you mean 'X'?)" or nothing.
nearest() {
    [[ -n $python ]] || return 0
    "$python" -c '
import difflib, sys
near = difflib.get_close_matches(sys.argv[1], sys.argv[2:], n=1, cutoff=0.5)
print(f" (did you mean {near[0]!r}?)" if near else "")' "$@"
}

# set_option NAME VALUE FROM: check VALUE by the kind of option NAME; FROM is recipe or user.
set_option() {
    local name=$1 value=$2 from=$3 hint
    if [[ ! -v option_kind[$name] ]]; then
        hint=$(nearest "--$name" "${option_names[@]/#/--}")
        die "unknown option '--$name'$hint; $recipe_dir/run.sh --help lists all"
    fi
    case ${option_kind[$name]} in
        count) [[ $value =~ ^[1-9][0-9]*$ ]] || die "--$name $value: expected a whole number from 1" ;;
        whole) [[ $value =~ ^[0-9]+$ ]] || die "--$name $value: expected a whole number" ;;
        number) [[ $value =~ ^[0-9]*\.?[0-9]+$ ]] || die "--$name $value: expected a number" ;;
        flag) [[ $value == true || $value == false ]] || die "--$name $value: expected true or false" ;;
        file | folder)
            if [[ $from == user && -n $value && $value != /* && $caller_dir != "$recipe_dir" ]]; then
                if [[ ${option_kind[$name]} == folder || -e $caller_dir/$value ]]; then
                    value=$(realpath -m "$caller_dir/$value")
                    value=${value#"$recipe_dir"/}
                fi
            fi
            ;;
        list)
            local -n values=${name}_list
            values+=("$value")
            return
            ;;
    esac
    printf -v "$name" '%s' "$value"
}

# parse_options CHOICES... -- USER_ARGUMENTS...: the recipe's choices first, then the user's.
parse_options() {
    local from=recipe name value following
    recipe_command=./run.sh
    [[ $caller_dir == "$recipe_dir" ]] || recipe_command=$(printf '%q' "$recipe_dir/run.sh")
    while (($# > 0)); do
        if [[ $1 == -- && $from == recipe ]]; then
            from=user
            shift
            continue
        fi
        [[ $1 == --?* ]] || [[ $1 == -h ]] || die "unexpected '$1', expected --option value"
        name=${1#--}
        value=${name#*=}
        name=${name%%=*}
        name=${name//-/_}
        if [[ $name == help || $1 == -h ]]; then
            print_help
            exit 0
        elif [[ $1 != *=* && ${option_kind[$name]:-} == flag ]]; then
            value=true
        elif [[ $1 != *=* && -v option_kind[$name] ]]; then
            following=${2:-}
            following=${following#--}
            following=${following%%=*}
            if (($# < 2)) || [[ $2 == --?* && -v option_kind[${following//-/_}] ]]; then
                die "option --$name needs a value"
            fi
            value=$2
            shift
        fi
        shift
        set_option "$name" "$value" "$from"
        if [[ $from == user && $name != @(stage|stop_stage|skip_stages|list|dry_run|fresh) ]]; then
            recipe_command+=$(printf ' --%s %q' "$name" "$value")
        fi
    done
}

print_help() {
    local name
    # The header comment of run.sh, without its first line.
    sed -n '2,${/^#/!q; s/^# \{0,1\}//p}' "$recipe_dir/run.sh"
    printf '\nOptions (- and _ alike):\n'
    for name in "${option_names[@]}"; do
        case ${option_kind[$name]} in
            flag) printf '  --%-24s %s\n' "$name" "${option_help[$name]}" ;;
            list) printf '  --%-24s %s (may be repeated)\n' "$name VALUE" "${option_help[$name]}" ;;
            *) printf '  --%-24s %s%s\n' "$name VALUE" "${option_help[$name]}" "${!name:+ [${!name}]}" ;;
        esac
    done
}

# require FILE...: every file or folder is there.
require() {
    local path
    for path in "$@"; do
        [[ -e $path ]] || die "$path: no such file or folder (in $PWD)"
    done
}

# describe NUMBER NAME WHAT [@KEYWORD VALUE...]...: one stage; espnet_lite/stamps.py has the keywords.
describe() {
    stage_names+=("$2")
    stage_number[$2]=$1
    stage_what[$2]=$3
    plan+=(@stage "$1" "$2" @what "${@:3}")
}

# find_stages NUMBER_OR_NAME: set the array found to the positions of the stages that are meant: of
# one by its name, of all with its number.
find_stages() {
    local name known=()
    found=()
    for name in "${stage_names[@]}"; do
        [[ $1 != "$name" && $1 != "${stage_number[$name]}" ]] || found+=("${#known[@]}")
        known+=("${stage_number[$name]} $name")
    done
    ((${#found[@]} == 0)) || return 0
    die "unknown stage '$1'$(nearest "$1" "${stage_names[@]}"), expected one of:$(printf ' %s,' "${known[@]}" | sed 's/,$//')"
}

# choose_stages [SKIPPED...]: fill the array chosen from --stage, --stop_stage and --skip_stages. A
# range goes by the order in which stages run, which is not that of their numbers: 4 5 4 5.
choose_stages() {
    local name word position found=() first last skipped=" $* "
    find_stages "${stage:-${stage_names[0]}}"
    first=${found[0]}
    find_stages "${stop_stage:-${stage_names[-1]}}"
    last=${found[-1]}
    ((first <= last)) ||
        die "--stage ${stage_names[first]} comes after --stop_stage ${stage_names[last]}"
    for word in ${skip_stages//,/ }; do
        find_stages "$word"
        for position in "${found[@]}"; do
            skipped+="${stage_names[position]} "
        done
    done
    for name in "${stage_names[@]:first:last-first+1}"; do
        [[ $skipped == *" $name "* ]] || chosen+=("$name")
    done
    ((${#chosen[@]} > 0)) ||
        die "nothing to run: every stage from ${stage_names[first]} to ${stage_names[last]} is skipped"
}

print_stages() {
    local name
    for name in "${stage_names[@]}"; do
        printf '%3s  %-10s %s\n' "${stage_number[$name]}" "$name" "${stage_what[$name]}"
    done
}

# find_python: set and export PYTHON, the interpreter that runs the toolkit: $PYTHON, or the
# toolkit's .venv, or the first on the PATH.
find_python() {
    if [[ -n ${PYTHON:-} ]]; then
        python=$(type -P -- "$PYTHON") || die "PYTHON=$PYTHON is no program"
    elif [[ -x $toolkit/.venv/bin/python ]]; then
        python=$toolkit/.venv/bin/python
    else
        python=$(type -P python3) || python=$(type -P python) || return 0
    fi
    [[ $python == /* ]] || python=$caller_dir/$python
    export PYTHON=$python
    export PYTHONPATH=$toolkit${PYTHONPATH:+:$PYTHONPATH}
}

need_python() {
    local there
    [[ -n $python ]] || die "no Python found; run: $toolkit/tools/setup.sh"
    there=$("$python" -c 'import importlib.util as u; print(u.find_spec("torch") is not None)')
    [[ $there == True ]] || die "$python has no torch; run: $toolkit/tools/setup.sh"
}

# execute COMMAND ARGUMENT...: print the command and run it, or only print it with --dry_run.
# It runs in a process group of its own, to which TERM, INT and USR1 are passed on: a training that
# is asked to stop by `kill PID_OF_RUN_SH` saves its state first.
execute() {
    local status=0
    printf '+'
    printf ' %q' "$@"
    printf '\n'
    if [[ $dry_run == true ]]; then
        return
    fi
    set -m
    "$@" &
    child=$!
    set +m
    while
        wait "$child" || true # a signal ends it early
        kill -0 "$child" 2>/dev/null
    do :; done
    wait "$child" || status=$?
    child=""
    return "$status"
}

# pass_on SIGNAL: hand a signal to the running program; between two programs it ends the recipe.
pass_on() {
    if [[ -z $child ]]; then
        exit 143
    fi
    kill -s "$1" -- "-$child"
}

on_exit() {
    local code=$? refused=()
    ((code != 2)) || refused=(--refused)
    if [[ -n $running_stage ]]; then
        printf 'stage %s %s: %s after %s s (exit %s)\n' "${stage_number[$running_stage]}" \
            "$running_stage" "$([[ $code == 75 ]] && echo stopped || echo failed)" \
            $((SECONDS - stage_begun)) "$code" >&2
        printf '%s\0' "${plan[@]}" |
            "$python" -m espnet_lite.bin.stage_stamp release --stage "$running_stage" --owner $$ \
                "${refused[@]}"
    fi
    exit "$code"
}

# run_stages: run the chosen stages in order, each only if its stamp says that it must.
run_stages() {
    local name status
    trap on_exit EXIT
    trap 'pass_on TERM' TERM
    trap 'pass_on INT' INT
    trap 'pass_on USR1' USR1
    for name in "${chosen[@]}"; do
        status=0
        printf '%s\0' "${plan[@]}" | "$python" -m espnet_lite.bin.stage_stamp check \
            --stage "$name" --owner $$ --command "$recipe_command" || status=$?
        case $status in
            0) ;;
            3) continue ;;
            *) exit "$status" ;;
        esac
        running_stage=$name
        stage_begun=$SECONDS
        "stage_${name%_[0-9]}" "$name"
        printf '%s\0' "${plan[@]}" |
            "$python" -m espnet_lite.bin.stage_stamp finish --stage "$name" --owner $$
        running_stage=""
        printf 'stage %s %s: %s s\n' "${stage_number[$name]}" "$name" $((SECONDS - stage_begun))
    done
}

# show_stages: print the commands of the chosen stages that would run (--dry_run).
show_stages() {
    local name status rerun=()
    for name in "${chosen[@]}"; do
        status=0
        printf '%s\0' "${plan[@]}" | "$python" -m espnet_lite.bin.stage_stamp foresee \
            --stage "$name" --rerun "${rerun[@]}" || status=$?
        case $status in
            0) ;;
            3) continue ;;
            *) exit "$status" ;;
        esac
        rerun+=("$name")
        "stage_${name%_[0-9]}" "$name"
    done
}

option stage "" "first stage to run, by number or name (default: the first)"
option stop_stage "" "last stage to run, by number or name (default: the last)"
option skip_stages "" "stages to leave out, e.g. \"data,dump\""
option_flag list "list the stages and exit"
option_flag dry_run "print the commands that would run and exit"
# shellcheck source=utils/cluster.sh
source "$toolkit/utils/cluster.sh"
