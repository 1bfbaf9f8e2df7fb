"""Contenders that turn texts into vectors, with the real MiniLM. Each function loads one, and returns its calls."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .inputs import SHORT_TEXT, mixed_texts
from .texts import LIST, SHORT, our_pipeline
from .workers import Calls

VECTORS = "vectors"
_WIDTH = 384


def sentence_transformers(folder: str, count: int, part: str, backend: str) -> Calls:
    """sentence-transformers, on PyTorch or on one of its other backends."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(Path(folder) / part), backend=backend, device="cpu")
    return _calls(partial(model.encode, show_progress_bar=False), folder, count)


def fastembed(folder: str, count: int) -> Calls:
    """fastembed, on the graph that optimum exports."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        model="local/minilm",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="local/minilm"),
        dim=_WIDTH,
        model_file="model.onnx",
    )
    model = TextEmbedding("local/minilm", specific_model_path=str(Path(folder) / "stock"))
    return _calls(lambda texts: list(model.embed(texts)), folder, count)


def ours(folder: str, count: int, dtype: str) -> Calls:
    """This package's `embed`."""
    return _calls(our_pipeline(folder, dtype, "feature-extraction").embed, folder, count)


def _calls(embed: Callable[[Any], Any], folder: str, count: int) -> Calls:
    import numpy as np

    texts = mixed_texts(count, str(Path(folder) / "original" / "tokenizer.json"))
    return {
        SHORT: partial(embed, SHORT_TEXT),
        LIST: partial(embed, texts),
        VECTORS: lambda: np.asarray(embed(texts[:8])).tolist(),
    }
