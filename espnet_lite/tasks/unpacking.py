"""From a packed recognizer in floating point back to an experiment folder, as training left it but for
rounding: a teacher for few bits, long after its experiment is gone."""

import json
from pathlib import Path

from espnet_lite.config import dump_yaml, load_config, to_plain
from espnet_lite.errors import InputError
from espnet_lite.files import atomic_folder
from espnet_lite.models.asr import AsrModel
from espnet_lite.models.pretrained import compare_architectures, read_pretrained
from espnet_lite.runtime.format import mappings_of, read_header
from espnet_lite.tasks.asr import TrainAsrConfig
from espnet_lite.text.tokenizer import Tokenizer
from espnet_lite.train.checkpoint import save_weights


def unpack_recognizer(
    path: Path, *, config_file: Path, overrides: list[str], expdir: Path
) -> AsrModel:
    """Write the experiment folder of a packed recognizer and return its model, in evaluation mode.

    Args:
        path: packed in bf16 or fp32.
        config_file: conf/train_asr*.yaml that it was trained by: what a packed file does not say
            (batches, augmentation) is taken from there.
        overrides: key=value of it.
        expdir: gets config.yaml, model.safetensors, model.json and tokenizer/.

    Raises:
        InputError: integers, another architecture than the configuration's, weights that are missing,
            as those of a decoder that was not packed, or a folder that is there already.
    """
    if expdir.exists():
        raise InputError("is there already", where=expdir, fix="name a new folder")
    weights, architecture = read_pretrained(path)
    header = mappings_of(read_header(path), "tokenizer", "record", where=path)
    tokenizer = Tokenizer.from_dict(header["tokenizer"], where=path)
    config = load_config(config_file, TrainAsrConfig, overrides)
    compare_architectures(to_plain(config.model), architecture, config.model, where=path)
    model = AsrModel(config.model, vocab=tokenizer.vocab)
    expected = model.state_dict()
    for name in sorted(expected.keys() ^ weights.keys()):
        side = "lacks it" if name in expected else "has it, the configuration's model does not"
        raise InputError(
            f"weight '{name}': the packed model {side}",
            where=path,
            fix=f"give the configuration it was trained by, not {config_file}; for a model packed "
            "without its decoder --set model.decoder=null",
        )
    for name, tensor in expected.items():
        if weights[name].shape != tensor.shape:
            shapes = f"{list(weights[name].shape)}, not {list(tensor.shape)}"
            raise InputError(f"weight '{name}' has the shape {shapes}", where=path)
    model.load_state_dict(weights)
    with atomic_folder(expdir) as folder:
        (folder / "config.yaml").write_text(dump_yaml(to_plain(config)), encoding="utf-8")
        save_weights(folder / "model.safetensors", model.state_dict())
        record = json.dumps(header["record"], indent=1, sort_keys=True)
        (folder / "model.json").write_text(record + "\n", encoding="utf-8")
        tokenizer.save(folder / "tokenizer")
    return model.eval()
