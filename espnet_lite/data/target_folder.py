"""What may be replaced by a folder that is written whole."""

from collections.abc import Sequence
from pathlib import Path

from espnet_lite.errors import InputError

DATA_DIR_MARKS = ("wav.scp", "utt2spk")


def check_target(
    target: Path | str,
    *,
    sources: Sequence[Path | str] = (),
    marks: Sequence[str] = DATA_DIR_MARKS,
) -> None:
    """Refuse a target whose replacement would delete what nobody asked to delete.

    `atomic_folder` replaces all that a folder holds. Right is a new or an empty folder, or one that
    the same program wrote before, which shows by one of its `marks`.

    Args:
        target: the folder to write.
        sources: what is read for it; none of them may lie in the target.
        marks: names in a folder that may be replaced.

    Raises:
        InputError: the target is or holds a source, holds other things, or is a file.
    """
    target = Path(target)
    for source in sources:
        if Path(source).resolve().is_relative_to(target.resolve()):
            raise InputError(
                f"would replace its source {source}", where=target, fix="write it beside the source"
            )
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError("a file is there, expected a folder or nothing", where=target)
    found = sorted(path.name for path in target.iterdir())
    if found and not any(mark in found for mark in marks):
        raise InputError(
            f"holds '{found[0]}' and no {marks[0]}, so it is not replaced",
            where=target,
            fix="choose a new folder, or delete this one",
        )
