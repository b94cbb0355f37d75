"""Import a HuBERT of Hugging Face, torchaudio or fairseq as an experiment folder of pre-training.

What stands in it, config.yaml and model.safetensors, is what train_hubert writes: fine-tune it, or
take units from its layers.
"""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Write `--output` and print what it holds; return 0."""
    args = parser(__doc__)
    args.add_argument(
        "--checkpoint",
        required=True,
        type=Path,
        help="folder of Hugging Face (config.json, model.safetensors), or .pt file of the others",
    )
    args.add_argument(
        "--format",
        default="auto",
        choices=["auto", "hugging_face", "torchaudio", "fairseq"],
        help="whose names its parameters have",
    )
    args.add_argument("--heads", type=int, help="of the attention, where the width does not tell")
    args.add_argument("--output", required=True, type=Path, help="experiment folder to make")
    options = args.parse_args(argv)

    from safetensors.torch import save

    from espnet_lite.config import dump_yaml
    from espnet_lite.files import atomic_folder
    from espnet_lite.models.hubert_import import import_hubert

    if options.output.exists():
        raise InputError(
            "exists, and a pre-training is not overwritten",
            where=options.output,
            fix="name another --output, or move it away",
        )
    layout_name = None if options.format == "auto" else options.format
    imported = import_hubert(options.checkpoint, layout_name=layout_name, heads=options.heads)
    source = f"# Imported from {options.checkpoint.name}, {imported.layout}.\n"
    with atomic_folder(options.output) as folder:
        text = source + dump_yaml({"model": imported.config})
        (folder / "config.yaml").write_text(text, encoding="utf-8")
        # Not save_file: its full disk is no OSError.
        (folder / "model.safetensors").write_bytes(save(imported.weights))
    encoder = imported.config["encoder"]
    size = sum(tensor.numel() for tensor in imported.weights.values())
    print(
        f"{options.output}: {encoder['name']}, {encoder['layers']} layers of {encoder['dim']}, "
        f"{size / 1e6:.2f} M parameters from {imported.layout}"
    )
    if imported.left_out:
        print(f"  left out what was fine-tuned on top: {', '.join(imported.left_out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
