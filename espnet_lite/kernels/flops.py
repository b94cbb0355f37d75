"""What our operators cost, for torch.utils.flop_counter.FlopCounterMode(custom_mapping=...)."""

from collections.abc import Callable

import torch

from espnet_lite.kernels.local_attention import local_attention_flops

# Operator → FLOPs (2 × MACs) from the shapes of its tensors and its other arguments. Operators, not
# their overloads (`.default`): those torch does not find.
FLOP_FORMULAS: dict[torch._ops.OpOverloadPacket, Callable[..., int]] = {
    torch.ops.espnet_lite.local_attention: local_attention_flops,
}
