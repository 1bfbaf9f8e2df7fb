"""Contenders that load models: how long that takes, and what memory a ladder takes."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .models import LADDER, SIX_LENGTHS
from .workers import Calls, resident

LOAD, GROWN = "load", "grown"
FIXED_PART, DYNAMIC_PART = "six-fixed-graphs", "fp32"
_CLASS = "ModelForSequenceClassification"
_LONGEST_FIRST = sorted(SIX_LENGTHS, reverse=True)


def pytorch(folder: str) -> Calls:
    """The original, in transformers on PyTorch."""
    import torch
    import transformers

    arrays = {name: torch.from_numpy(array) for name, array in _row(12).items()}
    model_class = getattr(transformers, f"Auto{_CLASS}")
    return {LOAD: lambda: model_class.from_pretrained(Path(folder) / "original")(**arrays)}


def stock(folder: str) -> Calls:
    """Stock optimum-onnx."""
    import optimum.onnxruntime

    model_class = getattr(optimum.onnxruntime, f"ORT{_CLASS}")
    return {LOAD: lambda: model_class.from_pretrained(Path(folder) / "stock")(**_row(12))}


def ours(folder: str, part: str, shapes: Mapping[str, Any] | None = None) -> Calls:
    """This package's model class: on fixed graphs, or on one dynamic graph."""
    import optimum_fixedshape

    model_class = getattr(optimum_fixedshape, f"ORT{_CLASS}")

    def load() -> Any:
        model = model_class.from_pretrained(Path(folder) / part, shapes=shapes)
        model(**_row(12))
        return model

    def grown() -> list[float]:
        before = _settled()
        model = model_class.from_pretrained(Path(folder) / part, shapes=shapes)
        return [_grown_by(lambda: model(**_row(tokens)), before) for tokens in _LONGEST_FIRST]  # noqa: B023

    return {LOAD: load, GROWN: grown}


def our_dynamic_graph(folder: str, part: str = DYNAMIC_PART) -> Calls:
    """This package's model class on one dynamic graph, at ladder lengths."""
    return ours(folder, part, LADDER)


def plain_sessions(folder: str) -> Calls:
    """Plain sessions of onnxruntime on the same fixed graphs, one for each."""
    import onnxruntime

    place = Path(folder) / FIXED_PART
    sessions = []

    def add(tokens: int) -> None:
        name = "model.onnx" if tokens == max(SIX_LENGTHS) else f"model_1x{tokens}.onnx"
        session = onnxruntime.InferenceSession(str(place / name))
        row = _row(tokens)
        session.run(None, {each.name: row[each.name] for each in session.get_inputs()})
        sessions.append(session)

    def grown() -> list[float]:
        before = _settled()
        return [_grown_by(lambda: add(tokens), before) for tokens in _LONGEST_FIRST]  # noqa: B023

    return {GROWN: grown}


def _grown_by(use: Callable[[], Any], before: float) -> float:
    use()
    return _settled() - before


def _settled() -> float:
    """MiB in memory, after all that can go has gone."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return resident()


def _row(tokens: int) -> dict[str, Any]:
    import numpy as np

    ids = np.arange(1000, 1000 + tokens, dtype=np.int64)[None]
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
