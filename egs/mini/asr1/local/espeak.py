"""Speech from espeak-ng's shared library, called through ctypes; no espeak program is needed.

The library comes from the wheel `espeakng-loader` (espeak-ng is GPL-3: it is loaded when this recipe
runs and nothing of it is part of the toolkit). Function and constant names are those of speak_lib.h.
"""

import ctypes
import os
import tempfile
from pathlib import Path

from espnet_lite.errors import InputError

_AUDIO_OUTPUT_SYNCHRONOUS = 2  # espeak_Synth returns when all samples went through the callback
_DONT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT: a fault returns a code instead of ending us
_CHARS_UTF8 = 1
_POS_CHARACTER = 1
_RATE, _PITCH, _RANGE, _WORD_GAP = 1, 3, 4, 7  # espeak_PARAMETER
WORD_GAP = 8  # pause between words, in units of 10 ms at the usual rate: words spoken clearly apart
_LONGEST_PATH = 120  # the library cuts paths at 160 bytes and appends file names of its own

_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class Espeak:
    """One synthesizer per process: espeak-ng keeps its state in globals.

    The state carries over from call to call: the same sentence is a few samples different after other
    sentences. Samples repeat exactly when a process makes the same calls in the same order.
    """

    def __init__(self):
        """Load the library and its data.

        Raises:
            InputError: the wheel is not installed, or its library or data do not load.
        """
        try:
            import espeakng_loader
        except ImportError as error:
            raise InputError(
                "the Python package espeakng-loader is not installed, and it synthesises this corpus",
                fix="install it (the extra `demo`): python -m pip install espeakng-loader",
            ) from error
        library = espeakng_loader.get_library_path()
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise InputError(
                f"espeak-ng's library does not load: {error}",
                where=library,
                fix="install it again: python -m pip install --force-reinstall espeakng-loader",
            ) from error
        self._libc = ctypes.CDLL(None)
        self._library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        self._library.espeak_Synth.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        self.sample_rate = self._initialize(Path(espeakng_loader.get_data_path()))
        self._pieces: list[bytes] = []
        self._callback = _Callback(self._receive)  # kept, or Python would free it under the library
        self._library.espeak_SetSynthCallback(self._callback)

    def _initialize(self, data: Path) -> int:
        if len(os.fsencode(data)) > _LONGEST_PATH:
            # Voices are read later through this path too: the link lives as long as this object.
            self._short = tempfile.TemporaryDirectory()
            link = Path(self._short.name) / "espeak-ng-data"
            link.symlink_to(data)
            data = link
        sample_rate = self._library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, os.fsencode(data), _DONT_EXIT
        )
        if sample_rate <= 0:
            raise InputError(
                f"espeak-ng does not start (espeak_Initialize returned {sample_rate})",
                where=data,
                fix="install it again: python -m pip install --force-reinstall espeakng-loader",
            )
        return sample_rate

    def _receive(self, samples, count, _events) -> int:
        if samples and count > 0:
            self._pieces.append(ctypes.string_at(samples, 2 * count))
        return 0  # go on

    def speak(
        self, text: str, *, voice: str, words_per_minute: int, pitch: int, seed: int
    ) -> bytes:
        """Return the spoken text as 16-bit mono samples (native byte order) at `sample_rate` Hz.

        Args:
            text: what to say.
            voice: language and variant, such as `en-us+f3`.
            words_per_minute: 80 to 450.
            pitch: 0 to 99, 50 is the voice's own.
            seed: of the jitter, breath and flutter that some variants have.

        Raises:
            InputError: this espeak-ng does not have the voice.
        """
        # Both generators are in use inside, and unseeded they differ from process to process.
        self._library.espeak_ng_SetRandSeed(seed)
        self._libc.srand(seed)
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise InputError(
                f"this espeak-ng has no voice '{voice}'",
                fix="install it again: python -m pip install --force-reinstall espeakng-loader",
            )
        parameters = {_RATE: words_per_minute, _PITCH: pitch, _RANGE: 50, _WORD_GAP: WORD_GAP}
        for parameter, value in parameters.items():
            self._library.espeak_SetParameter(parameter, value, 0)
        self._pieces.clear()
        encoded = text.encode()
        status = self._library.espeak_Synth(
            encoded, len(encoded) + 1, 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None
        )
        if status != 0:
            raise RuntimeError(f"espeak_Synth returned {status} for '{text}' in voice '{voice}'")
        return b"".join(self._pieces)
