"""Folders that exist as long as somebody reads from them."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Self


class ScratchFolder:
    """A folder that goes with the last model that reads from it; copies in other processes only borrow it."""

    def __init__(self) -> None:
        self.path = Path(mkdtemp(prefix="optimum-fixedshape-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Path, (self.path,)
