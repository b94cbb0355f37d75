"""The thread behind the loader: order, errors, and that it ends with its consumer."""

import threading
import time

import pytest

from espnet_lite.data.read_ahead import read_ahead


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "read_ahead"]


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_items_come_in_order(depth):
    assert list(read_ahead(range(50), depth=depth)) == list(range(50))
    assert not threads()


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_an_error_comes_after_the_items_before_it(depth):
    def items():
        yield 1
        yield 2
        raise KeyError("the third")

    seen = []
    with pytest.raises(KeyError, match="the third"):
        for item in read_ahead(items(), depth=depth):
            seen.append(item)
    assert seen == [1, 2]
    assert not threads()


def test_leaving_early_ends_the_thread():
    made = []

    def items():
        for number in range(1000):
            made.append(number)
            yield number

    ahead = read_ahead(items(), depth=2)
    assert next(ahead) == 0
    assert len(threads()) == 1
    ahead.close()
    assert not threads()
    assert len(made) <= 5  # one taken, two waiting, one in hand


def test_it_reads_no_further_ahead_than_asked():
    made = []

    def items():
        for number in range(100):
            made.append(number)
            yield number

    ahead = read_ahead(items(), depth=3)
    next(ahead)
    time.sleep(0.3)
    assert len(made) <= 5
    ahead.close()
