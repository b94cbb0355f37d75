"""The user's mistakes end in one line and exit code 2, everything else keeps its traceback."""

import pytest

from espnet_lite.errors import InputError, reports_input_errors, unknown_name


def test_place_message_and_fix_stand_in_one_line():
    error = InputError("two\n  words 7", where="a.txt:3", fix="run  b")
    assert str(error) == "a.txt:3: two words 7; run b"
    assert str(InputError("alone")) == "alone"


def test_input_error_becomes_one_line_and_exit_code_2(capsys):
    @reports_input_errors
    def main(argv):
        raise InputError("rate 8000 Hz, expected 16000 Hz", where=argv)

    assert main("utt1") == 2
    captured = capsys.readouterr()
    assert captured.err == "error: utt1: rate 8000 Hz, expected 16000 Hz\n"
    assert captured.out == ""


def test_any_other_exception_passes_and_a_result_too():
    @reports_input_errors
    def main(value):
        if value < 0:
            raise ValueError("a fault of the toolkit")
        return value

    assert main(75) == 75
    with pytest.raises(ValueError, match="a fault of the toolkit"):
        main(-1)


def test_unknown_name_gives_the_nearest_and_all_known():
    error = unknown_name("encoder", "transfomer", {"transformer": 1, "conformer": 2}, where="k")
    assert str(error) == (
        "k: unknown encoder 'transfomer' (did you mean 'transformer'?), "
        "expected one of: conformer, transformer"
    )
    assert "did you mean" not in str(unknown_name("encoder", "xyz", ["transformer"]))
