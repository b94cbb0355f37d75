"""Log-probabilities in windows against those of the whole recording."""

import pytest
import torch

from espnet_lite.decode.long_audio import log_probs_of
from espnet_lite.features.frame_grid import FrameGrid

GRID = FrameGrid(100, window_samples=6, shift_samples=4)


class LocalModel:
    """Each frame says what samples it sees, and how far before and after it `reach` frames see."""

    def __init__(self, reach: int):
        self.reach = reach
        self.longest = 0

    def log_probs(self, waveform, waveform_lengths):
        self.longest = max(self.longest, waveform.shape[1])
        frames = GRID.num_frames(waveform.shape[1])
        sums = waveform[0].unfold(0, 6, 4).sum(dim=1) if frames else torch.zeros(0)
        first = torch.zeros(self.reach)
        padded = torch.cat([first, sums, first])
        seen = padded.unfold(0, 2 * self.reach + 1, 1) if frames else torch.zeros(0, 1)
        return seen[None], torch.tensor([frames])


@pytest.mark.parametrize("samples", [0, 5, 6, 100, 399, 400, 401, 1234])
@pytest.mark.parametrize("window", [0.8, 1.0, 4.0])
def test_windows_with_enough_context_give_what_the_whole_gives(samples, window):
    waveform = torch.randn(samples, generator=torch.Generator().manual_seed(samples))
    whole = LocalModel(2).log_probs(waveform[None], torch.tensor([samples]))[0][0]
    model = LocalModel(2)
    # two frames of context are 8 samples
    found = log_probs_of(model, waveform, GRID, window_seconds=window, context_seconds=0.08)
    assert found.shape == whole.shape
    assert torch.equal(found, whole)
    assert model.longest <= max(window * 100 + GRID.window_samples + 4, 1)


def test_short_audio_is_computed_whole():
    model = LocalModel(0)
    log_probs_of(model, torch.zeros(300), GRID, window_seconds=3.0)
    assert model.longest == 300
