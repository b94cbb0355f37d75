"""Score units by the phones of aligned speech: PNMI, phone purity and cluster purity (HuBERT, §4.2).

A frame has the phone in whose interval its middle lies. Stress is left out (AH0 is AH); empty labels,
sil, sp, spn and <eps> are one class, silence, which is counted as a phone in the first row and left out
in the second.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Print the table of all utterances with units and an alignment; write it as JSON."""
    args = parser(__doc__)
    args.add_argument("--units", required=True, type=Path, help="folder of make_units")
    args.add_argument(
        "--alignments",
        required=True,
        nargs="+",
        type=Path,
        help="folders with UTTERANCE.TextGrid anywhere below",
    )
    args.add_argument("--tier", default="phones", help="the TextGrids' tier of phones")
    args.add_argument(
        "--utterances", type=Path, help="list of utterances to score (first word of each line)"
    )
    args.add_argument("--output", type=Path, help="JSON file to write")
    options = args.parse_args(argv)

    from espnet_lite.files import write_text
    from espnet_lite.units.quality import count_phones
    from espnet_lite.units.store import UnitStore
    from espnet_lite.units.textgrid import find_textgrids, read_phones

    store = UnitStore(options.units)
    paths = find_textgrids(options.alignments)
    chosen = _chosen(store.utterances(), paths, options)
    alignments = {name: read_phones(paths[name], tier=options.tier) for name in chosen}
    counted = count_phones(store, alignments)
    rows = {"all frames": counted.with_silence(), "speech alone": counted.of_speech()}
    rows = {name: quality for name, quality in rows.items() if quality is not None}
    made = store.description.get("quality", {})
    print(
        f"{options.units}: {len(chosen)} of {len(store)} labelled utterances scored, "
        f"{len(paths) - len(chosen)} of {len(paths)} alignments not used"
    )
    print("| frames | number | phones | units | PNMI | phone purity | cluster purity |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, quality in rows.items():
        print(
            f"| {name} | {quality.frames:,} | {quality.phones} | {quality.units} | "
            f"{quality.pnmi:.3f} | {quality.phone_purity:.3f} | {quality.cluster_purity:.3f} |"
        )
    print("silence (empty, sil, sp, spn, <eps>) is one phone of 'all frames'")
    if options.output is not None:
        plain = {
            "units": str(options.units),
            "units_id": store.identity,
            "clusters": store.clusters,
            "utterances": len(chosen),
            "phones": counted.phones,
            "with_silence": asdict(rows["all frames"]),
            "speech": asdict(rows["speech alone"]) if "speech alone" in rows else None,
            "made": made,
        }
        write_text(options.output, json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
    return 0


def _chosen(labelled: list[str], paths: dict[str, Path], options) -> list[str]:
    """Return the utterances to score, in byte order."""
    from espnet_lite.data.tables import split_row
    from espnet_lite.files import read_lines

    if options.utterances is None:
        chosen = [name for name in labelled if name in paths]
        if not chosen:
            raise InputError(
                f"none of {len(labelled)} utterances has an alignment, expected "
                f"{labelled[0] if labelled else 'UTTERANCE'}.TextGrid",
                where=", ".join(map(str, options.alignments)),
            )
        return chosen
    known = set(labelled)
    names = [split_row(line)[0] for line in read_lines(options.utterances)]
    for line, name in enumerate(names, start=1):
        where = f"{options.utterances}:{line}"
        if name not in known:
            raise InputError(f"no units of '{name}' in {options.units}", where=where)
        if name not in paths:
            raise InputError(
                f"no {name}.TextGrid", where=where, fix="name its folder too: --alignments DIR ..."
            )
    if not names:
        raise InputError("no utterance in it", where=options.utterances)
    return sorted(set(names), key=lambda name: name.encode("utf-8"))


if __name__ == "__main__":
    sys.exit(main())
