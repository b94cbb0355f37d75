"""Sums of metrics."""

import json

import torch

from espnet_lite.train.averages import Averages


def test_means_weigh_each_batch_by_its_count():
    averages = Averages()
    averages.add({"loss": (torch.tensor(6.0), 3), "accuracy": (2.0, 4.0)})
    averages.add({"loss": (torch.tensor(2.0), 1), "extra": (torch.tensor(1), 0)})
    assert averages.means() == {"loss": 2.0, "accuracy": 0.5}


def test_state_goes_on_where_it_was():
    first = Averages()
    first.add({"loss": (0.1, 3)})
    second = Averages(json.loads(json.dumps(first.state())))
    for averages in (first, second):
        averages.add({"loss": (0.2, 1)})
    assert first.means() == second.means() == {"loss": (0.1 + 0.2) / 4}
