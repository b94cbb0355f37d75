"""A front end of convolutions over the waveform that hand integers on: what lies between two of them is
never a float in memory, as activation and codes are made by the kernel that multiplies."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from espnet_lite.encoders.waveform import WaveformFrontEnd, convolved_lengths, prepared
from espnet_lite.kernels.waveform_convolution import NormedConvolution
from espnet_lite.nn.channel_norm import ChannelNorm
from espnet_lite.runtime.fused_blocks import norm_of
from espnet_lite.runtime.kernel_modules import (
    codes_of,
    low_bit_conv1d,
    low_bit_linear,
    multiplies_codes,
)
from espnet_lite.runtime.quantized import IntegerConv1d


class FusedWaveformFrontEnd(nn.Module):
    """In the place of a WaveformFrontEnd with the norm of HuBERT Base."""

    def __init__(self, module: WaveformFrontEnd):
        super().__init__()
        self.config, self.grid, self.sample_rate = module.config, module.grid, module.sample_rate
        first, *others = (each.convolution for each in module.convolutions)
        rules = [codes_of(layer.input)[0] for layer in others]
        gives = [*rules[1:], None]
        norm = module.convolutions[0].norm
        is_integer = isinstance(first, IntegerConv1d)
        has_input = is_integer and first.input is not None
        self.first = NormedConvolution(
            first.weight.data[:, 0],
            stride=self.config.convolutions[0][2],
            norm_weight=norm.weight.data,
            norm_bias=norm.bias.data,
            epsilon=norm.epsilon,
            weight_scale=first.weight_scale if is_integer else None,
            codes=codes_of(first.input)[0] if has_input else None,
            gives=rules[0] if rules else None,
        )
        self.others = [
            low_bit_conv1d(layer, activation="gelu", gives=rule)
            for layer, rule in zip(others, gives, strict=True)
        ]
        self.norm, self.projection, self.product = module.norm, module.projection, None
        if multiplies_codes(module.projection):
            self.product = low_bit_linear([module.projection], norm=norm_of(module.norm))
            self.projection = None

    @staticmethod
    def fits(module: WaveformFrontEnd) -> bool:
        """Return whether all convolutions but the first, which may, multiply integers."""
        first, *others = module.convolutions
        return (
            isinstance(first.norm, ChannelNorm)
            and all(isinstance(each.norm, nn.Identity) for each in others)
            and all(
                isinstance(each.convolution, IntegerConv1d) and each.convolution.has_codes
                for each in others
            )
        )

    def local(
        self,
        waveform: Float[Tensor, "batch samples"],
        waveform_lengths: Int[Tensor, "batch"],
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "batch time local_dim"], Int[Tensor, "batch"]]:
        """Return what the convolutions make of the waveform; `generator` is not used."""
        lengths = waveform_lengths
        frames = []
        for _, kernel, stride in self.config.convolutions:
            lengths = convolved_lengths(lengths, kernel=kernel, stride=stride)
            frames.append(lengths)
        waveform = prepared(waveform, waveform_lengths, self.config, self.grid)
        x = self.first(waveform, frames[0])
        for layer in self.others:
            x = layer(x)
        return x, lengths

    def project(self, x: Float[Tensor, "batch time local_dim"]) -> Float[Tensor, "batch time dim"]:
        """Return the encoder's input for the output of `local`."""
        return self.projection(self.norm(x)) if self.product is None else self.product(x)

    def forward(
        self,
        waveform: Float[Tensor, "batch samples"],
        waveform_lengths: Int[Tensor, "batch"],
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "batch time dim"], Int[Tensor, "batch"]]:
        """Return frames and their lengths."""
        x, lengths = self.local(waveform, waveform_lengths, generator)
        return self.project(x), lengths
