"""What cannot be an image, a sound or a clip: an error that names it, and a pipeline that goes on working."""

from __future__ import annotations

import functools

import numpy as np
import PIL.Image
import pytest

from optimum_fixedshape import pipeline
from optimum_fixedshape.errors import (
    InputTooLongError,
    InvalidInputError,
    MissingInputError,
    ShapeMismatchError,
    UnsupportedTaskError,
)

from .test_zoo_pipelines import LABELS, picture, tone, write_clip


@pytest.fixture(scope="module")
def pipes(specimen):
    return functools.cache(lambda name: pipeline(model=specimen(name).folder))


@pytest.fixture
def files(tmp_path):
    picture(64, 64).save(tmp_path / "whole.jpg")
    (tmp_path / "truncated.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:400])
    (tmp_path / "text.jpg").write_text("no image at all")
    write_clip(tmp_path / "short.mp4", 2)
    return tmp_path


IMAGES = {
    "empty": (lambda files: PIL.Image.new("RGB", (0, 7)), "it has no pixels"),
    "truncated": (lambda files: str(files / "truncated.jpg"), "truncated.jpg"),
    "no image": (lambda files: str(files / "text.jpg"), "text.jpg"),
    "no file": (lambda files: str(files / "nowhere.jpg"), "nowhere.jpg"),
}
SOUNDS = {
    "no samples": (lambda files: np.zeros(0, np.float32), "it has no samples"),
    "not a number": (lambda files: np.full(600, np.nan, np.float32), "NaN or infinite"),
    "no file": (lambda files: str(files / "nowhere.wav"), "nowhere.wav"),
    "no sound": (lambda files: str(files / "text.jpg"), "text.jpg"),
}
CLIPS = {
    "too few frames": (lambda files: str(files / "short.mp4"), "it has 2 frames, and 4 of them, 1 apart, need 4"),
    "too few in an array": (lambda files: np.zeros((3, 20, 20, 3), np.uint8), "it has 3 frames, and the graph takes 4"),
    "no clip": (lambda files: str(files / "text.jpg"), "text.jpg"),
}
CASES = [
    *[("vit", what, *case) for what, case in IMAGES.items()],
    *[("wav2vec2", what, *case) for what, case in SOUNDS.items()],
    *[("wav2vec2-classes", what, *case) for what, case in SOUNDS.items()],
    *[("videomae", what, *case) for what, case in CLIPS.items()],
]
GOOD = {"vit": lambda files: picture(30, 30), "videomae": lambda files: write_clip(files / "good.mp4", 5)}


@pytest.mark.parametrize(("name", "what", "make", "message"), CASES, ids=[f"{case[0]}: {case[1]}" for case in CASES])
def test_what_cannot_be_read(pipes, files, name, what, make, message):
    pipe, good = pipes(name), GOOD.get(name, lambda files: tone(600))(files)
    with pytest.raises(InvalidInputError, match=message) as caught:
        pipe(make(files))
    assert caught.value.item
    with pytest.raises(InvalidInputError, match=message):
        pipe([good, make(files)])
    assert pipe(good)


def test_fewer_samples_than_a_spectrogram_has_windows(pipes):
    with pytest.raises(InvalidInputError, match="100 samples at 16000 Hz are fewer than one window"):
        pipes("ast")(np.ones(100, np.float32))


def test_more_than_a_rung_holds(pipes, specimen):
    with pytest.raises(InputTooLongError, match=r"asks for windows of 3000 samples, and .* holds 1600"):
        pipes("wav2vec2")(tone(5000), chunk_length_s=3)
    with pytest.raises(InputTooLongError, match="audio_sequence_length 5000, and the largest rung holds 1600"):
        pipes("wav2vec2-classes")(tone(5000))
    with pytest.raises(InputTooLongError, match="sequence_length"):
        pipes("clip")(picture(9, 9), candidate_labels=[LABELS[0] * 40])
    cut = pipeline(model=specimen("wav2vec2-classes").folder, overflow="truncate")
    assert cut(tone(5000)) == cut(tone(5000)[:1600])
    windows = pipeline(model=specimen("wav2vec2-classes").folder, overflow="window")
    assert len(windows(tone(5000))) == 3
    assert windows(tone(1600)) == cut(tone(1600))


def test_arrays_of_another_size(pipes):
    model = pipes("vit").model
    with pytest.raises(ShapeMismatchError, match="pixel_values axis 2: expected 32, got 8"):
        model(pixel_values=np.zeros((1, 3, 8, 8), np.float32))
    with pytest.raises(MissingInputError, match="The graph takes pixel_values; what came is: pixels"):
        model(pixels=np.zeros((1, 3, 32, 32), np.float32))


def test_a_task_that_reads_something_else(specimen):
    for task, name in (("text-classification", "vit"), ("image-classification", "ast"), ("fill-mask", "videomae")):
        with pytest.raises(UnsupportedTaskError, match=f"The task {task} does not go with a graph that takes"):
            pipeline(task, model=specimen(name).folder)
