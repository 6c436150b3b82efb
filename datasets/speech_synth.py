"""Real synthetic speech from espeak-ng, with the times of its words and phonemes.

espeak-ng (GPL-3) and its voices come with the wheel ``espeakng-loader``, which the optional ``demo`` extra installs.
It runs in a child process, one an utterance (:mod:`asd_explain.datasets._espeak` says why).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from asd_explain.errors import AsdExplainError

DEMO_EXTRA = "pip install asd-explain[demo]"


@dataclass(frozen=True)
class Voice:
    """A voice of espeak-ng.

    Attributes:
        name: voice and variant, e.g. ``en-us+f2``, ``en-gb-x-rp+Alicia``, ``de+m3``.
        rate_wpm: speed in words a minute, 80 to 450; lively conversation is about 150 to 180.
        pitch: 0 (low) to 99 (high).
        pitch_range: how lively the melody is, 0 to 99.
    """

    name: str = "en-us"
    rate_wpm: int = 160
    pitch: int = 50
    pitch_range: int = 50


@dataclass(frozen=True)
class Utterance:
    """What a voice said.

    Attributes:
        waveform: (n,) float32 in [-1, 1], mono.
        rate_hz: samples a second.
        words: (w,) start times of the words in seconds.
        phonemes: start time in seconds and espeak-ng mnemonic of each phoneme, in order of time.
    """

    waveform: np.ndarray
    rate_hz: int
    words: np.ndarray
    phonemes: tuple[tuple[float, str], ...]

    @property
    def duration_s(self) -> float:
        return len(self.waveform) / self.rate_hz

    def cut(self, duration_s: float) -> Utterance:
        """The utterance ended at the last word boundary within ``duration_s`` (no boundary: there), faded out."""
        if self.duration_s <= duration_s:
            return self
        starts = self.words[(self.words > 0.25) & (self.words <= duration_s)]
        end_s = float(starts[-1]) if len(starts) else duration_s
        waveform = self.waveform[: int(end_s * self.rate_hz)].copy()
        fade = min(len(waveform), int(0.02 * self.rate_hz))
        if fade:
            waveform[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
        phonemes = tuple(p for p in self.phonemes if p[0] < end_s)
        return Utterance(waveform, self.rate_hz, self.words[self.words < end_s], phonemes)


def _library_and_data() -> tuple[Path, Path]:
    try:
        import espeakng_loader
    except ImportError as error:
        raise AsdExplainError(f"speech synthesis needs the package espeakng-loader: {DEMO_EXTRA}") from error
    library, data = Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path())
    if not library.exists():
        raise AsdExplainError(f"espeakng-loader carries no espeak-ng library for this machine ({library} is missing)")
    return library, data


def synthesise(jobs: Sequence[tuple[str, Voice]], timeout_s: float = 60.0) -> list[Utterance]:
    """Speak each (text, voice); the same text in the same voice gives the same samples, whatever was said before.

    Raises:
        AsdExplainError: espeakng-loader is not installed, a voice does not exist, or espeak-ng failed.
    """
    if not jobs:
        return []
    library, data = _library_and_data()
    return [_speak(text, voice, library, data, timeout_s) for text, voice in jobs]


def _speak(text: str, voice: Voice, library: Path, data: Path, timeout_s: float) -> Utterance:
    job = {"library": str(library), "text": text, **asdict(voice)}
    job["voice"] = job.pop("name")
    job["data"] = "."  # espeak-ng copies the path into 160 bytes: relative to the child's folder it always fits
    try:
        child = subprocess.run(
            [sys.executable, "-I", str(Path(__file__).with_name("_espeak.py").resolve())],
            input=json.dumps(job).encode(),
            cwd=data,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AsdExplainError(f"espeak-ng did not run: {error}") from error
    if child.returncode != 0:
        lines = child.stderr.decode("utf-8", "replace").strip().splitlines()
        raise AsdExplainError(f"espeak-ng failed: {lines[-1] if lines else f'exit status {child.returncode}'}")
    line, _, samples = child.stdout.partition(b"\n")
    head = json.loads(line)
    waveform = np.frombuffer(samples, "<i2").astype(np.float32) / 32768
    phonemes = tuple((float(t), str(p)) for t, p in head["phonemes"])
    return Utterance(waveform, head["rate_hz"], np.asarray(head["words"], np.float64), phonemes)
