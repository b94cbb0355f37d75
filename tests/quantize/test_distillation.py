"""Distances between student and teacher, by hand and on valid frames only."""

import pytest
import torch

from espnet_lite.quantize.distillation import agreeing, divergence, hidden_error


def test_divergence_is_torchs_and_padding_counts_nothing():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 2, 5, 7).log_softmax(dim=-1)
    valid = torch.arange(5) < torch.tensor([5, 2])[:, None]
    expected = torch.nn.functional.kl_div(student, teacher, reduction="none", log_target=True)
    expected = expected[valid].sum()
    torch.testing.assert_close(divergence(student, teacher, valid), expected)
    student[1, 2:] = teacher[1, 3:4] = -1e30
    torch.testing.assert_close(divergence(student, teacher, valid), expected)
    assert divergence(teacher, teacher, valid).item() == 0


def test_hidden_error_by_hand():
    teacher = [torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [9.0, 9.0]]])] * 2
    student = [teacher[0].clone(), teacher[1].clone()]
    student[0][0, 0, 0] = (
        0.0  # of a square sum of 2, 1: ½, and ½ in the mean of two layers; 2 frames
    )
    student[1][1, 0, 1] = 1.0  # of 4, 1: ¼; 1 frame
    student[1][1, 1] = 5.0  # padding
    lengths = torch.tensor([2, 1])
    found = hidden_error(student, teacher, lengths)
    assert found.item() == pytest.approx(2 * 0.5 / 2 + 1 * 0.25 / 2)


def test_gradients_at_padding_are_zero_even_where_it_is_large():
    student = torch.full((1, 3, 2), 1e30, requires_grad=True)
    hidden_error([student], [torch.ones(1, 3, 2)], torch.tensor([0])).backward()
    assert not student.grad.any()


def test_agreeing_frames_are_counted_on_valid_ones():
    student = torch.tensor([[[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]])
    teacher = torch.tensor([[[0.6, 0.4], [0.9, 0.1], [0.9, 0.1]]])
    assert [int(n) for n in agreeing(student, teacher, torch.tensor([2]))] == [1, 2]
