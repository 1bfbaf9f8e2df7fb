"""Real graphs for the fuzzer to start from: ``python -m fuzz.corpus FOLDER`` copies those that the tests use."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import onnx
import onnxruntime

_LARGEST_BYTES = 500_000
_STOCK = Path(__file__).parents[1] / ".stock"


def make(folder: Path) -> None:
    """Copies graphs to `folder`: light and tiny ones, and the stock exports that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    tests = Path(onnx.__file__).parent / "backend/test/data"
    found = [
        *(tests / "light").glob("*.onnx"),
        *(tests / "simple").glob("*/model.onnx"),
        *Path(onnxruntime.__file__).parent.glob("datasets/*.onnx"),
        *_STOCK.glob("*/onnx/*.onnx"),
    ]
    for path in (path for path in found if path.stat().st_size <= _LARGEST_BYTES):
        shutil.copyfile(path, folder / "-".join(path.parts[-3:]))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
