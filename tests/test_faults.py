"""The short form of tools/benchmarks/faults.py: a tiny recipe, killed three times on its way."""

import collections
import importlib.util
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "tools" / "benchmarks" / "faults.py"


@pytest.mark.slow
def test_a_recipe_that_is_killed_ends_as_one_that_is_not(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--folder", tmp_path / "faults", "--kills", "3"],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [kills] = re.findall(r"^chain 1: (\d) kills .* all files the same$", done.stdout, re.M)
    assert int(kills) >= 2  # the last may come after the end
    assert "1 chains complete, 0 files differ" in done.stdout


def test_every_stage_gets_its_share_of_the_kills():
    spec = importlib.util.spec_from_file_location("faults_benchmark", SCRIPT)
    faults = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = faults
    spec.loader.exec_module(faults)
    lasting = {name: 1.0 + n for n, name in enumerate(faults.STAGES)}
    hands = faults.deal(lasting, random.Random(0), chains=10, kills=11)
    assert [len(hand) for hand in hands] == [11] * 10
    for hand in hands:
        places = [faults.STAGES.index(name) for name, _ in hand]
        assert places == sorted(places)
    shares = collections.Counter(name for hand in hands for name, _ in hand)
    assert shares.keys() == set(faults.STAGES) - {"start"}
    assert set(shares.values()) == {11}  # 110 kills, ten stages
    assert all(0 <= seconds <= lasting[name] for hand in hands for name, seconds in hand)
