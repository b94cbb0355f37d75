"""Configurations of language models: `kind` names the family, and so the schema of the whole file."""

from pathlib import Path

from espnet_lite.config import from_plain, read_overridden
from espnet_lite.errors import unknown_name
from espnet_lite.tasks.ngram import NgramConfig
from espnet_lite.tasks.transformer_lm import TrainTransformerLmConfig

KINDS = {"ngram": NgramConfig, "transformer": TrainTransformerLmConfig}
LmConfig = NgramConfig | TrainTransformerLmConfig


def load_lm_config(path: Path | str, overrides: list[str] | None = None) -> LmConfig:
    """Return the config of the kind that a YAML file and `key=value` overrides name.

    Raises:
        InputError: an unknown kind, a key that the kind does not have, a value out of range.
    """
    plain = read_overridden(path, overrides)
    kind = plain.get("kind", "ngram")
    if not isinstance(kind, str) or kind not in KINDS:
        raise unknown_name("kind", str(kind), KINDS, where=path)
    return from_plain(KINDS[kind], plain, where=path)
