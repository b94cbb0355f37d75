"""The training of a Transformer language model: batch of sentences → Loss."""

import torch
from torch import nn
from torch.nn import functional

from espnet_lite.data.text_loader import TextBatch
from espnet_lite.data.utterance import TOKEN_PADDING
from espnet_lite.lm.transformer import TransformerLm, TransformerLmConfig
from espnet_lite.models.asr import decoder_tokens
from espnet_lite.models.loss import Loss


class LmModel(nn.Module):
    """batch → Loss; the language model itself is `lm`."""

    def __init__(self, config: TransformerLmConfig, *, vocab: int, label_smoothing: float = 0.0):
        super().__init__()
        self.lm = TransformerLm(config, vocab=vocab)
        self.vocab = vocab
        self.label_smoothing = label_smoothing

    def forward(self, batch: TextBatch) -> Loss:
        """Return the loss summed over tokens, <sos/eos> at the end of each sentence counted.

        Metrics: `loss`, nats per token, and `accuracy`. In eval mode nothing is smoothed: exp(loss) is
        the perplexity.
        """
        tokens_in, tokens_out = decoder_tokens(batch.tokens, batch.token_lengths, self.vocab - 1)
        logits = self.lm(tokens_in, batch.token_lengths + 1).float()
        loss = functional.cross_entropy(
            logits.transpose(1, 2),
            tokens_out,
            ignore_index=TOKEN_PADDING,
            label_smoothing=self.label_smoothing if self.training else 0.0,
            reduction="sum",
        )
        count = int((batch.token_lengths + 1).sum())
        known = tokens_out != TOKEN_PADDING
        correct = ((logits.argmax(dim=-1) == tokens_out) & known).sum()
        metrics = {"loss": (loss.detach(), count), "accuracy": (correct, count)}
        return Loss(loss, count, metrics)

    @torch.inference_mode()
    def log_prob(self, batch: TextBatch) -> float:
        """Return the log-probability of all sentences of a batch, their ends included."""
        return -float(self(batch).total)
