"""Position-wise feed-forward block."""

from jaxtyping import Float
from torch import Tensor, nn

from espnet_lite.nn.dropout import Dropout

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "swish": nn.SiLU}


class FeedForward(nn.Module):
    """Linear, activation, dropout, Linear."""

    def __init__(self, dim: int, *, hidden: int, dropout: float = 0.0, activation: str = "relu"):
        super().__init__()
        self.expand = nn.Linear(dim, hidden)
        self.activation = ACTIVATIONS[activation]()
        self.dropout = Dropout(dropout)
        self.contract = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        """Return the block's output, without the residual."""
        return self.contract(self.dropout(self.activation(self.expand(x))))
