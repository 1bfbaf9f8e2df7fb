"""Contenders for many texts: batches in arrival order, ladders of several kinds, and many callers at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .inputs import MOST_TOKENS, mixed_lengths, mixed_texts
from .models import LENGTHS
from .texts import TASK, by_hand
from .workers import Calls

CALLERS = 64
BATCHES = (8, 32)
RUNGS = 8
PART = "fp32"
EXACT, SUGGESTED = "exact lengths", f"suggested, {RUNGS} rungs"
_CALLING_SECONDS = 4.0
_CLOSER = (8, 12, 16, 20, 24, 32, 40, 48, 60, 76, 96, 120, 152, 192, 240)
_KINDS: Mapping[str, tuple[int, ...]] = {
    "x 1.25": _CLOSER,
    "x 1.41": LENGTHS,
    "x 2": (8, 16, 32, 64, 128, 256),
    "always 256": (256,),
    "always 512": (512,),
}
KINDS = (EXACT, SUGGESTED, *_KINDS)


def arrival_order(folder: str, count: int) -> Calls:
    """Plain onnxruntime on the stock dynamic graph: batches as the texts come, padded to the longest of each."""
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    session = onnxruntime.InferenceSession(str(Path(folder) / "stock" / "model.onnx"))
    tokenizer = Tokenizer.from_file(str(Path(folder) / "stock" / "tokenizer.json"))
    tokenizer.enable_padding()
    texts = _texts(folder, count)

    def classify(batch: int) -> Any:
        logits = []
        for start in range(0, len(texts), batch):
            encoded = tokenizer.encode_batch(texts[start : start + batch])
            feed = {
                "input_ids": np.array([each.ids for each in encoded], np.int64),
                "attention_mask": np.array([each.attention_mask for each in encoded], np.int64),
                "token_type_ids": np.array([each.type_ids for each in encoded], np.int64),
            }
            logits.append(session.run(None, feed)[0])
        return np.concatenate(logits)

    return {in_batches(batch): partial(classify, batch) for batch in BATCHES}


def ladder(folder: str, count: int) -> Calls:
    """This package's pipeline on rungs of any number of rows."""
    pipe, texts = _on_ladder(folder, {"sequence_length": list(LENGTHS)}), _texts(folder, count)
    return {in_batches(batch): partial(pipe, texts, batch_size=batch) for batch in BATCHES}


def in_batches(batch: int) -> str:
    """Returns the name of the call with batches of so many texts."""
    return f"batch {batch}"


def ladders(folder: str, count: int) -> Calls:
    """This package's pipeline, one row a run, on ladders of several kinds."""
    from optimum_fixedshape import suggest_ladder

    best = suggest_ladder(mixed_lengths(4000, seed=1), max_rungs=RUNGS, limit=MOST_TOKENS).rungs
    texts = _texts(folder, count)
    kinds: Mapping[str, Any] = {EXACT: None, SUGGESTED: best, **_KINDS}
    return {name: partial(_on_ladder(folder, _one_row(lengths)), texts) for name, lengths in kinds.items()}


def single_calls(folder: str) -> Calls:
    """Many threads on one session, each with a loop by hand."""
    pipe = _on_ladder(folder, _one_row(LENGTHS))
    session = pipe.model.runtime.session(0)
    classify = by_hand(session, str(Path(folder) / PART), pipe.model.config.id2label)
    return {"callers": partial(_called_by_many, classify, _texts(folder, CALLERS))}


def stream(folder: str) -> Calls:
    """Many threads on one batcher."""
    pipe = _on_ladder(folder, {"sequence_length": list(LENGTHS)})
    return {"callers": partial(_called_by_many, pipe.stream(), _texts(folder, CALLERS))}


def _on_ladder(folder: str, shapes: Mapping[str, Any] | None) -> Any:
    import optimum_fixedshape

    return optimum_fixedshape.pipeline(TASK, model=str(Path(folder) / PART), model_kwargs={"shapes": shapes})


def _one_row(lengths: Any) -> Mapping[str, Any] | None:
    return lengths and {"batch_size": 1, "sequence_length": list(lengths)}


def _texts(folder: str, count: int) -> list[str]:
    return mixed_texts(count, str(Path(folder) / "original" / "tokenizer.json"))


def _called_by_many(classify: Callable[[str], Any], texts: list[str]) -> dict[str, float]:
    """Texts a second, and the seconds of a call that half and that one in a hundred of all calls exceed."""
    import numpy as np

    taken: list[float] = []
    end = time.perf_counter() + _CALLING_SECONDS

    def call(text: str) -> None:
        while (start := time.perf_counter()) < end:
            classify(text)
            taken.append(time.perf_counter() - start)

    threads = [threading.Thread(target=call, args=(text,)) for text in texts]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    middle, slow = np.percentile(taken, (50, 99))
    return {"rate": len(taken) / (time.perf_counter() - began), "p50": float(middle), "p99": float(slow)}
