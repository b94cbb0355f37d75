"""The convolution module of Conformer and Squeezeformer, and depthwise convolution over time."""

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from espnet_lite.nn.batch_norm import BatchNorm

GATES = {"glu": (2, nn.GLU), "swish": (1, nn.SiLU)}


def convolve_depthwise(
    x: Float[Tensor, "batch time channels"],
    weight: Float[Tensor, "channels 1 kernel"],
    bias: Float[Tensor, "channels"] | None,
    *,
    stride: int,
) -> Float[Tensor, "batch time_out channels"]:
    """Return each channel convolved over time by its odd kernel, zeros around the frames, in
    ceil(time / stride) frames of which number i is centred at frame i · stride.

    As a 2-D convolution of an image one frame high, with the channels last: oneDNN then runs along the
    channels and nothing is copied, several times as fast as torch's Conv1d on a CPU.
    """
    channels, _, kernel = weight.shape
    # oneDNN 3.12 never comes back from a bf16 convolution of 9 to 16 channels along the width
    # (AVX-512): so few are convolved along the height, which takes a little longer.
    one = 2 if channels > 16 else 3  # of the image's two axes, the one of size 1
    strides, padding = (stride, 1), (kernel // 2, 0)
    convolved = functional.conv2d(
        x.transpose(1, 2).unsqueeze(one),
        weight.unsqueeze(one),
        bias,
        stride=strides if one == 3 else strides[::-1],
        padding=padding if one == 3 else padding[::-1],
        groups=channels,
    )
    return convolved.squeeze(one).transpose(1, 2)


class DepthwiseConvolution(nn.Conv1d):
    """Each channel is convolved over time by a kernel of its own, on (batch, time, channels)."""

    def __init__(self, channels: int, *, kernel: int, stride: int = 1):
        if kernel % 2 == 0:
            raise ValueError(f"kernel {kernel} is not odd")
        super().__init__(
            channels, channels, kernel, stride=stride, padding=kernel // 2, groups=channels
        )

    def forward(
        self,
        x: Float[Tensor, "batch time channels"],
        valid: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time_out channels"]:
        """Return ceil(time / stride) frames; those that are not `valid` are read as 0, as what lies
        beyond the batch."""
        if valid is not None:
            x = x.masked_fill(~valid[..., None], 0.0)
        return self.convolve(x, self.weight)

    def convolve(
        self, x: Float[Tensor, "batch time channels"], weight: Float[Tensor, "channels 1 kernel"]
    ) -> Float[Tensor, "batch time_out channels"]:
        """Return the convolution with any weights of the shape of its own."""
        (stride,) = self.stride
        return convolve_depthwise(x, weight, self.bias, stride=stride)


class ConvolutionModule(nn.Module):
    """Pointwise, gate, depthwise, BatchNorm, Swish, pointwise, without norm and residual.

    With the gate "glu" as Conformer has it (Gulati et al. 2020, 2005.08100, figure 2); with "swish",
    which is no gate and keeps all 2 · dim channels, as Squeezeformer has it (Kim et al. 2022, 2206.00888,
    section 3.2). A pointwise convolution is a Linear of each frame.
    """

    def __init__(self, dim: int, *, kernel: int, gate: str):
        super().__init__()
        divisor, activation = GATES[gate]
        channels = 2 * dim // divisor
        self.pointwise_in = nn.Linear(dim, 2 * dim)
        self.gate = activation()
        self.depthwise = DepthwiseConvolution(channels, kernel=kernel)
        self.norm = BatchNorm(channels)
        self.activation = nn.SiLU()
        self.pointwise_out = nn.Linear(channels, dim)

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        valid: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time dim"]:
        """Return the module's output.

        Args:
            x: frames.
            valid: True for those that are not padding, or None where there is none. Padding is
                convolved as 0, as what lies beyond the batch, and counts in no statistics.
        """
        x = self.gate(self.pointwise_in(x))
        x = self.activation(self.norm(self.depthwise(x, valid), valid))
        return self.pointwise_out(x)
