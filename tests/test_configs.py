"""Every YAML of the recipes loads with its program's schema, and says in its header what it is for."""

from pathlib import Path

import pytest

from espnet_lite.config import load_config
from espnet_lite.decode.config import DecodeConfig
from espnet_lite.runtime.pack import PackPolicy
from espnet_lite.tasks.asr import TrainAsrConfig

EGS = Path(__file__).parents[1] / "egs"
SCHEMAS = {"train_asr": TrainAsrConfig, "quantize": PackPolicy, "decode": DecodeConfig}
CONFIGS = sorted(EGS.glob("*/*/conf/**/*.yaml"))


def schema_of(path: Path) -> type:
    kinds = [kind for kind in SCHEMAS if path.stem == kind or path.stem.startswith(f"{kind}_")]
    assert len(kinds) == 1, f"{path}: its name begins with none of {', '.join(SCHEMAS)}"
    return SCHEMAS[kinds[0]]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(EGS)))
def test_config_loads_and_has_a_header(path):
    load_config(path, schema_of(path))
    assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize(
    "recipe", sorted(EGS.glob("*/*/run.sh")), ids=lambda path: str(path.parent)
)
def test_recipe_has_the_configs_its_run_sh_names(recipe):
    words = recipe.read_text(encoding="utf-8").split()
    named = [word for word in words if word.startswith("conf/") and word.endswith(".yaml")]
    assert len(named) >= 3
    for name in named:
        assert (recipe.parent / name).is_file(), name
