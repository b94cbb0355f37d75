#!/usr/bin/env bash
# Set up .venv with everything the recipes, tests and lint need. Needs Python 3.10+ (with venv) and
# pip's package registry, no root. Run it again at any time: what is up to date is left alone.
#
# Usage: tools/setup.sh [--torch keep|cpu|cuda] [--python PROGRAM]
#   --torch keep   (default) a CUDA build of torch that is installed stays, in .venv or under the
#                  Python that makes .venv; else as cpu
#   --torch cpu    torch of tools/constraints.txt; replaces a CUDA build
#   --torch cuda   the same version, and an error if what comes is no CUDA build
# Environment: TORCH_INDEX  package index to take torch from, e.g. PyTorch's own index of CPU builds
#                           (default: the index pip is configured for)
#              PYTHON       like --python (default: python3)

set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

root=$(dirname "$(dirname "$(realpath "${BASH_SOURCE[0]}")")")
torch=keep
python=${PYTHON:-python3}

die() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

while (($# > 0)); do
    case $1 in
        -h | --help)
            sed -n '2,${/^#/!q; s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        --torch | --python)
            (($# > 1)) || die "option $1 needs a value"
            printf -v "${1#--}" '%s' "$2"
            shift 2
            ;;
        *) die "unknown option '$1', expected --torch or --python" ;;
    esac
done
[[ $torch == @(keep|cpu|cuda) ]] || die "--torch $torch: expected keep, cpu or cuda"

cd "$root"
mark=.venv/.set_up_from
wanted=$(cat pyproject.toml tools/constraints.txt tools/setup.sh | sha256sum)
if [[ $torch == keep && -x .venv/bin/python && -f $mark && $(<"$mark") == "$wanted" ]]; then
    exit 0
fi

# cuda_torch PYTHON: print the version of its torch if that is a CUDA build, without importing it.
cuda_torch() {
    "$1" - <<'PYTHON'
import importlib.util, pathlib, runpy
spec = importlib.util.find_spec("torch")
file = pathlib.Path(spec.origin).with_name("version.py") if spec and spec.origin else None
facts = runpy.run_path(str(file)) if file and file.exists() else {}
print(facts["__version__"] if facts.get("cuda") else "")
PYTHON
}

has_pip=no # a venv whose making was cut off has none
if [[ -x .venv/bin/python ]]; then
    has_pip=$(.venv/bin/python -c 'import importlib.util as u; print("yes" if u.find_spec("pip") else "no")')
fi
if [[ $has_pip == no ]]; then
    type -P -- "$python" >/dev/null || die "no program '$python'; give one: tools/setup.sh --python PROGRAM"
    fault=$(
        "$python" - <<'PYTHON'
import sys
if sys.version_info < (3, 10):
    print("Python %d.%d is too old, expected 3.10 or newer" % sys.version_info[:2])
else:
    try:
        import ensurepip, venv
    except ImportError as error:
        print("Python has no %s; install it (Debian: apt-get install python3-venv)" % error.name)
PYTHON
    )
    [[ -z $fault ]] || die "$python: $fault"
    below=()
    if [[ $torch == keep && -n $(cuda_torch "$python") ]]; then
        below=(--system-site-packages)
    fi
    echo "tools/setup.sh: making .venv"
    "$python" -m venv "${below[@]}" .venv
fi

rm -f "$mark"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_WARN_SCRIPT_LOCATION=1
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
cp tools/constraints.txt "$constraints"

install() { # wheels only: a source package would need a compiler, or downloads from elsewhere
    .venv/bin/python -m pip install -qq --only-binary :all: --constraint "$constraints" "$@"
}

install setuptools # torch needs it; with it here pip need not fetch it to build the toolkit either
cuda=$(cuda_torch .venv/bin/python)
if [[ $torch == keep && -n $cuda ]]; then
    echo "tools/setup.sh: torch $cuda stays"
    sed "s/^torch==.*/torch==$cuda/" tools/constraints.txt >"$constraints"
else
    echo "tools/setup.sh: installing torch"
    arguments=(torch)
    if [[ -n ${TORCH_INDEX:-} ]]; then
        arguments+=(--index-url "$TORCH_INDEX")
    fi
    # To pip the CPU and the CUDA build of one version are equal, so it must be told to replace one.
    if [[ $torch == cpu && -n $cuda || $torch == cuda && -z $cuda ]]; then
        arguments+=(--force-reinstall)
    fi
    install "${arguments[@]}"
    if [[ $torch == cuda && -z $(cuda_torch .venv/bin/python) ]]; then
        die "the torch that came is no CUDA build; set TORCH_INDEX to an index of CUDA builds"
    fi
fi
echo "tools/setup.sh: installing the toolkit with the extras demo and dev"
install --no-build-isolation --editable '.[demo,dev]'
.venv/bin/python tools/check_install.py
.venv/bin/python -m espnet_lite.bin.build_kernels --if_possible ||
    echo "tools/setup.sh: the C++ kernels could not be compiled; the toolkit works without them"
printf '%s' "$wanted" >"$mark"
