"""Every YAML of the recipes loads with its program's schema, and says in its header what it is for."""

from pathlib import Path

import pytest
import torch

from espnet_lite.config import load_config, to_plain
from espnet_lite.decode.config import load_decode_config
from espnet_lite.models.asr import AsrModel
from espnet_lite.models.hubert import HubertModel
from espnet_lite.models.pretrained import load_pretrained_weights
from espnet_lite.quantize.config import QuantizeConfig
from espnet_lite.tasks.asr import TrainAsrConfig
from espnet_lite.tasks.hubert import PretrainConfig
from espnet_lite.tasks.lm import load_lm_config

EGS = Path(__file__).parents[1] / "egs"
SCHEMAS = {
    "pretrain": PretrainConfig,
    "train_asr": TrainAsrConfig,
    "quantize": QuantizeConfig,
    "decode": None,  # the method in the file names it
    "lm": None,  # its kind does
}
LOADERS = {"decode": load_decode_config, "lm": load_lm_config}
CONFIGS = sorted(EGS.glob("*/*/conf/**/*.yaml"))


def kind_of(path: Path) -> str:
    kinds = [kind for kind in SCHEMAS if path.stem == kind or path.stem.startswith(f"{kind}_")]
    assert len(kinds) == 1, f"{path}: its name begins with none of {', '.join(SCHEMAS)}"
    return kinds[0]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(EGS)))
def test_config_loads_and_has_a_header(path):
    kind = kind_of(path)
    if kind in LOADERS:
        LOADERS[kind](path)
    else:
        load_config(path, SCHEMAS[kind])
    assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize(
    ("recipe", "pretraining", "finetuning"),
    [
        ("mini", "pretrain", "train_asr"),
        ("mini", "pretrain_conformer", "train_asr_conformer"),
        ("mini", "pretrain_squeezeformer", "train_asr_squeezeformer"),
        ("mini", "pretrain_sparseformer", "train_asr_sparseformer"),
        ("an4", "pretrain", "train_asr_finetune"),
        ("an4", "pretrain", "train_asr"),
        ("mini_librispeech", "pretrain", "train_asr_1h"),
        ("mini_librispeech", "pretrain", "train_asr_5h"),
        ("mini_librispeech", "pretrain", "train_asr"),
        ("librispeech", "pretrain_base", "train_asr_10h"),
        ("librispeech", "pretrain_base_it2", "train_asr_10h"),
        ("librispeech", "pretrain_mel", "train_asr"),
    ],
)
def test_recognizer_takes_the_encoder_of_the_pretraining(recipe, pretraining, finetuning):
    conf = EGS / recipe / "asr1" / "conf"
    pretrain = load_config(conf / f"{pretraining}.yaml", PretrainConfig).model
    finetune = load_config(conf / f"{finetuning}.yaml", TrainAsrConfig).model
    # HuBERT Base is large and has no statistics, which are not computed on the device "meta".
    has_mel = pretrain.front_end.cmvn != "none"
    with torch.device("cpu" if has_mel else "meta"):
        hubert = HubertModel(pretrain, clusters=8)
        asr = AsrModel(finetune, vocab=8)

    load_pretrained_weights(
        asr, hubert.state_dict(), where=conf, pretrained_config=to_plain(pretrain)
    )

    if has_mel:
        weights = zip(asr.encoder.parameters(), hubert.encoder.parameters(), strict=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in weights)


@pytest.mark.parametrize(
    ("size", "transformer"), [("4m", "train_asr"), ("10m", "train_asr_transformer_10m")]
)
def test_encoders_to_compare_differ_in_nothing_else(size, transformer):
    """Parameters within 3 % of the Transformer's, the same data and training."""
    conf = EGS / "mini_librispeech" / "asr1" / "conf"
    reference = load_config(conf / f"{transformer}.yaml", TrainAsrConfig)
    others = sorted(conf.glob(f"train_asr_*_{size}.yaml"))
    assert len(others) >= 2
    for path in others:
        config = load_config(path, TrainAsrConfig)
        assert config.data == reference.data and config.train == reference.train, path
        count, expected = (
            sum(parameter.numel() for parameter in AsrModel(model, vocab=30).parameters())
            for model in (config.model, reference.model)
        )
        assert count == pytest.approx(expected, rel=0.03), path


@pytest.mark.parametrize(
    "recipe", sorted(EGS.glob("*/*/run.sh")), ids=lambda path: str(path.parent)
)
def test_recipe_has_the_configs_its_run_sh_names(recipe):
    words = recipe.read_text(encoding="utf-8").split()
    named = [word for word in words if word.startswith("conf/") and word.endswith(".yaml")]
    assert len(named) >= 3
    for name in named:
        assert (recipe.parent / name).is_file(), name
