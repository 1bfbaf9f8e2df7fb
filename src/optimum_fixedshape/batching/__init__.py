"""Single calls from many threads or tasks, joined into batches."""

from .batcher import Batcher

__all__ = ["Batcher"]
