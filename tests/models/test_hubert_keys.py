"""HuBERT's names in other toolkits: onto all of ours and back, against torchaudio's real ones."""

import json
import math
from pathlib import Path

import pytest
import torch

from espnet_lite.config import from_plain
from espnet_lite.errors import InputError
from espnet_lite.models.hubert import HubertConfig, HubertModel
from espnet_lite.models.hubert_keys import LAYOUTS, detect_layout, from_foreign, to_foreign

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden" / "torchaudio_hubert_keys.json").read_text()
)
CONFIGS = {
    "base": {"front_end": {"name": "waveform"}, "encoder": {"name": "hubert_base"}},
    "large": {
        "front_end": {"name": "waveform", "norm": "layer"},
        "encoder": {"name": "hubert_large"},
    },
}


def our_state(size: str, *, clusters: int = 100, without: tuple[str, ...] = ()) -> dict:
    """Return the state dict of a full model, without memory for its numbers."""
    with torch.device("meta"):
        model = HubertModel(from_plain(HubertConfig, CONFIGS[size]), clusters=clusters)
    state = model.state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith(without)}


def golden_state(name: str) -> dict:
    """Return the state dict of one of torchaudio's models, without memory for its numbers."""
    return {key: torch.empty(shape, device="meta") for key, shape in GOLDEN[name].items()}


def fairseq_shapes() -> dict[str, list[int]]:
    """Return names and shapes of fairseq's HubertModel in hubert_base_librispeech.yaml, with 500
    units; written down from fairseq 0.12.2's models/hubert/hubert.py, models/wav2vec/wav2vec2.py
    and modules/multihead_attention.py."""
    shapes = {"mask_emb": [768], "label_embs_concat": [504, 256]}
    linears = {"post_extract_proj": (768, 512), "final_proj": (256, 768)}
    norms = {"layer_norm": 512, "encoder.layer_norm": 768, "feature_extractor.conv_layers.0.2": 512}
    for layer in range(12):
        block = f"encoder.layers.{layer}"
        linears |= {f"{block}.self_attn.{x}_proj": (768, 768) for x in ("k", "v", "q", "out")}
        linears |= {f"{block}.fc1": (3072, 768), f"{block}.fc2": (768, 3072)}
        norms |= {f"{block}.{x}": 768 for x in ("self_attn_layer_norm", "final_layer_norm")}
    for name, (rows, columns) in linears.items():
        shapes |= {f"{name}.weight": [rows, columns], f"{name}.bias": [rows]}
    for name, size in norms.items():
        shapes |= {f"{name}.weight": [size], f"{name}.bias": [size]}
    for number, kernel in enumerate([10, 3, 3, 3, 3, 2, 2]):
        channels_in = 512 if number else 1
        shapes[f"feature_extractor.conv_layers.{number}.0.weight"] = [512, channels_in, kernel]
    pos_conv = "encoder.pos_conv.0"
    weight_norm = {f"{pos_conv}.weight_g": [1, 1, 128], f"{pos_conv}.weight_v": [768, 48, 128]}
    return {**shapes, f"{pos_conv}.bias": [768], **weight_norm}


def shapes_of(state: dict) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("golden", "size", "without"),
    [
        ("hubert_pretrain_base", "base", ()),
        ("hubert_large", "large", ("mask_embedding", "head.")),
    ],
)
def test_torchaudios_names_are_all_of_ours(golden, size, without):
    theirs = golden_state(golden)
    assert detect_layout(theirs) == "torchaudio"
    ours, left_out = from_foreign(theirs, "torchaudio")
    assert left_out == []
    assert shapes_of(ours) == shapes_of(our_state(size, without=without))
    back = {name.removeprefix("wav2vec2."): shape for name, shape in GOLDEN[golden].items()}
    assert shapes_of(to_foreign(ours, "torchaudio")) == back


def test_base_has_as_many_parameters_as_published():
    state = our_state("base", without=("head.",))
    assert sum(math.prod(tensor.shape) for tensor in state.values()) == 94_371_712


def test_fairseqs_names_are_all_of_ours():
    shapes = fairseq_shapes()
    theirs = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    assert detect_layout(theirs) == "fairseq"
    ours, left_out = from_foreign(theirs, "fairseq")
    assert left_out == []
    assert shapes_of(ours) == shapes_of(our_state("base", clusters=500))
    assert len(ours) == len(theirs)
    back = shapes_of(to_foreign(ours, "fairseq"))
    assert back.pop("label_embs_concat") == [500, 256]
    del shapes["label_embs_concat"]
    assert back == shapes


