"""What a cluster's commands are called: YAML of utils/cluster, or a site's own.

The names of resources are the toolkit's; the flags that they become are the cluster's. A value is
filled into the single words of a command line and never passes through a shell.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from espnet_lite.config import load_config
from espnet_lite.errors import InputError, unknown_name

SHIPPED = Path(__file__).resolve().parents[2] / "utils" / "cluster"
# Values that are the same on every cluster; those of other resources go as they are.
_FORMS = {
    "cpu": (r"[1-9]\d*", "a whole number from 1"),
    "nodes": (r"[1-9]\d*", "a whole number from 1"),
    "gpu": (r"\d+", "a whole number"),
    "mem": (r"[1-9]\d*[MG]", "megabytes or gigabytes, as 4G"),
    "time": (r"\d+:[0-5]\d:[0-5]\d", "hours:minutes:seconds, as 12:00:00"),
}


@dataclass(frozen=True)
class Cluster:
    """Commands of a scheduler; each is split into words, then {id}, {count}, … are filled in.

    Attributes:
        submit: takes a script and prints the id of its job.
        job_id: regular expression whose first group is the id in what it prints.
        named: words that give the job its {name}.
        output: words that name a {folder} for what the scheduler itself has to say.
        array: words that make {count} tasks of a job.
        array_most: the same, with at most {most} of them at once.
        index: environment variable that tells a task its number, from 1.
        after: words that let a job wait until {ids} ended well.
        between_ids: stands between two of them.
        query: prints something while {id} is in the queue.
        gone: regular expression of what it says on stderr of a job that it no longer knows.
        cancel: asks the job {id} to end: SIGTERM, later SIGKILL.
        launch: words in front of a command that runs once on each of {nodes} nodes with {cpu} CPUs;
            for jobs that ask for the resource `nodes`.
        resources: words for each resource, {} for its value.
        defaults: resources of `all` programs, or of one by its name, such as train_asr.
        hosts: of ssh, each for one task at a time; a host that stands twice takes two.
        poll_seconds: between two looks at which tasks have ended.
        query_seconds: between two questions to the queue.
        lost_seconds: how long after its end a job's exit code may take to be seen here.
    """

    submit: str = ""
    job_id: str = r"(\S+)"
    named: str = ""
    output: str = ""
    array: str = ""
    array_most: str = ""
    index: str = ""
    after: str = ""
    between_ids: str = ":"
    query: str = ""
    gone: str = ""
    cancel: str = ""
    launch: str = ""
    resources: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, dict[str, str | int]] = field(default_factory=dict)
    hosts: tuple[str, ...] = ()
    poll_seconds: float = 1.0
    query_seconds: float = 10.0
    lost_seconds: float = 30.0

    def __post_init__(self):
        if self.index and not re.fullmatch(r"[A-Za-z_]\w*", self.index):
            raise ValueError(f"index: '{self.index}' is no name of a variable")
        for name, pattern in (("job_id", self.job_id), ("gone", self.gone)):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{name}: '{pattern}' is no regular expression: {error}") from None
        for host in self.hosts:
            if not host or host.startswith("-"):
                raise ValueError(f"hosts: '{host}' is no host")

    def resources_of(self, program: str, asked: Mapping[str, str]) -> dict[str, str]:
        """Return the resources of a program's job: the defaults, and over them those `asked` for.

        Raises:
            InputError: a resource that this cluster does not have, or a value of another form.
        """
        merged = {**self.defaults.get("all", {}), **self.defaults.get(program, {}), **asked}
        resources = {name: str(value) for name, value in merged.items()}
        for name, value in resources.items():
            if name not in self.resources:
                raise unknown_name("resource", name, self.resources, where="--resource")
            pattern, expected = _FORMS.get(name, (r"[^\s-]\S*", "text without blanks"))
            if not re.fullmatch(pattern, value):
                raise InputError(f"{name}={value}: expected {expected}", where="--resource")
        return resources

    def flags(self, resources: Mapping[str, str]) -> list[str]:
        """Return the words that ask for the resources; a gpu of 0 asks for nothing."""
        return [
            word
            for name, value in resources.items()
            if (name, value) != ("gpu", "0")
            for word in filled(self.resources[name], **{"": value})
        ]


def filled(template: str, **values: str | int) -> list[str]:
    """Return the words of a template with each {key} replaced by its value."""

    def value_of(match: re.Match) -> str:
        return str(values[match[1]])

    return [re.sub(r"\{(\w*)\}", value_of, word) for word in shlex.split(template)]


def load_cluster(backend: str, file: Path | None = None) -> Cluster:
    """Return the cluster of a backend: its YAML in utils/cluster, or the `file` in place of it."""
    return load_config(SHIPPED / f"{backend}.yaml" if file is None else file, Cluster)
