#!/usr/bin/env bash
# Install the peers that tests/golden and tools/benchmarks compare with, into a venv of their own.
#
# Usage: tools/setup_peers.sh [--venv DIR] [--python PYTHON] [--help]
#   --venv DIR       where to install (default: .venv_peers beside this folder)
#   --python PYTHON  the Python to build it with, 3.10 to 3.12 (default: python3)
#   TORCH_INDEX=URL  package index for torch alone; empty = the configured index
#
# Never installs into the project's own .venv: ESPnet pins setuptools below what torch needs, so it
# goes in with --no-deps and its imports are listed here by hand. Running it again checks the
# packages and does nothing when they are there.
set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv_peers
python=python3
torch_index=${TORCH_INDEX:-}

ESPNET_VERSION=202511
TORCH_VERSION=2.13.0

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }

fail() {
    echo "error: $1" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
        --venv | --python)
            [ $# -ge 2 ] || fail "$1 needs a value"
            if [ "$1" = --venv ]; then venv=$2; else python=$2; fi
            shift 2
            ;;
        --help | -h)
            usage
            exit 0
            ;;
        *) fail "unknown option '$1', expected --venv DIR, --python PYTHON or --help" ;;
    esac
done

# What the peers are used for: the decoder whose numbers tests/golden stores, and k-means.
check() {
    [ -x "$venv/bin/python" ] || return 1
    "$venv/bin/python" - "$ESPNET_VERSION" "$TORCH_VERSION" >"$venv/check.log" 2>&1 <<'PYTHON'
import sys
from importlib.metadata import version

import safetensors.torch
import sklearn.cluster
import torch
from espnet2.asr.decoder.transformer_decoder import TransformerDecoder
from espnet2.asr.encoder.transformer_encoder import TransformerEncoder

assert version("espnet") == sys.argv[1], version("espnet")
assert torch.__version__.split("+")[0] == sys.argv[2], torch.__version__
PYTHON
}

# `if` is meant here: check reports by its status, and its last command is the one that matters.
if check; then
    echo "peers are ready in $venv (espnet $ESPNET_VERSION, torch $TORCH_VERSION): nothing to do"
    exit 0
fi

command -v "$python" >/dev/null || fail "no '$python' on PATH; give one with --python"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"

pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }

# torch first, pinned by constraint, so that no later package replaces it.
constraints=$venv/constraints.txt
printf 'torch==%s\nnumpy>=2\nsetuptools==80.9.0\n' "$TORCH_VERSION" >"$constraints"
if [ -n "$torch_index" ]; then
    pip install --constraint "$constraints" --index-url "$torch_index" torch
else
    pip install --constraint "$constraints" torch
fi
pip install --constraint "$constraints" numpy setuptools safetensors
pip install --constraint "$constraints" configargparse humanfriendly scipy scikit-learn librosa \
    PyYAML soundfile kaldiio torch_complex h5py editdistance sentencepiece hydra-core opt-einsum ci_sdr \
    fast-bss-eval typeguard einops
# Last: pip then has nothing to say about the pins of ESPnet that are passed over on purpose.
pip install --no-deps "espnet==$ESPNET_VERSION"

if ! check; then
    tail -n 5 "$venv/check.log" >&2
    fail "the peers were installed into $venv but do not import; remove that folder and run again"
fi
echo "peers are ready in $venv (espnet $ESPNET_VERSION, torch $TORCH_VERSION)"
