"""The bash script of an array: one task of it, with a log and an exit code that outlive it.

A word of the user stands in it in single quotes, so that no shell ever reads what is in it.
"""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from espnet_lite.jobs.array import Array

# What finds the programs again on another machine. A scheduler may pass on more.
_PASSED_ON = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LC_ALL", "PYTHON")

_BODY = r"""
child=''
asked=''
pass_on() {
    asked=$1
    [[ -z $child ]] || kill -s "$1" -- "-$child" 2>/dev/null
}
trap 'pass_on TERM' TERM
trap 'pass_on TERM' USR2 # with this Grid Engine warns of its SIGKILL
trap 'pass_on USR1' USR1
trap 'pass_on INT' INT

begun=$SECONDS
{
    printf '# task %s on %s, %s, process %s, %(%F %T)T\n' "$JOB" "${HOSTNAME:-?}" "$queued_as" "$$" -1
    printf '#'
    printf ' %q' "${command[@]}"
    printf '\n'
} >>"$log" || exit 2
set -m
"${command[@]}" >>"$log" 2>&1 </dev/null &
child=$!
set +m
[[ -z $asked ]] || pass_on "$asked"
while
    wait "$child" # a signal ends it early
    kill -0 "$child" 2>/dev/null
do :; done
wait "$child" # again: the child may have ended after a wait that a signal cut short
code=$?
printf '# task %s ended with code %s after %s s, %(%F %T)T\n' "$JOB" "$code" $((SECONDS - begun)) -1 >>"$log"
printf '%s\n' "$code" >"$codes/.code.$JOB.$$" && mv -f "$codes/.code.$JOB.$$" "$codes/code.$JOB"
exit "$code"
"""
# Over ssh the end of standard input is the end of the launcher, or its wish to stop.
_WATCH = r"""
(
    read -r _ || true
    kill -s TERM $$ 2>/dev/null
) <&0 &
"""


def script_of(
    array: Array,
    tasks: Sequence[int],
    *,
    folder: Path,
    index: str = "",
    launch: Sequence[str] = (),
    watches_input: bool = False,
) -> str:
    """Return the script of some tasks of an array.

    Args:
        array: what to run.
        tasks: its numbers; the place among them is what `index` tells, from 1.
        folder: in which a task leaves its exit code, in the file `code.TASK`.
        index: environment variable in which the scheduler tells it.
        launch: words in front of the command, which start it on each node.
        watches_input: end the task when standard input ends.
    """
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = str(array.threads)
    command = [*map(shlex.quote, launch), *(word.in_bash() for word in array.command)]
    number = f"${{{index}:-1}}" if index else "1"
    return "\n".join(
        [
            "#!/bin/bash",
            f"# {array.name}, tasks {' '.join(map(str, tasks))}. By hand: bash THIS_FILE TASK",
            f"tasks=({' '.join(map(str, tasks))})",
            f"index={number}",
            "[[ $index =~ ^[0-9]+$ ]] || index=1 # Grid Engine: undefined",
            "JOB=${1:-${tasks[index - 1]}}",
            'queued_as="job ${SLURM_JOB_ID:-${JOB_ID:-${PBS_JOBID:-by hand}}}"',
            *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
            f"export ESPNET_LITE_JOB={shlex.quote(str(array.folder.resolve()))}/$JOB",
            f"cd -- {shlex.quote(os.getcwd())} || exit 2",
            f"codes={shlex.quote(str(folder.resolve()))}",
            f"log={array.log.in_bash()}",
            "command=(" + "\n    ".join(command) + ")",
            *([_WATCH.strip()] if watches_input else []),
            _BODY.lstrip(),
        ]
    )
