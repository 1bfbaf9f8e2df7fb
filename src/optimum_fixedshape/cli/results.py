"""What ``run`` writes: one line of JSON for each item, and files for what JSON cannot hold."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from .console import as_json, emit, json_text
from .items import Item


class Results:
    """Writes answers as they come.

    Args:
        file: Where the lines go; by default stdout.
        folder: Where images and arrays go. By default only their sizes are written, in the place of their content.
    """

    def __init__(self, file: TextIO | None, folder: Path | None) -> None:
        self._file = file
        self._folder = folder
        self._number = 0

    def write(self, item: Item, answer: Any) -> None:
        """Writes the answer to an item."""
        self._number += 1
        names = (f"{self._number:06d}-{index}" for index in count())
        line = json_text({"input": item.value, "output": self._plain(answer, names)})
        if self._file is None:
            emit(line)
        else:
            self._file.write(line + "\n")
            self._file.flush()

    def _plain(self, value: Any, names: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: self._plain(each, names) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._plain(each, names) for each in value]
        if hasattr(value, "convert") and hasattr(value, "size"):
            return self._image(value, names)
        if len(getattr(value, "shape", ())):
            return self._array(value, names)
        return as_json(value)

    def _image(self, image: Any, names: Any) -> Any:
        if self._folder is None:
            return {"kind": "image", "size": list(image.size), "mode": image.mode}
        path = self._folder / f"{next(names)}.png"
        image.save(path)
        return str(path)

    def _array(self, array: Any, names: Any) -> Any:
        import numpy as np

        found = np.asarray(array)
        if self._folder is None:
            return {"kind": "array", "shape": list(found.shape), "dtype": str(found.dtype)}
        path = self._folder / f"{next(names)}.npy"
        np.save(path, found, allow_pickle=False)
        return str(path)
