"""Writes down what it hears, on graphs that take exactly 2 sounds of 1 or 4 seconds.

Exports a PyTorch model that was trained with CTC, transcribes three sounds with the graphs, and does the same with
transformers on PyTorch. What to look for: no sound lasts 1 second or 4, one lasts longer than any graph, and still the
text is PyTorch's. Without ``--model`` it is a small Wav2Vec2, trained on the spot to write down the names of the notes
of a tune: a model that understands speech does the same with letters, but cannot be trained in seconds.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from optimum_fixedshape import AutoProcessor, ORTModelForCTC, export_model, pipeline

sys.path.insert(0, str(Path(__file__).parents[1]))
import offline
from side_by_side import show_times, show_use

TUNES = ["gage", "edcdeee ddd egg", "ccdec edcd ccdecc edcdcc aaggeed ccdeg"]


def make_pipeline(source: str | Path, folder: Path) -> Any:
    """What you would write: export once, load, and call it like any pipeline."""
    rate = transformers.AutoFeatureExtractor.from_pretrained(source).sampling_rate
    shapes = {"batch_size": 2, "audio_sequence_length": [rate, 4 * rate]}
    export_model(source, folder, task="automatic-speech-recognition", shapes=shapes, progress=False)
    model = ORTModelForCTC.from_pretrained(folder)
    return pipeline("automatic-speech-recognition", model=model, data_processor=AutoProcessor.from_model(model))


def main() -> None:
    """Runs it beside PyTorch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sounds", nargs="*", help="files of sounds to write down; by default three tunes")
    parser.add_argument("--model", help="a PyTorch model with a CTC head: a folder or a Hub id")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.model or offline.speech_recognizer(Path(folder) / "wav2vec2")
        ours = make_pipeline(source, Path(folder) / "wav2vec2-fixed")
        theirs = transformers.pipeline("automatic-speech-recognition", model=str(source))
        compare(ours, theirs, sounds_of(arguments.sounds, theirs.feature_extractor.sampling_rate))


def sounds_of(files: list[str], rate: int) -> dict[str, np.ndarray]:
    """The sounds by name; at the model's rate, as transformers itself needs torchaudio to change it."""
    if files:
        return {name: read_sound(name, rate) for name in files}
    chance = random.Random(7)
    return {f"the notes {tune!r}": offline.melody(tune, chance) for tune in TUNES}


def read_sound(file: str, rate: int) -> np.ndarray:
    """The samples of a file."""
    import soundfile
    import soxr

    samples, original_rate = soundfile.read(file, dtype="float32", always_2d=True)
    return soxr.resample(samples.mean(1), original_rate, rate)


def compare(ours: Any, theirs: Any, sounds: dict[str, np.ndarray]) -> None:
    """Prints what was heard, whether PyTorch heard the same, and how long both took."""
    rate, waves = theirs.feature_extractor.sampling_rate, list(sounds.values())
    heard = ours(waves)
    print("1. What was heard\n")
    for (name, wave), answer in zip(sounds.items(), heard, strict=True):
        print(f"   {len(wave) / rate:5.2f} s, {name}:\n     {answer['text']!r}")

    print("\n2. Where the sounds ran: the longest, in windows\n")
    show_use(ours.model.stats, "audio_sequence_length", f"samples, of {rate} a second,")

    # transformers cuts what it is told to; here a sound is cut where no graph holds it.
    expected = [theirs(wave, **({"chunk_length_s": 4} if len(wave) > 4 * rate else {})) for wave in waves]
    print(f"\n3. The same text from PyTorch: {heard == expected}")
    inputs = [theirs.feature_extractor(wave, sampling_rate=rate, return_tensors="pt") for wave in waves]
    with torch.no_grad():
        for each in inputs:
            if each["input_values"].shape[1] <= 4 * rate:
                apart = float((ours.model(**each).logits - theirs.model(**each).logits).abs().max())
                print(f"   Largest difference in the logits of a sound that fits: {apart:.1e}")

    print(f"\n4. Time for {len(waves)} sounds\n")
    cut = {"chunk_length_s": 4}
    show_times({"transformers on PyTorch": lambda: theirs(waves, **cut), "optimum_fixedshape": lambda: ours(waves)})


if __name__ == "__main__":
    main()
