"""Words with a task's number in them, and the tasks of a command line."""

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_lite.errors import InputError
from espnet_lite.jobs.array import TASK, Array, Word, in_one_line, numbered, parse_tasks, words

# No word of a command line holds a NUL byte.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=30)


def test_a_number_stands_wherever_the_name_does():
    word = numbered("exp/JOB/log.JOB.txt", "JOB")
    assert word.at(12) == "exp/12/log.12.txt"
    assert numbered("exp/JOB", None).at(12) == "exp/JOB"
    assert [word.at(3) for word in words("a JOB", TASK)] == ["a JOB", "3"]


@settings(max_examples=30, deadline=None)
@given(st.lists(texts, min_size=1, max_size=4))
def test_bash_hands_over_every_word_as_it_is(pieces):
    word = Word(tuple(pieces))
    said = subprocess.run(
        ["bash", "-c", f"JOB=7; printf '%s\\0' {word.in_bash()}"], capture_output=True, check=True
    )
    assert said.stdout.decode() == word.at(7) + "\0"


@settings(max_examples=30, deadline=None)
@given(st.lists(texts, min_size=1, max_size=4))
def test_a_command_in_one_line_is_the_same_command(command):
    line = in_one_line(command)
    assert "\n" not in line
    said = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    assert said.stdout.decode() == "".join(f"{word}\0" for word in command)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("JOB=1:8", ("JOB", range(1, 9))),
        ("N=3", ("N", range(3, 4))),
        ("job=1:8", None),
        ("JOB=1:8x", None),
        ("exp/log", None),
    ],
)
def test_tasks_of_a_command_line(text, expected):
    assert parse_tasks(text) == expected


@pytest.mark.parametrize("text", ["JOB=0:3", "JOB=4:3", "JOB=0"])
def test_numbers_that_are_none(text):
    with pytest.raises(InputError, match=f"{text}: expected rising numbers from 1, as JOB=1:8"):
        parse_tasks(text)


@pytest.mark.parametrize("name", ["", "1st", "a b", "$(x)", "-n"])
def test_names_that_no_queue_takes(name, tmp_path):
    with pytest.raises(InputError, match="is no name of a job"):
        Array(name=name, command=words("true"), log=Word(("log",)), folder=tmp_path)
