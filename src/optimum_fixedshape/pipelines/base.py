"""What every pipeline does: full batches, grouped by rung, in the caller's order; transformers does the rest.

transformers' pipeline classes prepare an item, call the model, and read the answer off its output. Only the middle
changes here: items are prepared ahead, run together, and each is then handed its own output as if it had been alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from typing import Any

import numpy as np
from torch.utils.data import Dataset
from transformers.pipelines.base import ChunkPipeline

from ..contract import BATCH, SEQUENCE, ShapeContract
from ..errors import ProcessorError, UnsupportedTaskError
from ..fitting import Arrays
from ..models.base import FixedShapeMixin
from ..processors.text import FixedShapeTokenizer, fix_tokenizer
from ..tasks import Overflow, Task, find_task
from ..windows import cut_windows, merge_windows, plan_windows

_LOOK_AHEAD_BATCHES = 16
_LOOK_AHEAD_BYTES = 64 * 2**20


class FixedShapePipeline:
    """Mixed into transformers' pipeline classes.

    Args:
        model: A model of this package.
        tokenizer: Any tokenizer; it is told what the graph takes.
        overflow: What happens to items longer than the largest rung; by default what the tokenizer was made with,
            else what `tasks.TASKS` says for the task.
        **kwargs: What transformers' class takes.

    Raises:
        ProcessorError: The tokenizer is missing or none.
        UnsupportedTaskError: The model is for another task.
    """

    fixed_task: str
    model: Any
    tokenizer: Any
    overflow: Overflow

    def __init__(
        self, model: Any, tokenizer: Any = None, *, overflow: Overflow | None = None, device: Any = None, **kwargs: Any
    ) -> None:
        row = find_task(self.fixed_task)
        _check_model(model, row)
        if tokenizer is None:
            raise ProcessorError(
                f"The task {row.name} needs a tokenizer: pass tokenizer= or data_processor=.",
                expected="a tokenizer",
                given="nothing",
            )
        own = getattr(tokenizer, "overflow", "error") if isinstance(tokenizer, FixedShapeTokenizer) else "error"
        self.overflow = overflow or (row.overflow if own == "error" else own)
        tokenizer = fix_tokenizer(tokenizer, model.ladder, overflow=self.overflow, exact_length=True)
        kwargs.setdefault("task", row.name)
        base: Any = super()
        base.__init__(model=model, tokenizer=tokenizer, device=model.device if device is None else device, **kwargs)

    def check_model_type(self, supported_models: Any) -> None:
        """Accepts the model: `__init__` has checked it against our own table."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what transformers' class returns; an empty list for an empty list."""
        if args and isinstance(args[0], list) and not args[0]:
            return []
        base: Any = super()
        return base.__call__(*(_as_transformers_takes_it(arg) for arg in args), **kwargs)

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Answers:
        """Returns the answers, computed as they are asked for."""
        sized = isinstance(inputs, Sized)
        ahead = batch_size if batch_size > 1 else _look_ahead(self.model.contract, sized=sized)
        steps = self._answers(_items(inputs), ahead, preprocess_params, forward_params, postprocess_params)
        return Answers(steps, len(inputs) if sized else None)

    def run_single(
        self,
        inputs: Any,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Any:
        """Returns the answer to one item."""
        return next(self._answers(iter([inputs]), 1, preprocess_params, forward_params, postprocess_params))

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Saves the model and its tokenizer to a folder."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.tokenizer.save_pretrained(save_directory)

    def _answers(
        self,
        items: Iterator[Any],
        ahead: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[Any]:
        this: Any = self
        chunked = isinstance(self, ChunkPipeline)
        while some := list(islice(items, ahead)):
            prepared = [this.preprocess(item, **preprocess_params) for item in some]
            chunks = [list(each) if chunked else [each] for each in prepared]
            outputs = iter(self._run([chunk for each in chunks for chunk in each]))
            for each in chunks:
                given = [self._forwarded(chunk, next(outputs), forward_params) for chunk in each]
                yield this.postprocess(given if chunked else given[0], **postprocess_params)

    def _run(self, chunks: Sequence[Mapping[str, Any]]) -> list[Any]:
        """The model's output for each chunk, as if it had been alone."""
        contract, limit = self.model.contract, self.model.ladder.limit(SEQUENCE)
        pieces: list[Arrays] = []
        plans = []
        for chunk in chunks:
            arrays = {name: np.asarray(chunk[name]) for name in contract.input_names if name in chunk}
            windows = None
            if self.overflow == "window" and limit is not None and _length(arrays, contract) > limit:
                windows = plan_windows(np.asarray(chunk["special_tokens_mask"])[0], limit)
            plans.append(windows)
            pieces += [arrays] if windows is None else cut_windows(arrays, contract, windows)
        results = iter(self.model.runtime.run(pieces))
        outputs = []
        for windows in plans:
            parts = list(islice(results, 1 if windows is None else len(windows.tokens)))
            merged = parts[0] if windows is None else merge_windows(parts, contract, windows)
            outputs.append(self.model.output_of(merged, device="cpu"))
        return outputs

    def _forwarded(self, chunk: Any, output: Any, forward_params: dict[str, Any]) -> Any:
        """What transformers' `_forward` makes of `chunk` where the model's output is known already."""
        replay: Any = copy.copy(self)
        replay.model = _Replay(self.model, output)
        forwarded = replay._forward(chunk, **forward_params)
        if isinstance(self, ChunkPipeline):
            forwarded.pop("is_last", None)
        return forwarded


class Answers:
    """Answers in the order of the items, computed as they are asked for.

    Args:
        steps: Yields the answers.
        length: How many there will be, or None where nobody knows.
    """

    def __init__(self, steps: Iterator[Any], length: int | None) -> None:
        self._steps = steps
        self._length = length

    def __iter__(self) -> Iterator[Any]:
        return self._steps

    def __next__(self) -> Any:
        return next(self._steps)

    def __len__(self) -> int:
        if self._length is None:
            raise TypeError("The number of answers of a generator is not known.")
        return self._length


class _Replay:
    """A model that answers once, with an output that is there already; everything else is the real model's."""

    def __init__(self, model: Any, output: Any) -> None:
        self._model = model
        self._output = output

    def __call__(self, **inputs: Any) -> Any:
        return self._output

    forward = __call__

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class _Rows(Dataset):  # type: ignore[misc]
    """A dataset of the ``datasets`` library as one that transformers recognises."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]


def _as_transformers_takes_it(inputs: Any) -> Any:
    kind = f"{type(inputs).__module__}.{type(inputs).__name__}"
    if not kind.startswith("datasets."):
        return inputs
    if kind.endswith(".Column"):
        return list(inputs)
    return _Rows(inputs) if isinstance(inputs, Sized) else (row for row in inputs)


def _items(inputs: Any) -> Iterator[Any]:
    """Datasets of torch have a length and places, but some raise no IndexError at their end."""
    return (inputs[i] for i in range(len(inputs))) if isinstance(inputs, Sized) else iter(inputs)


def _look_ahead(contract: ShapeContract, *, sized: bool) -> int:
    """How many items to prepare before they run: enough to fill batches of every rung, bounded in memory."""
    batch = contract.batch_size or 1
    if not sized or contract.batch_size is None:
        return batch
    row = sum(
        4 * int(np.prod([axis.size or 1 for axis in spec.axes or () if axis.role != BATCH])) for spec in contract.outputs
    )
    return max(batch, min(batch * _LOOK_AHEAD_BATCHES, _LOOK_AHEAD_BYTES // max(row, 1)))


def _length(arrays: Arrays, contract: ShapeContract) -> int:
    lengths: Iterable[int] = (
        arrays[spec.name].shape[axis]
        for spec in contract.inputs
        if spec.name in arrays and (axis := spec.axis_of(SEQUENCE)) is not None
    )
    return max(lengths, default=0)


def _check_model(model: Any, row: Task) -> None:
    if not isinstance(model, FixedShapeMixin):
        raise UnsupportedTaskError(
            f"The pipeline {row.name} of this package runs models of this package, got {type(model).__name__}. "
            f"Load it with {row.model}.from_pretrained(...).",
            task=row.name,
        )
    if model.task is not None and model.task.model != row.model:
        raise UnsupportedTaskError(
            f"{type(model).__name__} is a model for {model.task.name}; for {row.name} load it with {row.model}.",
            task=row.name,
        )
