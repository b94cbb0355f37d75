"""RESULTS.md, drawn from the rows alone: same rows, same bytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet_lite.errors import InputError
from espnet_lite.score.alignment import percent_text
from espnet_lite.score.bootstrap import DRAWS, bounds_text
from espnet_lite.score.efficiency import (
    machines,
    main_table,
    share_table,
    timing_table,
)
from espnet_lite.score.efficiency_figures import FigurePlan
from espnet_lite.score.pretraining import pretraining_rows
from espnet_lite.score.results import headline_kind, headline_unit, interval_of

DEFAULT_DECODING = "conf/decode_greedy.yaml"  # what run.sh decodes with unless told otherwise
STAR = "★"
ABSENT = "-"

_RTF = "RTF: seconds that one process computes for a second of audio."
# What the page says of its tables of scores, by the rate of their rows.
_COLUMNS = {
    "wer": "Columns are those of NIST sclite (Snt utterances, Wrd reference words; Corr, Sub, Del, "
    "Ins, WER in percent of the words, S.Err in percent of the utterances). CER counts the "
    f"space between words as a character; TER is over the model's own tokens. {_RTF}",
    "per": "PER is the phone error rate of a model that writes phones, no word error rate (Snt "
    "utterances, Phn phones of the reference words, each by its first pronunciation, or by the "
    "model's oov phone where it has none; Corr, Sub, Del, Ins, PER in percent of the phones, S.Err in percent of the utterances). WER and CER are "
    f"not defined for it. {_RTF}",
}

_SUMMARY = (
    "In brackets: the 95 % interval of the rate{drawn}. "
    "dev CTC loss: nats an utterance on the sets that chose the checkpoints, at the best checkpoint;"
    " it still tells rows apart where error rates are too high to compare."
)
_AGREEMENT = "frames as fp32, %"
_AGREEING = (
    f" {_AGREEMENT}: frames of those sets whose most probable token is that of the network in floating"
    " point which the model was made from."
)
_PRETRAINING = (
    "Units are k-means clusters; PNMI and purity are theirs with the phones of aligned speech that"
    " no training heard, silence counted as a phone. Accuracies are of the units of masked and of"
    " unmasked frames on the validation set."
)


_EFFICIENCY = (
    "What runs is front end, encoder and CTC head, no attention decoder: parameters, bytes (~: not"
    " packed, weights in bf16) and MACs are theirs. GMACs are those of SUPERB's 32 utterances"
    " ({seconds} s), mel filterbank included, FFT not; GMACs/s those of a second of their audio."
    " RTF is that of greedy decoding, one clip at a time in one thread, and peak MiB the memory of"
    " its process, with Python and torch. Rows of other decodings have no line here."
)
_ESTIMATES = (
    " TBOPs and GMACs·w/32 are estimates by bit counts and no speeds: MACs times the bits of both"
    " factors, and MACs times the bits of the weights over 32."
)


def results_page(
    rows: Mapping[str, Mapping],
    *,
    pretrainings: Sequence[Mapping] = (),
    efficiency: Sequence[Mapping] = (),
    figures: Sequence[FigurePlan] = (),
    notes: str | None = None,
) -> str:
    """Return the Markdown of a recipe's results.

    The headline row, bold and starred, has the lowest WER on the first dev set, never on a test
    set. Rows stand in the order of that WER, ties by name. Models of phones, which have a PER and
    no WER, come after all others in the order of their PER; the headline is one only where there
    is no other.

    Args:
        rows: `{row name: row}`, checked by `results.check_row`; at least one.
        pretrainings: records of pre-trainings, as `read_pretrainings` returns them.
        efficiency: lines of the efficiency table, as `efficiency_lines` returns them.
        figures: of that table, beside the page.
        notes: hand-written Markdown for the end of the page.

    Raises:
        InputError: rows whose first dev sets differ, as then there is nothing to compare.
    """
    ordered = by_dev_rate(rows)
    headline = ordered[0]
    dev, kind = headline["dev_sets"][0], headline_kind(headline)
    rate = _rate(headline, dev, kind, "err")
    parts = [
        f"# Results: {headline['title']}",
        f"{STAR} **{headline['row']}** is the headline row: the lowest {kind.upper()} on `{dev}` "
        f"({rate} %), chosen there and not on a test set.",
        _SUMMARY.format(drawn=_drawn(ordered))
        + (_AGREEING if _AGREEMENT in (summary := _summary(ordered)) else ""),
        summary,
        "## Scores",
        *(part for kind in _kinds(ordered) for part in (_COLUMNS[kind], _scores(ordered, kind))),
        *_without_hypothesis(ordered),
        *(["## Pre-training", _PRETRAINING, _pretrainings(pretrainings)] if pretrainings else []),
        *(_efficiency(ordered, efficiency, figures) if efficiency else []),
        *(_details(row) for row in ordered),
    ]
    if notes and notes.strip():
        parts += ["## Notes", notes.strip()]
    parts.append("*Written by `write_results` from `results/*.json`; edit those, not this page.*")
    return "\n\n".join(parts) + "\n"


def _efficiency(
    ordered: Sequence[Mapping], lines: Sequence[Mapping], figures: Sequence[FigurePlan]
) -> list[str]:
    star = f"{STAR} **{ordered[0]['row']}**"
    lines = [
        {**line, "model": star} if line["model"] == ordered[0]["row"] else line for line in lines
    ]
    rates = [(kind, name) for kind in _kinds(ordered) for name in _sets(ordered)]
    shown = [
        f"![{figure.y_label} against {figure.x_label}]({figure.path.as_posix()})"
        for figure in figures
    ]
    return [*efficiency_parts(lines, rates), *(["\n".join(shown)] if shown else [])]


def efficiency_parts(lines: Sequence[Mapping], rates: Sequence[tuple[str, str]]) -> list[str]:
    """Return the section of the lines of `efficiency_lines`; `rates`: ("wer", set) to show."""
    seconds = " or ".join(dict.fromkeys(f"{line['macs_seconds']:g}" for line in lines))
    estimated = _ESTIMATES if any(line["estimates"] for line in lines) else ""
    measured = "; ".join(_machine(machine) for machine in machines(lines))
    parts = [
        "## Efficiency",
        _EFFICIENCY.format(seconds=seconds)
        + estimated
        + (f" Timed on: {measured}." if measured else ""),
        markdown_table(*main_table(lines, rates)),
        "MACs by kind of module, in percent:",
        markdown_table(*share_table(lines)),
    ]
    if measured:
        parts += [
            "Real-time factor and peak memory (MiB) by seconds of audio:",
            markdown_table(*timing_table(lines)),
        ]
    return parts


def _pretrainings(records: Sequence[Mapping]) -> str:
    header, lines = pretraining_rows(records)
    return markdown_table(header, lines)


def by_dev_rate(rows: Mapping[str, Mapping]) -> list[Mapping]:
    """Return the rows in the order of the page, the headline first.

    Raises:
        InputError: their first dev sets differ.
    """
    first_name, first = next(iter(rows.items()))
    dev = first["dev_sets"][0]
    for name, row in rows.items():
        if row["dev_sets"][0] != dev:
            raise InputError(
                f"first dev set '{row['dev_sets'][0]}', but '{dev}' in row '{first_name}'",
                where=f"results/{name}.json",
                fix="give --dev_sets alike for all rows",
            )

    def dev_rate(row: Mapping) -> tuple[bool, float, str]:
        kind = headline_kind(row)
        counts = row["scores"][dev][kind]["counts"]
        rate = counts["err"] / counts["tokens"] if counts["tokens"] else float("inf")
        return kind != "wer", rate, row["row"]

    return sorted(rows.values(), key=dev_rate)


def _kinds(ordered: Sequence[Mapping]) -> list[str]:
    """Return "wer", "per" or both: what the rows are scored by, in their order."""
    return list(dict.fromkeys(map(headline_kind, ordered)))


def _summary(ordered: Sequence[Mapping]) -> str:
    rates = [(kind, name) for kind in _kinds(ordered) for name in _sets(ordered)]
    header = ["model", "parameters", "bytes", "training minutes", "core-minutes", "updates"]
    header += ["audio hours", "dev CTC loss"]
    header += [f"{kind.upper()} {name}" for kind, name in rates]
    lines = []
    for index, row in enumerate(ordered):
        record = row["record"]
        cells = [
            row["row"],
            _millions(row["model"]["parameters"]),
            _number(row["model"]["bytes"]),
            _decimal(_of_all_steps(record, "minutes")),
            _decimal(_of_all_steps(record, "core_minutes")),
            _number(_of_all_steps(record, "updates")),
            _decimal(_of_all_steps(record, "audio_hours")),
            _decimal(record.get("dev", {}).get("loss_ctc")),
            *(_with_interval(row, name, kind) for kind, name in rates),
        ]
        if index == 0:
            cells = [f"**{cell}**" for cell in cells]
            cells[0] = f"{STAR} {cells[0]}"
        lines.append(cells)
    return markdown_table(*_with_bits(ordered, header, lines))


def _of_all_steps(record: Mapping, cost: str) -> int | float | None:
    """Return what a training cost, those before it in a schedule of several steps of bits (stage 7)
    among it; None where the record does not say."""
    earlier = (record.get("quantization") or {}).get("earlier_steps", ())
    parts = [step.get(cost) for step in (record, *earlier)]
    return None if None in parts else sum(parts)


def _with_bits(
    ordered: Sequence[Mapping], header: list[str], lines: list[list[str]]
) -> tuple[list[str], list[list[str]]]:
    """Return the summary with two more columns where a row was quantized: the name of its policy, and
    the frames of the dev sets that agree with the network in floating point."""
    agreements = [(row["record"].get("dev") or {}).get("agreement") for row in ordered]
    if all(part is None for part in agreements):
        return header, lines
    bits = [row["model"].get("bits") or ABSENT for row in ordered]
    shown = [ABSENT if part is None else f"{100 * part:.1f}" for part in agreements]
    columns = list(zip(header, *lines, strict=True))
    for name, cells, before in (("bits", bits, "bytes"), (_AGREEMENT, shown, "dev CTC loss")):
        place = [column[0] for column in columns].index(before) + 1
        columns.insert(place, (name, f"**{cells[0]}**", *cells[1:]))
    header, *lines = (list(line) for line in zip(*columns, strict=True))
    return header, lines


def _scores(ordered: Sequence[Mapping], kind: str) -> str:
    """Return the table of the rows that are scored by `kind`, "wer" or "per"."""
    further = {"wer": ("cer", "ter"), "per": ()}[kind]
    header = ["model", "set", "Snt", {"wer": "Wrd", "per": "Phn"}[kind]]
    header += ["Corr", "Sub", "Del", "Ins", kind.upper(), "S.Err"]
    header += [*map(str.upper, further), "RTF"]
    lines = []
    for index, row in enumerate(ordered):
        if headline_kind(row) != kind:
            continue
        for name in [name for name in _sets(ordered) if name in row["scores"]]:
            score = row["scores"][name]
            lines.append(
                [
                    f"{STAR} **{row['row']}**" if index == 0 else row["row"],
                    name,
                    _number(score["utterances"]),
                    _number(score[headline_unit(row)]),
                    *(_rate(row, name, kind, key) for key in ("corr", "sub", "del", "ins")),
                    _with_interval(row, name, kind),
                    _rate(row, name, kind, "s_err"),
                    *(_rate(row, name, rate, "err") for rate in further),
                    f"{row['decode']['rtf'][name]:.4f}",
                ]
            )
    return markdown_table(header, lines, left=2)


def _details(row: Mapping) -> str:
    record, model, decode = row["record"], row["model"], row["decode"]
    known = [
        ("Training", _training(record)),
        ("Trained on", _machine(record)),
        ("Decoding", _decoding(decode)),
        ("Decoded on", _machine(row["environment"])),
        ("Model", f"`{model['file']}`, {_number(model['bytes'])} bytes, {_parameters(row)}"),
        ("sha256", f"`{model['sha256']}`"),
    ]
    if row.get("lm"):
        known.append(("Language model", _language_model(row["lm"])))
    lines = [f"## {row['row']}", "", *(f"- {name}: {value}" for name, value in known), ""]
    if record.get("command"):
        lines += [_how_trained(record), "", "```", _program_call(record["command"]), "```", ""]
    if Path(model["file"]).parent == Path("."):
        lines += ["Its model is not kept in `models/`: it has to be trained again."]
    else:
        lines += ["How to decode it again, without training:", ""]
        lines += ["```", _decode_again(row), "```"]
    return "\n".join(lines)


# key of the training record -> how the page says it
_TRAINING = {
    "recipe": "recipe {}",
    "experiment": "experiment {}",
    "config": "config {}",
    "seed": "seed {}",
    "date": "{}",
    "updates": "{} updates",
    "epochs": "{} epochs",
    "batch_seconds": "{} s of audio in an update",
    "train_utterances": "{} utterances",
    "train_hours": "{} hours of speech",
    "dev_loss": "dev loss {}",
}
_MACHINE = {
    "gpu": "{}",
    "cpu": "{}",
    "cores": "{} cores",
    "processes": "{} processes",
    "threads": "{} threads",
    "python": "Python {}",
    "torch": "torch {}",
    "toolkit": "espnet_lite {}",
    "commit": "commit {}",
}
_LANGUAGE_MODEL = {"kind": "{}", "order": "order {}", "config": "config {}"}
_DECODING = {"nj": "{} processes", "threads": "{} threads each"}


def _said(known: Mapping, forms: Mapping[str, str]) -> list[str]:
    """Return what of `forms` is known, in its order; absent, null and "" are left out."""
    return [
        form.format(_plain(known[key]))
        for key, form in forms.items()
        if known.get(key) not in (None, "")
    ]


def _training(record: Mapping) -> str:
    return ", ".join(_said(record, _TRAINING))


def _how_trained(record: Mapping) -> str:
    """Return what stands above the command of a training."""
    said = "What the training was run with, on folders of the machine it ran on"
    if record.get("config"):
        said += f"; the recipe's own command is in the header of `conf/{record['config']}`"
    return f"{said}:"


def _program_call(command: str) -> str:
    """Return a recorded command, which may begin with the name of a program, as a shell takes it."""
    is_bare = command.startswith(("train_asr ", "quantize_asr "))
    return f"python -m espnet_lite.bin.{command}".strip() if is_bare else command.strip()


def _machine(known: Mapping) -> str:
    return ", ".join(_said(known, _MACHINE)) or ABSENT


def _decode_again(row: Mapping) -> str:
    """Return the command that makes the scores of a row once more."""
    lm = row.get("lm")
    makes_lm = bool(lm) and Path(lm["file"]).parent.name != "models"
    command = f"./run.sh --stage {'lm' if makes_lm else 'decode'} --model {row['model']['file']}"
    config_file = row["decode"].get("config_file")
    if config_file is not None and config_file != DEFAULT_DECODING:
        command += f" --inference_config {config_file}"
    if makes_lm:
        record = lm.get("record", {})
        command += f" --lm_config conf/{record.get('config', 'lm.yaml')}"
        if files := [name for name in record.get("text", {}).get("files", []) if "." in name]:
            command += f' --lm_text "{" ".join(files)}"'
    elif lm:
        command += f" --lm {lm['file']}"
    return command


def _language_model(lm: Mapping) -> str:
    """Return what is known of a language model, its text and its perplexities on dev sets."""
    record = lm.get("record", {})
    parts = [f"`{lm['file']}`", f"{_number(lm['bytes'])} bytes", f"sha256 `{lm['sha256'][:12]}…`"]
    parts += _said(record, _LANGUAGE_MODEL)
    if record.get("text"):
        parts.append(f"{_number(record['text']['words'])} words of text")
    for name, measured in record.get("dev", {}).items():
        parts.append(
            f"perplexity on {name} {measured['per_token']:g} per token, "
            f"{measured['per_word']:g} per word"
        )
    return ", ".join(parts)


def _decoding(decode: Mapping) -> str:
    config = decode["config"]
    if isinstance(config, Mapping):
        config = ", ".join(f"{key} {_plain(value)}" for key, value in sorted(config.items()))
    return ", ".join([str(config), *_said(decode, _DECODING)])


def _parameters(row: Mapping) -> str:
    """Return the numbers in the file, and those trained where an attention decoder is not in it."""
    stored, trained = row["model"]["parameters"], row["record"]["parameters"]
    if _millions(stored) == _millions(trained):
        return f"{_millions(stored)} parameters"
    return f"{_millions(stored)} parameters of the {_millions(trained)} that were trained"


def _sets(ordered: Sequence[Mapping]) -> list[str]:
    """Return all scored sets: the dev sets first, then the others by name."""
    dev = ordered[0]["dev_sets"]
    others = {name for row in ordered for name in row["scores"]} - set(dev)
    return [*dev, *sorted(others)]


def _rate(row: Mapping, set_name: str, kind: str, key: str) -> str:
    """Return percent with two decimals: of the utterances for `s_err`, else of the tokens."""
    score = row["scores"].get(set_name, {}).get(kind)
    if score is None:
        return ABSENT
    counts = score["counts"]
    whole = counts["utterances" if key == "s_err" else "tokens"]
    return percent_text(counts[key], whole, decimals=2) or ABSENT


def _with_interval(row: Mapping, set_name: str, kind: str) -> str:
    """Return `6.47 [4.6, 8.7]`: an error rate and its interval, where it is known."""
    rate = _rate(row, set_name, kind, "err")
    if rate == ABSENT or (interval := interval_of(row["scores"][set_name], kind)) is None:
        return rate
    return f"{rate} {bounds_text(interval['low'], interval['high'])}"


def _drawn(ordered: Sequence[Mapping]) -> str:
    """Return what the intervals of the sets were drawn of, for a sentence; "" where none is known."""
    drawn = {}
    for row in ordered:
        for name, score in row["scores"].items():
            if (interval := interval_of(score, headline_kind(row))) is not None:
                drawn[name] = f"{interval['drawn']} {interval['over']} of `{name}`"
    known = [drawn[name] for name in _sets(ordered) if name in drawn]
    return f", of {DRAWS:,} bootstrap draws of the {', the '.join(known)}" if known else ""


def _without_hypothesis(ordered: Sequence[Mapping]) -> list[str]:
    """Return a paragraph where a row was scored on fewer hypotheses than a set has utterances."""
    missing = [
        f"{row['row']} has none of {score['missing']} utterances of `{name}`"
        for row in ordered
        for name, score in row["scores"].items()
        if score.get("missing")
    ]
    said = f"**Missing hypotheses**, counted as deletions: {'; '.join(missing)}."
    return [said] if missing else []


def _decimal(value: int | float | None) -> str:
    return ABSENT if value is None else f"{value:.1f}"


def _number(value: int | float | None) -> str:
    return ABSENT if value is None else f"{value:,}"


def _millions(value: int) -> str:
    return f"{value / 1e6:.2f} M"


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Return a Markdown table padded to be read raw too: `left` columns to the left, rest right."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in [header, *rows]]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * width if index < left else "-" * (width - 1) + ":"
        for index, width in enumerate(widths)
    ]
    return "\n".join([line(rows[0]), line(rule), *map(line, rows[1:])])
