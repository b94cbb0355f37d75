# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by run.sh, which has set $recipe: choose train_sets, dev_sets and test_sets by what the
# user's --corpus holds, or, without it, by what is prepared in --datadir. --train_sets, --dev_sets
# and --test_sets of the user come later on the command line, and so count.
corpus="" datadir=$recipe/data previous=""
for word in "$@"; do
    if [[ $word == --*=* ]]; then
        previous=${word%%=*}
        word=${word#*=}
    fi
    case $previous in
        --corpus) corpus=$word ;;
        --datadir) datadir=$word ;;
    esac
    previous=$word
done

# The published sets. There is no test set among them: what is reported is dev-clean-2.
train_sets="train-clean-5" dev_sets="dev-clean-2" test_sets=""
for place in "${corpus:-$datadir}" "$recipe/${corpus:-$datadir}"; do
    if [[ -d $place/dev-clean-part || -d $place/LibriSpeech/dev-clean-part ]]; then
        train_sets="train-clean-5 train-clean-more"
        dev_sets="dev-clean-part" test_sets="test-clean-part"
    fi
done
