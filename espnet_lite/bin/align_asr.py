"""Align transcripts with their audio by a packed model's CTC: when each word and token is said.

Writes words.ctm, tokens.ctm and textgrid/UTTERANCE.TextGrid. Audio may be of any length. What cannot
be aligned (a token that the model lacks, audio too short for its transcript) stops the program before
anything is written, or is left out with --skip.
"""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Return 0 with everything written."""
    args = parser(__doc__)
    args.add_argument("--model", required=True, type=Path, help="packed model (*.esp)")
    args.add_argument(
        "--data_dir", required=True, type=Path, help="data directory or dump folder, with text"
    )
    args.add_argument("--output_dir", required=True, type=Path, help="folder to write")
    args.add_argument("--skip", action="store_true", help="leave out what cannot be aligned")
    args.add_argument("--threads", type=int, help="of torch (default: all cores)")
    options = args.parse_args(argv)
    if options.threads is not None and options.threads < 1:
        raise InputError(f"{options.threads}, expected 1 or more", where="--threads")

    import torch

    from espnet_lite.data.data_dir import read_data_dir
    from espnet_lite.environment import cores
    from espnet_lite.files import atomic_folder
    from espnet_lite.numerics import use_fast_matmul
    from espnet_lite.runtime.packed_model import PackedModel
    from espnet_lite.text.words_of_tokens import spell

    torch.set_num_threads(options.threads or cores())
    use_fast_matmul(torch.device("cpu"))
    if options.output_dir.exists():
        raise InputError("is there already", where=options.output_dir, fix="choose another folder")
    model = PackedModel.load(options.model)
    utterances = read_data_dir(options.data_dir)
    spelled, faults = {}, {}
    for utterance in utterances:
        try:
            spelled[utterance.id] = spell(model.tokenizer, utterance.text)
            _check_length(model, utterance, spelled[utterance.id])
        except InputError as error:
            faults[utterance.id] = error
    if faults and not options.skip:
        raise _refused(faults, len(utterances), options.data_dir)
    with atomic_folder(options.output_dir) as folder:
        (folder / "textgrid").mkdir()
        with (
            open(folder / "words.ctm", "w", encoding="utf-8") as words,
            open(folder / "tokens.ctm", "w", encoding="utf-8") as tokens,
        ):
            for utterance in utterances:
                if utterance.id in faults:
                    continue
                try:
                    aligned = _align(model, utterance, spelled[utterance.id])
                except InputError as error:
                    faults[utterance.id] = error
                    if not options.skip:
                        raise _refused(faults, len(utterances), options.data_dir) from None
                    continue
                _write(aligned, utterance.id, folder, words, tokens)
        if len(faults) == len(utterances):
            raise _refused(faults, len(utterances), options.data_dir)
    print(f"{options.output_dir}: {len(utterances) - len(faults)} utterances aligned")
    for name, error in faults.items():
        print(f"warning: left out: utterance '{name}': {error}", file=sys.stderr)
    return 0


def _refused(faults: dict[str, InputError], utterances: int, data_dir: Path) -> InputError:
    """Return the first fault, with its utterance and how many others there are."""
    name, error = next(iter(faults.items()))
    return InputError(
        f"{error} ({len(faults)} of {utterances} utterances cannot be aligned)",
        where=f"{data_dir}, utterance '{name}'",
        fix="or leave them out: --skip",
    )


def _check_length(model, utterance, spelled) -> None:
    """Refuse audio, by its header, that has fewer frames than its transcript needs."""
    from espnet_lite.data.audio import audio_info, resampled_length
    from espnet_lite.decode.forced import fewest_frames

    start, end = utterance.start_seconds, utterance.end_seconds
    info = audio_info(utterance.audio, start_seconds=start, end_seconds=end)
    samples = resampled_length(info.frames, info.sample_rate, model.sample_rate)
    frames, needed = model.front_end.grid.num_frames(samples), fewest_frames(spelled.ids)
    if frames < needed:
        raise InputError(
            f"{samples / model.sample_rate:.2f} s of audio, {frames} frames, for "
            f"{len(spelled.ids)} tokens, which need {needed} or more"
        )


def _align(model, utterance, spelled):
    """Return (words, tokens, seconds of audio) of one utterance, words and tokens in time."""
    import torch

    from espnet_lite.data.audio import read_audio
    from espnet_lite.decode.forced import forced_path
    from espnet_lite.decode.long_audio import log_probs_of
    from espnet_lite.decode.timing import token_times, word_times

    grid = model.front_end.grid
    samples, _ = read_audio(
        utterance.audio,
        sample_rate=model.sample_rate,
        start_seconds=utterance.start_seconds,
        end_seconds=utterance.end_seconds,
    )
    path = forced_path(log_probs_of(model, torch.from_numpy(samples), grid), spelled.ids)
    seconds = len(samples) / model.sample_rate
    tokens = token_times(path, spelled.tokens, grid, num_samples=len(samples))
    words = word_times(tokens, spelled.words, spelled.word_of, end_seconds=seconds)
    return words, tokens, seconds


def _write(aligned, utterance: str, folder: Path, word_file, token_file) -> None:
    from espnet_lite.data.dump import file_name
    from espnet_lite.decode.timing import ctm_lines
    from espnet_lite.units.textgrid import IntervalTier, textgrid_text

    words, tokens, seconds = aligned
    word_file.write(ctm_lines(utterance, words))
    token_file.write(ctm_lines(utterance, tokens))
    tiers = [
        IntervalTier(name, [(one.start_seconds, one.end_seconds, one.label) for one in labels])
        for name, labels in (("words", words), ("tokens", tokens))
    ]
    path = folder / "textgrid" / file_name(utterance, ".TextGrid")
    path.write_text(textgrid_text(tiers, end_seconds=seconds), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    sys.exit(main())
