"""Graphs that nobody saved an image processor with: the nine in the onnx package, which make their own weights."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest

from optimum_fixedshape import read_contract
from optimum_fixedshape.contract import ShapeContract, ShapeLadder
from optimum_fixedshape.processors.canvas import default_image_processor
from optimum_fixedshape.processors.image import fix_image_processor

from .pictures import picture

LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))


def test_all_are_there() -> None:
    assert len(LIGHT) == 9


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_feeds_go_straight_into_a_session(path: Path) -> None:
    contract = read_contract(path)
    assert isinstance(contract, ShapeContract)
    ladder = ShapeLadder((contract,))
    with pytest.warns(UserWarning, match="ImageNet"):
        plain = default_image_processor(ladder)
    (feed,) = fix_image_processor(plain, ladder).feeds(picture())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    outputs = onnxruntime.InferenceSession(str(path), options).run(None, feed.arrays)
    assert outputs[0].shape[:2] == (1, 1000)
