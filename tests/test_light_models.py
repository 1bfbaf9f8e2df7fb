"""Graphs that nobody saved an image processor with: the nine in the onnx package, which make their own weights."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest

from optimum_fixedshape import AutoImageProcessor

from .pictures import picture

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
