"""Every token type in a packed file: read from its header and used by greedy decoding."""

import pytest
import torch

from espnet_lite.decode.greedy import ctc_greedy
from espnet_lite.runtime.format import write_packed
from espnet_lite.runtime.packed_model import PackedModel
from espnet_lite.text.tokenizer import TOKENIZERS, train_tokenizer

LINES = ["GO NO GO <n>", "ÄRGER 日本 NO NO", "HELLO WORLD GO ON AND ON THEN SING ALONG"]
PRONUNCIATIONS = {word: tuple(word) for line in LINES for word in line.split() if word != "<n>"}
TEXT = "GO NO <n> ÄRGER 日本"
WRITTEN = {"phone": "G O N O <n> Ä R G E R 日 本"}


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_a_tokenizer_travels_in_the_header_and_reads_greedy_paths(tmp_path, header, kind):
    tokenizer = train_tokenizer(
        kind,
        LINES,
        vocab_size={"bpe": 27}.get(kind),
        nlsyms=["<n>"],
        pronunciations=PRONUNCIATIONS if kind == "phone" else None,
    )
    plain = {
        **header,
        "architecture": header["architecture"] | {"vocab": tokenizer.vocab},
        "tokenizer": tokenizer.to_dict(),
    }
    path = tmp_path / "x.esp"
    write_packed(path, dict(PackedModel(plain).state_dict()), plain)
    packed = PackedModel.load(path).tokenizer
    assert packed.to_dict() == tokenizer.to_dict()
    ids = packed.encode(TEXT)
    assert ids == tokenizer.encode(TEXT)
    frames = [token for index in ids for token in (packed.blank_id, index, index)]
    log_probs = torch.eye(packed.vocab)[torch.tensor([frames])].log_softmax(dim=-1)
    [tokens] = ctc_greedy(log_probs, torch.tensor([len(frames)]))
    assert packed.decode(tokens) == WRITTEN.get(kind, TEXT)
