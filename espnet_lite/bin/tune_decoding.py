"""Choose the weights of a decoding config on a dev set: try a grid, print the error rates, keep the best.

    python -m espnet_lite.bin.tune_decoding --model models/asr.esp --lm exp/lm_ngram_char/lm.esp \\
        --config conf/decode_ctc_beam_ngram.yaml --data_dir dump/dev --utterances 200 \\
        --grid lm_weight=0.2,0.4,0.6,0.8 --grid penalty=0,0.5,1.0 --output conf/decode_ctc_beam_ngram.yaml

The utterances are encoded once. Never tune on what is reported: the test sets.
"""

import itertools
import json
import re
import sys
import time
from pathlib import Path

from espnet_lite.bin.arguments import command_line, parser
from espnet_lite.errors import InputError, reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Print a table of word error rates and write the config with the best values; return 0."""
    args = parser(__doc__)
    args.add_argument("--model", required=True, type=Path, help="packed model (*.esp)")
    args.add_argument("--lm", type=Path, help="language model, where the config needs one")
    args.add_argument("--config", required=True, type=Path, help="YAML, conf/decode_*.yaml")
    args.add_argument("--data_dir", required=True, type=Path, help="dump folder of a dev set")
    args.add_argument(
        "--utterances", type=int, metavar="N", help="so many, spread over the set (default: all)"
    )
    args.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="KEY=V,V,…",
        help="values to try of a key, e.g. lm_weight=0.2,0.4; every combination is tried",
    )
    args.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    args.add_argument("--output", type=Path, help="YAML to write: the config with the best values")
    args.add_argument("--table", type=Path, help="JSON to write: all that was tried")
    args.add_argument("--threads", type=int, help="of torch (default: as many as cores)")
    options = args.parse_args(argv)
    if options.utterances is not None and options.utterances < 1:
        raise InputError(f"{options.utterances}, expected 1 or more", where="--utterances")

    import torch

    from espnet_lite.data.data_dir import read_data_dir
    from espnet_lite.decode.config import load_decode_config
    from espnet_lite.decode.language_model import load_language_model
    from espnet_lite.decode.packed_decoder import load_decoder
    from espnet_lite.decode.tuning import Tuner, edges, parse_grid, spread, with_choice
    from espnet_lite.files import write_text
    from espnet_lite.numerics import use_fast_matmul
    from espnet_lite.runtime.packed_model import PackedModel
    from espnet_lite.tasks.training import recorded_command

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    use_fast_matmul(torch.device("cpu"))
    started = time.perf_counter()
    config = load_decode_config(options.config, options.overrides)
    grid = parse_grid(options.grid, config)
    configs = [with_choice(config, choice) for choice in grid]
    needs_lm = any(one.needs_lm for one in configs)
    if needs_lm and options.lm is None:
        raise InputError("a weight of a language model, but no model", fix="name it: --lm FILE")
    model = PackedModel.load(options.model)
    needs_decoder = any(one.needs_decoder for one in configs)
    tuner = Tuner(
        model,
        spread(read_data_dir(options.data_dir), options.utterances),
        batch_seconds=config.batch_seconds,
        decoder=load_decoder(options.model, dim=model.encoder.dim) if needs_decoder else None,
        lm=load_language_model(options.lm, model.tokenizer, config) if needs_lm else None,
    )
    print(f"{len(tuner.texts)} utterances encoded in {time.perf_counter() - started:.1f} s")
    tried = []
    for choice in grid:
        tried.append(tuner.try_out(config, choice))
        print(f"{_shown(choice)}: {tried[-1].wer:.2f} % WER", flush=True)
    best = min(tried, key=lambda one: one.errors)  # of equal ones the first
    print(f"\n{_table(tried)}\nbest: {_shown(best.choice)}, {best.wer:.2f} % WER")
    for key in edges(best.choice, grid):
        print(f"{key} {best.choice[key]:g} is at the edge of what was tried: try more beyond it")
    if options.table is not None:
        record = {
            "command": recorded_command(command_line("tune_decoding", argv)),
            "utterances": len(tuner.texts),
            "words": best.words,
            "tried": [{**one.choice, "errors": one.errors} for one in tried],
            "best": best.choice,
        }
        write_text(options.table, json.dumps(record, indent=1) + "\n")
    if options.output is not None:
        text = options.config.read_text(encoding="utf-8")
        write_text(options.output, _with_values(text, best.choice))
        print(f"{options.output}: written")
    return 0


def _shown(choice: dict) -> str:
    return ", ".join(f"{key} {value:g}" for key, value in choice.items()) or "as it is"


def _table(tried: list) -> str:
    """Return a table in Markdown: the last key across, the ones before it down."""
    *down, across = tried[0].choice or {"": 0}
    columns = list(dict.fromkeys(one.choice.get(across) for one in tried))
    head = [*(down or [across]), *(_number(value) for value in columns)]
    lines = [head, ["---"] * (len(head) - len(columns)) + ["---:"] * len(columns)]
    for values, group in itertools.groupby(
        tried, key=lambda one: [one.choice[key] for key in down]
    ):
        left = [f"{value:g}" for value in values] or ["WER"]
        lines.append([*left, *(f"{one.wer:.2f}" for one in group)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _with_values(text: str, choice: dict) -> str:
    """Return a YAML text with the values of its keys changed, and with those that it lacks behind."""
    for key, value in choice.items():
        line = f"{key}: {value:g}" if isinstance(value, int) else f"{key}: {float(value)!r}"
        text, count = re.subn(rf"(?m)^{key}:[^#\n]*?(?=\s*(#|$))", line, text)
        if not count:
            text = f"{text.rstrip()}\n{line}\n"
    return text


if __name__ == "__main__":
    sys.exit(main())
