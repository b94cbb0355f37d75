"""Names of resources become flags of a cluster, for every YAML that is shipped."""

import pytest

from espnet_lite.errors import InputError
from espnet_lite.jobs.backends import BACKENDS, find_backend
from espnet_lite.jobs.cluster import SHIPPED, filled, load_cluster


def test_every_backend_has_its_yaml():
    assert {path.stem for path in SHIPPED.glob("*.yaml")} == set(BACKENDS)
    for name in BACKENDS:
        cluster = load_cluster(name)
        assert {"cpu", "mem", "gpu", "time"} <= cluster.resources.keys()
        assert cluster.resources_of("train_asr", {"mem": "4G"})["mem"] == "4G"


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        (
            "slurm",
            "--cpus-per-task=2 --mem=8G --gres=gpu:1 --time=12:00:00 --signal=B:USR1@120"
            " --partition=fast",
        ),
        ("sge", "-pe smp 2 -l h_vmem=8G -l gpu=1 -l h_rt=12:00:00 -q fast"),
        ("pbs", "-l ncpus=2 -l mem=8Gb -l ngpus=1 -l walltime=12:00:00 -q fast"),
        ("local", ""),
    ],
)
def test_flags(backend, expected):
    cluster = load_cluster(backend)
    asked = {"cpu": "2", "mem": "8G", "gpu": "1", "time": "12:00:00", "partition": "fast"}
    resources = cluster.resources_of("any", asked)
    assert cluster.flags({name: resources[name] for name in asked}) == expected.split()


def test_defaults_of_all_of_a_program_and_what_is_asked(tmp_path):
    (tmp_path / "site.yaml").write_text(
        "resources: {cpu: '-c {}', mem: '--mem={}', gpu: '--gpus={}'}\n"
        "defaults: {all: {cpu: 1, gpu: 0}, train_asr: {cpu: 4, gpu: 2}}\n"
    )
    cluster = load_cluster("slurm", tmp_path / "site.yaml")
    assert cluster.flags(cluster.resources_of("decode_asr", {})) == ["-c", "1"]
    assert cluster.flags(cluster.resources_of("train_asr", {"cpu": "8"})) == [
        *("-c", "8"),
        "--gpus=2",
    ]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "cpus",
            "2",
            r"unknown resource 'cpus' \(did you mean 'cpu'\?\), expected one of: account,",
        ),
        ("cpu", "0", "cpu=0: expected a whole number from 1"),
        ("mem", "4 GB", "mem=4 GB: expected megabytes or gigabytes, as 4G"),
        ("time", "12h", "time=12h: expected hours:minutes:seconds, as 12:00:00"),
        ("partition", "-x", "partition=-x: expected text without blanks"),
        ("partition", "a b", "partition=a b: expected text without blanks"),
    ],
)
def test_resources_that_are_none(name, value, message):
    with pytest.raises(InputError, match=message):
        load_cluster("slurm").resources_of("any", {name: value})


def test_a_value_stays_one_word():
    assert filled("--to={folder}/x -v {}", **{"folder": "a b; rm -r *", "": "$(x) {folder}"}) == [
        "--to=a b; rm -r */x",
        "-v",
        "$(x) {folder}",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sumbit: qsub", r"unknown key 'sumbit' \(did you mean 'submit'\?\)"),
        ("job_id: '('", r"job_id: '\(' is no regular expression"),
        ("index: 'A B'", "index: 'A B' is no name of a variable"),
        ("hosts: [-oProxyCommand=x]", "hosts: '-oProxyCommand=x' is no host"),
    ],
)
def test_faults_in_the_yaml_of_a_site(tmp_path, text, message):
    (tmp_path / "site.yaml").write_text(text + "\n")
    with pytest.raises(InputError, match=message):
        load_cluster("slurm", tmp_path / "site.yaml")


def test_an_unknown_backend():
    with pytest.raises(InputError, match=r"unknown backend 'slrum' \(did you mean 'slurm'\?\)"):
        find_backend("slrum")
