"""Contenders that classify texts. Each function loads one, and returns its calls by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .inputs import SHORT_TEXT, mixed_texts, text_of
from .models import LADDER
from .workers import Calls

SHORT, LIST, PADDED, FLOOR = "short", "list", "padded", "floor"
BATCHES = (8, 16, 32)
LENGTHS = (8, 16, 32, 64, 128, 256)
TASK = "text-classification"
_PADDED = {"padding": "max_length", "max_length": 512, "truncation": True}


def pytorch(folder: str, count: int, *, compiled: bool = False) -> Calls:
    """The pipeline of transformers on PyTorch, as it comes or compiled."""
    import torch
    import transformers

    place = Path(folder) / "original"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(place).eval()
    pipe = transformers.pipeline(TASK, model=model, tokenizer=transformers.AutoTokenizer.from_pretrained(place))
    if compiled:
        model.forward = torch.compile(model.forward, dynamic=True)
        pipe(SHORT_TEXT)
    return _calls(pipe, folder, count)


def stock(folder: str, count: int) -> Calls:
    """The pipeline of transformers on stock optimum-onnx."""
    import transformers
    from optimum.onnxruntime import ORTModelForSequenceClassification

    place = Path(folder) / "stock"
    model = ORTModelForSequenceClassification.from_pretrained(place)
    pipe = transformers.pipeline(TASK, model=model, tokenizer=transformers.AutoTokenizer.from_pretrained(place))
    return _calls(pipe, folder, count)


def openvino(folder: str, count: int) -> Calls:
    """The pipeline of transformers on OpenVINO, through optimum-intel."""
    import transformers
    from optimum.intel import OVModelForSequenceClassification

    place = Path(folder) / "openvino"
    model = OVModelForSequenceClassification.from_pretrained(place)
    pipe = transformers.pipeline(TASK, model=model, tokenizer=transformers.AutoTokenizer.from_pretrained(place))
    return _calls(pipe, folder, count)


def ours(folder: str, count: int, dtype: str) -> Calls:
    """This package's pipeline, and by hand what it costs to do without it, on the same session."""
    pipe = our_pipeline(folder, dtype)
    session = pipe.model.runtime.session(0)
    classify = by_hand(session, str(Path(folder) / dtype), pipe.model.config.id2label)
    return {**_calls(pipe, folder, count), FLOOR: partial(classify, SHORT_TEXT)}


def our_pipeline(folder: str, dtype: str, task: str = TASK) -> Any:
    """Returns this package's pipeline on the one dynamic graph, which runs at the lengths of a ladder."""
    import optimum_fixedshape

    return optimum_fixedshape.pipeline(task, model=str(Path(folder) / dtype), model_kwargs={"shapes": LADDER})


def by_hand(session: Any, folder: str, names: Any) -> Callable[[str], Any]:
    """Returns the loop that a careful user writes: `tokenizers`, NumPy, the session, NumPy."""
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.no_padding()
    wanted = [each.name for each in session.get_inputs()]

    def classify(text: str) -> Any:
        encoded = tokenizer.encode(text)
        known = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask, "token_type_ids": encoded.type_ids}
        logits = session.run(None, {name: np.array([known[name]], np.int64) for name in wanted})[0][0]
        odds = np.exp(logits - logits.max())
        best = int(odds.argmax())
        return [{"label": names[best], "score": float(odds[best] / odds.sum())}]

    return classify


def _calls(pipe: Any, folder: str, count: int) -> Calls:
    tokenizer_file = str(Path(folder) / "original" / "tokenizer.json")
    texts = mixed_texts(count, tokenizer_file)
    return {
        SHORT: partial(pipe, SHORT_TEXT),
        PADDED: partial(pipe, SHORT_TEXT, **_PADDED),
        LIST: partial(pipe, texts),
        **{batched(size): partial(pipe, texts, batch_size=size) for size in BATCHES},
        **{of_length(length): partial(pipe, text_of(length, tokenizer_file)) for length in LENGTHS},
    }


def batched(size: int) -> str:
    """Returns the name of the call with a list in batches."""
    return f"{LIST} in batches of {size}"


def of_length(tokens: int) -> str:
    """Returns the name of the call with one text of so many tokens."""
    return f"{tokens} tokens"