@pytest.mark.parametrize("size", ["base", "large"])
def test_fairseqs_names_become_what_torchaudio_makes_of_them(size):
    """Its import of fairseq's models pairs the two layouts, and we only know each for itself."""
    pairs = GOLDEN["fairseq_to_torchaudio"][size]
    numbered = {key: torch.tensor(float(n)) for n, key in enumerate(pairs)}
    ours, _ = from_foreign(numbered, "fairseq")
    assert len(ours) == len(pairs)
    new_names = {"weight_g": "original0", "weight_v": "original1"}
    theirs = {
        name.replace("weight.original", "original"): int(tensor)
        for name, tensor in to_foreign(ours, "torchaudio").items()
    }
    for number, name in enumerate(pairs.values()):
        head, _, last = name.rpartition(".")
        if last in new_names:
            name = f"{head}.parametrizations.{new_names[last]}"
        assert theirs[name] == number
    assert list(to_foreign(ours, "fairseq")) == list(pairs)


@pytest.mark.parametrize("size", ["base", "large"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_ours_to_theirs_and_back_is_equal(layout, size):
    state = our_state(size, without=("head.",))
    foreign = to_foreign(state, layout)
    assert len(foreign) == len(state)
    assert detect_layout(foreign) == layout
    again, left_out = from_foreign(foreign, layout)
    assert list(again) == list(state) and left_out == []
    assert all(again[name] is state[name] for name in state)


@pytest.mark.parametrize("large", [False, True])
def test_hugging_faces_names_are_all_of_ours(large):
    transformers = pytest.importorskip("transformers")
    choices = {"feat_extract_norm": "layer", "do_stable_layer_norm": True} if large else {}
    sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096}
    sizes = {**sizes, "num_attention_heads": 16} if large else {}
    with torch.device("meta"):
        model = transformers.HubertModel(transformers.HubertConfig(**sizes, **choices))
    ours, left_out = from_foreign(model.state_dict(), "hugging_face")
    assert left_out == []
    expected = our_state("large" if large else "base", without=("head.",))
    assert shapes_of(ours) == shapes_of(expected)
    assert list(to_foreign(ours, "hugging_face")) == list(model.state_dict())


def test_old_names_of_the_weight_norm_are_known():
    for layout, conv in (
        ("hugging_face", "encoder.pos_conv_embed.conv"),
        ("torchaudio", "encoder.transformer.pos_conv_embed.conv"),
    ):
        state = {f"{conv}.weight_g": torch.zeros(1, 1, 4), f"{conv}.weight_v": torch.ones(4, 2, 4)}
        assert detect_layout(state) == layout
        ours, _ = from_foreign(state, layout)
        assert not ours["encoder.positions.magnitude"].any()
        assert ours["encoder.positions.direction"].all()


@pytest.mark.parametrize(
    ("layout", "prefix", "on_top"),
    [
        ("hugging_face", "hubert.", ["lm_head.weight", "lm_head.bias"]),
        ("torchaudio", "", ["aux.weight", "aux.bias"]),
        ("fairseq", "w2v_encoder.w2v_model.", ["w2v_encoder.proj.weight"]),
    ],
)
def test_what_was_fine_tuned_on_top_is_left_out(layout, prefix, on_top):
    state = our_state("base", without=("head.",))
    foreign = {f"{prefix}{name}": tensor for name, tensor in to_foreign(state, layout).items()}
    foreign |= {name: torch.zeros(32) for name in on_top}
    assert detect_layout(foreign) == layout
    ours, left_out = from_foreign(foreign, layout)
    assert list(ours) == list(state)
    assert left_out == on_top


def test_embeddings_of_fairseqs_special_symbols_are_dropped():
    rows = torch.arange(10.0)[:, None].expand(10, 3)
    ours, _ = from_foreign({"label_embs_concat": rows}, "fairseq")
    assert torch.equal(ours["head.embeddings"], rows[4:])


def test_the_norm_stands_where_the_encoder_has_it():
    state = {"encoder.layer_norm.weight": torch.ones(4)}
    for norm_before, name in ((True, "encoder.input_norm.weight"), (False, "encoder.norm.weight")):
        ours, _ = from_foreign(state, "hugging_face", norm_before=norm_before)
        assert list(ours) == [name]
        assert list(to_foreign(ours, "hugging_face")) == list(state)


def test_foreign_names_are_refused():
    with pytest.raises(InputError) as error:
        from_foreign({"encoder.layers.3.conv.weight": torch.zeros(4, 3)}, "fairseq", where="x.pt")
    expected = (
        "x.pt: parameter 'encoder.layers.3.conv.weight' of shape [4, 3] is none of a HuBERT's"
    )
    assert str(error.value) == f"{expected} as fairseq names them"
    with pytest.raises(InputError, match=r"x\.pt: no HuBERT .* of 1 parameters .* is 'a\.weight'"):
        detect_layout({"a.weight": torch.zeros(1)}, where="x.pt")
    with pytest.raises(InputError, match=r"'encoder\.sinusoids' is none of a HuBERT Base's"):
        to_foreign({"encoder.sinusoids": torch.zeros(1)}, "fairseq")
