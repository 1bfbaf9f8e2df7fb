"""Graphs that nobody saved an image processor with: the nine in the onnx package, which make their own weights."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from optimum_fixedshape import AutoImageProcessor
from optimum_fixedshape.processors.canvas import default_image_processor
from optimum_fixedshape.processors.image import fix_image_processor

from .pictures import ladder, picture

LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))


def test_all_are_there() -> None:
    assert len(LIGHT) == 9


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_feeds_go_straight_into_a_session(path: Path) -> None:
    with pytest.warns(UserWarning, match="ImageNet: shortest edge 256, the middle 224 x 224") as said:
        processor = AutoImageProcessor.from_model(path)
    assert [warning.filename for warning in said] == [__file__]
    (feed,) = processor.feeds(picture())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    outputs = onnxruntime.InferenceSession(str(path), options).run(None, feed.arrays)
    assert outputs[0].shape[:2] == (1, 1000)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_the_warning_says_what_happens(channels, dtype):
    graph = ladder(32, 48, channels=channels, dtype=dtype)
    mean, std = {1: ([0.449], [0.226]), 3: ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])}[channels]
    said = "plain bytes" if dtype == "uint8" else f"scaled to 0..1, mean {mean}, standard deviation {std}"
    with pytest.warns(UserWarning, match=re.escape(f"shortest edge 55, the middle 32 x 48, {said}. ")):
        plain = default_image_processor(graph)
    white = np.full((40, 60), 255, np.uint8)
    made = fix_image_processor(plain, graph)(white, return_tensors="np")["pixel_values"]
    expected = [255] * channels if dtype == "uint8" else (1 - np.array(mean)) / np.array(std)
    assert made.shape == (1, channels, 32, 48)
    np.testing.assert_allclose(made[0, :, 16, 24], expected, rtol=1e-5)
