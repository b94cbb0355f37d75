"""Profiles of encoders at their published sizes: parameters and MACs, nothing timed or trained.

    PYTHONPATH=../../.. ../../../.venv/bin/python local/profile_sizes.py    then: ./run.sh --stage profile

Conformer S, M, L and Squeezeformer XS to L as their papers give them, Sparseformer DN-S and SW-S as
this toolkit does, HuBERT Base and Large from the configurations of egs/librispeech; the subsampling has as
many channels as the encoder, no CTC head. One JSON for each in DIR/results/profile.
"""

import dataclasses
import sys
from pathlib import Path

from espnet_lite.bin import profile_model
from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors

RECIPE = Path(__file__).resolve().parents[1]


def overrides(config: object, *, separable: bool) -> list[str]:
    """Return `--set` options that make a configuration's encoder this one."""
    options = ["--set", f"model.front_end.channels={config.dim}"]
    if separable:
        options += ["--set", "model.front_end.separable=true"]
    for field in dataclasses.fields(config):
        options += ["--set", f"model.encoder.{field.name}={getattr(config, field.name)}"]
    return options


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Write one profile for each size."""
    args = parser(__doc__)
    args.add_argument("--results_dir", type=Path, default=RECIPE)
    folder = args.parse_args(argv).results_dir / "results" / "profile"

    from espnet_lite.encoders.conformer import CONFORMER_SIZES
    from espnet_lite.encoders.sparseformer import SPARSEFORMER_SIZES
    from espnet_lite.encoders.squeezeformer import SQUEEZEFORMER_SIZES

    families = {
        "conformer": CONFORMER_SIZES,
        "squeezeformer": SQUEEZEFORMER_SIZES,
        "sparseformer": SPARSEFORMER_SIZES,
    }
    models = {
        f"{family}_{size.lower().replace('-', '_')}": (
            RECIPE / "conf" / f"train_asr_{family}_10m.yaml",
            overrides(config, separable=family == "squeezeformer"),
        )
        for family, sizes in families.items()
        for size, config in sizes.items()
    }
    for size in ("base", "large"):
        conf = RECIPE.parents[1] / "librispeech" / "asr1" / "conf"
        models[f"hubert_{size}"] = (conf / f"pretrain_{size}.yaml", [])
    for name, (config, options) in models.items():
        given = ["--model", str(config), "--output", str(folder / f"{name}.json"), "--macs_only"]
        if code := profile_model.main([*given, *options]):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
