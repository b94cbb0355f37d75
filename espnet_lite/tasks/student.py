"""A quantized recognizer in training, beside the fixed ones that it learns from and is compared with."""

import torch
from torch import nn

from espnet_lite.data.utterance import Batch
from espnet_lite.features.spec_augment import SpecAugment
from espnet_lite.models.asr import AsrConfig, AsrModel, AsrOutputs
from espnet_lite.models.loss import Loss
from espnet_lite.nn.dropout import Dropout
from espnet_lite.nn.input_mask import InputMask
from espnet_lite.nn.masks import valid_mask
from espnet_lite.quantize.calibration import ScaleWatch
from espnet_lite.quantize.config import DistillationOptions
from espnet_lite.quantize.distillation import agreeing, divergence, hidden_error
from espnet_lite.quantize.switches import Switch, choose, choose_at_random, switched


class StudentAsr(AsrModel):
    """A recognizer whose training loss has a teacher's part.

    The fixed recognizers are no part of it: not of its parameters, its checkpoints or its training mode.
    The teacher is in evaluation mode but for the masks on its input, which are the student's: both see
    the same. An attention decoder is not quantized; it is trained on, and learns from the teacher's as
    the CTC head does.
    """

    def __init__(self, config: AsrConfig, *, vocab: int):
        super().__init__(config, vocab=vocab)
        self._fixed: tuple[AsrModel | None, ...] = ()  # in a tuple: nn.Module does not see them
        self._masks: tuple[nn.Module, ...] = ()
        self._distillation: DistillationOptions | None = None
        self._watch: ScaleWatch | None = None
        self._switches: list[list[Switch]] = []

    def prepare(
        self,
        *,
        teacher: AsrModel | None,
        reference: AsrModel | None,
        distillation: DistillationOptions | None,
        dropout: float | None,
    ) -> None:
        """Get ready to be trained; to be called once all quantizers are in their places.

        Args:
            teacher: what is learned from; None without distillation.
            reference: the floating-point recognizer that validation counts agreeing frames with; None:
                there is none.
            distillation: weights of the losses; None: the recognizer's own loss alone.
            dropout: in front end and encoder from now on; None leaves it.
        """
        self._fixed = (teacher, reference)
        for model in filter(None, self._fixed):
            model.eval().requires_grad_(False)
        of_teacher = () if teacher is None else teacher.modules()
        self._masks = tuple(m for m in of_teacher if isinstance(m, (SpecAugment, InputMask)))
        self._distillation = distillation
        self._watch = ScaleWatch(self)
        self._switches = [switches for _, switches in switched(self)]
        if dropout is not None:
            for module in (*self.front_end.modules(), *self.encoder.modules()):
                if isinstance(module, Dropout):
                    module.p = dropout

    def _apply(self, fn, recurse=True):
        """Take the fixed recognizers along to another device."""
        for model in filter(None, self._fixed):
            model._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def forward(self, batch: Batch) -> Loss:
        """Return the loss summed over utterances.

        Metrics are AsrModel's; in training `divergence` of the CTC outputs, nats a frame, and
        `hidden_error`, relative to the teacher's squares; in evaluation mode `agreement`, the part of
        frames whose most probable token is the reference's.
        """
        teacher, reference = self._fixed
        self._watch.check()
        options = self._distillation
        if self._switches and self.training:
            choose_at_random(self._switches, batch.seed)
        elif self._switches:
            choose(self)
        if not self.training:
            outputs = self.outputs(batch)
            loss = self.loss(outputs, batch)
            if reference is None:
                return loss
            lengths = outputs.encoded.lengths
            theirs = reference.encode(batch.waveform, batch.waveform_lengths)
            loss.metrics["agreement"] = agreeing(
                outputs.log_probs, reference.ctc_log_probs(theirs.encoded), lengths
            )
            return loss
        outputs = self.outputs(batch, return_layers=options is not None)
        loss = self.loss(outputs, batch)
        if options is None:
            return loss
        for mask in self._masks:
            mask.train()
        with torch.no_grad():
            theirs = teacher.outputs(batch, return_layers=True)
        for mask in self._masks:
            mask.eval()
        return self._distilled(loss, outputs, theirs, batch, options)

    def _distilled(
        self,
        loss: Loss,
        ours: AsrOutputs,
        theirs: AsrOutputs,
        batch: Batch,
        options: DistillationOptions,
    ) -> Loss:
        """Return the loss with the teacher's part; CTC and decoder share it as they share the loss."""
        lengths = ours.encoded.lengths
        frames = lengths.sum()
        valid = valid_mask(lengths, ours.log_probs.size(1))
        of_ctc = divergence(ours.log_probs, theirs.log_probs, valid)
        of_outputs = of_ctc
        if ours.decoder_logits is not None and theirs.decoder_logits is not None:
            tokens = valid_mask(batch.token_lengths + 1, ours.decoder_logits.size(1))
            of_decoder = divergence(
                ours.decoder_logits.log_softmax(dim=-1),
                theirs.decoder_logits.log_softmax(dim=-1),
                tokens,
            )
            weight = self.config.ctc_weight
            of_outputs = weight * of_ctc + (1 - weight) * of_decoder
        of_hidden = hidden_error(ours.encoded.layers, theirs.encoded.layers, lengths)
        total = (
            options.labels * loss.total + options.logits * of_outputs + options.hidden * of_hidden
        )
        loss.metrics["divergence"] = (of_ctc.detach(), frames)
        loss.metrics["hidden_error"] = (of_hidden.detach(), frames)
        loss.metrics["loss"] = (total.detach(), loss.count)
        return Loss(total, loss.count, loss.metrics)
