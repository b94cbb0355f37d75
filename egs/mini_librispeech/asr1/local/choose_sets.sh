# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by run.sh, which has set $recipe: choose train_sets, dev_sets and test_sets, and
# pretrain_sets and pretrain_dev_sets, by what the user's --corpus holds, or, without it, by what is
# prepared in --datadir. The same options of the user come later on the command line, and so count.
# local/subsets says what train-clean-more-rest and pretrain-dev are.
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
pretrain_sets="train-clean-5" pretrain_dev_sets="dev-clean-2"
for place in "${corpus:-$datadir}" "$recipe/${corpus:-$datadir}"; do
    if [[ -d $place/dev-clean-part || -d $place/LibriSpeech/dev-clean-part ]]; then
        pretrain_sets="train-clean-5 train-clean-more-rest" pretrain_dev_sets="pretrain-dev"
        dev_sets="dev-clean-part" test_sets="test-clean-part"
    fi
done
