"""The child process of :mod:`asd_explain.datasets.speech_synth`: espeak-ng through ctypes, standard library only.

espeak-ng keeps its state in globals and ends the process on some errors. Run as a script in a process of its own, one
for each utterance, the caller is safe from both, and what was said before leaves no trace in the samples.

Standard input: one JSON object ``{"library", "data", "text", "voice", "rate_wpm", "pitch", "pitch_range"}``.
Standard output: one JSON line ``{"rate_hz", "words", "phonemes"}`` (words: start times in seconds; phonemes:
``[start_s, mnemonic]``), then the samples as int16. A failure ends with one line on standard error.
"""

from __future__ import annotations

import ctypes
import json
import sys

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples go to the callback, in this thread
_PHONEME_EVENTS_DONT_EXIT = 0x8001
_UTF8 = 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_WORD, _PHONEME = 1, 7


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def _run(job: dict) -> None:
    library = ctypes.CDLL(job["library"])
    library.espeak_Initialize.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int)
    library.espeak_ng_SetRandSeed.argtypes = (ctypes.c_long,)
    library.espeak_Synth.argtypes = (
        *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint),
        *(ctypes.POINTER(ctypes.c_uint), ctypes.c_void_p),
    )
    rate_hz = library.espeak_Initialize(_SYNCHRONOUS, 0, job["data"].encode(), _PHONEME_EVENTS_DONT_EXIT)
    if rate_hz <= 0:
        raise RuntimeError("espeak-ng could not load its voices")

    chunks: list[bytes] = []
    words: list[float] = []
    phonemes: list[tuple[float, str]] = []

    def receive(samples, count, events) -> int:
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        i = 0
        while events[i].type != 0:
            event = events[i]
            if event.type == _WORD:
                words.append(event.audio_position_ms / 1000)
            elif event.type == _PHONEME:
                phonemes.append((event.audio_position_ms / 1000, event.id.string.decode("utf-8", "replace")))
            i += 1
        return 0

    callback = _CALLBACK(receive)  # must outlive the calls below
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(job["voice"].encode()) != 0:
        raise RuntimeError(f"espeak-ng has no voice named {job['voice']!r}")
    settings = {_RATE: job["rate_wpm"], _VOLUME: 100, _PITCH: job["pitch"], _RANGE: job["pitch_range"]}
    for parameter, value in settings.items():
        library.espeak_SetParameter(parameter, int(value), 0)
    library.espeak_ng_SetRandSeed(1)  # else the clock seeds the noise of breath and friction
    text = job["text"].encode() + b"\0"
    if library.espeak_Synth(text, len(text), 0, 1, 0, _UTF8, None, None) != 0:
        raise RuntimeError(f"espeak-ng could not speak {job['text']!r}")
    head = {"rate_hz": rate_hz, "words": words, "phonemes": phonemes}
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + b"".join(chunks))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    try:
        _run(json.loads(sys.stdin.buffer.read()))
    except (RuntimeError, OSError, AttributeError) as error:
        sys.exit(str(error))
