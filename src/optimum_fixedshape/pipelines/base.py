"""What every pipeline does: full batches, grouped by rung, in the caller's order; transformers does the rest.

transformers' pipeline classes prepare an item, call the model, and read the answer off its output. Only the middle
changes here: items are prepared ahead, run together, and each is then handed its own output as if it had been alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, ClassVar, NamedTuple

import numpy as np
from transformers.pipelines.base import ChunkPipeline
from transformers.pipelines.pt_utils import PipelineIterator

from optimum_fixedshape.contract import SAMPLES, SEQUENCE
from optimum_fixedshape.errors import InputTooLongError, UnsupportedTaskError
from optimum_fixedshape.fitting import Arrays
from optimum_fixedshape.models.base import FixedShapeMixin
from optimum_fixedshape.processors.combined import parts_of
from optimum_fixedshape.runtime import Runtime
from optimum_fixedshape.tasks import Overflow, Task, find_task
from optimum_fixedshape.windows import Windows, cut_windows, merge_windows, plan_windows

from . import streaming
from .ahead import items_at_once, take
from .inputs import Restarting, as_transformers_takes_it
from .lean.path import KNOWN_TO_PATHS, PLAIN, LeanPath
from .processors import KINDS, check_processors, fix_processors, overflow_of

_ITEMS = ("inputs", "sequences", "images", "image", "audios", "videos")
Params = dict[str, Any]


class FixedShapePipeline:
    """Mixed into transformers' pipeline classes.

    Args:
        model: A model of this package.
        tokenizer: Any tokenizer. Like all processors it is told what the graph takes.
        image_processor: Any image processor.
        feature_extractor: Any feature extractor.
        video_processor: Any video processor, or image processor that takes clips.
        processor: A combination of them, in place of its parts.
        overflow: What happens to items longer than the largest rung; by default what a processor was made with,
            else what `tasks.TASKS` says for the task.
        max_delay_items: How many items of a generator or a dataset are taken before the first of them is answered, so
            that those of like size share a run. By default as many as fill a few batches.
        device: As in transformers; by default the model's.
        **kwargs: What transformers' class takes.

    Raises:
        ProcessorError: A processor that the task needs is missing, or is of the wrong kind.
        UnsupportedTaskError: The model is for another task.
    """

    lean_path: ClassVar[type[LeanPath] | None] = None
    """How the task is answered without transformers' loops, or None."""

    _path: LeanPath | None

    fixed_task: str
    lean: bool = True
    """Whether items go the lean path where there is one; the answers are the same."""

    model: Any
    tokenizer: Any
    _preprocess_params: Params
    _postprocess_params: Params
    overflow: Overflow
    run_items = staticmethod(Runtime.run)
    stream = streaming.stream

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        feature_extractor: Any = None,
        image_processor: Any = None,
        *,
        video_processor: Any = None,
        processor: Any = None,
        overflow: Overflow | None = None,
        max_delay_items: int | None = None,
        device: Any = None,
        **kwargs: Any,
    ) -> None:
        row = find_task(self.fixed_task, model=_name_of_class(model))
        _check_model(model, row)
        apart = zip(KINDS, (tokenizer, image_processor, feature_extractor, video_processor), strict=True)
        given = (parts_of(processor) if processor is not None else {}) | {
            k: each for k, each in apart if each is not None
        }
        needed = check_processors(row, model.contract, given)
        self.overflow = overflow or overflow_of(needed) or row.overflow
        self.max_delay_items = max_delay_items
        kwargs.setdefault("task", row.name)
        kwargs.update(fix_processors(needed, row, model.ladder, self.overflow))
        base: Any = super()
        base.__init__(model=model, device=model.device if device is None else device, **kwargs)

    def check_model_type(self, supported_models: Any) -> None:
        """Accepts the model: `__init__` has checked it against our own table."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what transformers' class returns; an empty list for an empty list.

        Raises:
            InputTooLongError: An item is longer than the largest rung, and `overflow` is ``"error"``.
        """
        if not kwargs and len(args) == 1 and isinstance(args[0], str) and (path := self.path):
            answer = path.answers(args, 1, self._preprocess_params, self._postprocess_params)[0]
            if answer is not PLAIN:
                return path.alone(answer)
        base: Any = super()
        inputs = args[0] if args else next((kwargs[name] for name in _ITEMS if name in kwargs), None)
        if isinstance(inputs, list) and not inputs:
            return []
        known = {name: as_transformers_takes_it(value) for name, value in kwargs.items()}
        return base.__call__(*map(as_transformers_takes_it, args), **known)

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: Params,
        forward_params: Params,
        postprocess_params: Params,
    ) -> PipelineIterator:
        """Returns the answers, computed as they are asked for."""
        call = _Call(batch_size, preprocess_params, forward_params, postprocess_params)
        run = partial(self._answers, call=call, ahead=self._look_ahead(inputs, batch_size))
        answers = Restarting(inputs, run) if isinstance(inputs, Sized) else run(inputs)
        return PipelineIterator(answers, _same, {})

    def run_single(
        self, inputs: Any, preprocess_params: Params, forward_params: Params, postprocess_params: Params
    ) -> Any:
        """Returns the answer to one item."""
        return next(self._answers_to([inputs], 0, _Call(1, preprocess_params, forward_params, postprocess_params)))

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Saves the model and its processors to a folder."""
        for kind in KINDS:
            if (processor := getattr(self, kind, None)) is not None:
                processor.save_pretrained(save_directory)
        self.model.save_pretrained(save_directory, **kwargs)  # uploads the folder if asked to

    @property
    def cuts_nothing(self) -> bool:
        """Whether a text longer than the graph stays whole where transformers' class would cut it unasked."""
        return self.overflow != "truncate" and self.model.ladder.limit(SEQUENCE) is not None

    def _look_ahead(self, inputs: Any, batch_size: int) -> int:
        """How many items are taken at once."""
        if self.max_delay_items is not None and not isinstance(inputs, list):
            return self.max_delay_items
        return max(1, batch_size, items_at_once(self.model.contract, inputs, batch_size))

    def _answers(self, items: Iterable[Any], *, call: _Call, ahead: int) -> Iterator[Any]:
        source, first, failure = iter(items), 0, None
        while failure is None:
            some, failure = take(source, ahead)
            if not some:
                break
            yield from self._answers_to(some, first, call)
            first += len(some)
        if failure is not None:
            raise failure

    def _answers_to(self, items: Sequence[Any], first: int, call: _Call) -> Iterator[Any]:
        """The answers to some of the items, the first of which has this place among all."""
        path = self.path
        answers = path.answers(items, call.rows, call.preprocess, call.postprocess) if path else [PLAIN] * len(items)
        rest = [(first + i, item) for i, item in enumerate(items) if answers[i] is PLAIN]
        plain = self._plain_answers(rest, call)
        for answer in answers:
            yield next(plain) if answer is PLAIN else answer

    @property
    def path(self) -> LeanPath | None:
        """The lean path, or None where all items go the way of transformers' class."""
        if not self.lean or self.lean_path is None:
            return None
        if "_path" not in self.__dict__:
            self._path = self.lean_path.of(self)
        return self._path

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in KNOWN_TO_PATHS:
            self.__dict__.pop("_path", None)

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.__dict__.items() if name != "_path"}  # a copy may become another
        return {**kept, "call_count": 0}  # which would make it another to `datasets` after each call

    def _plain_answers(self, items: Sequence[tuple[int, Any]], call: _Call) -> Iterator[Any]:
        """The answers as transformers' own class makes them of the model's outputs."""
        this: Any = self
        prepared = (self._prepare(index, item, call.preprocess) for index, item in items)
        some, failure = take(prepared, len(items))
        outputs = self._outputs([chunk for chunks in some for chunk in chunks])
        for chunks in some:  # pragma: no branch  # nobody asks behind the last answer
            results = zip(chunks, outputs, strict=False)
            forwarded = [self._forwarded(chunk.inputs, output, call.forward) for chunk, output in results]
            yield this.postprocess(forwarded if isinstance(self, ChunkPipeline) else forwarded[0], **call.postprocess)
        if failure is not None:  # pragma: no branch  # likewise
            raise failure

    def _prepare(self, index: int, item: Any, params: Params) -> list[_Chunk]:
        this: Any = self
        try:
            prepared = this.preprocess(item, **params)
            return [self._chunk(each) for each in (prepared if isinstance(self, ChunkPipeline) else [prepared])]
        except InputTooLongError as error:
            error.index, error.args = index, (f"Item {index}: {error}",)
            raise

    def _chunk(self, inputs: Mapping[str, Any]) -> _Chunk:
        contract, named = self.model.contract, self._named(inputs)
        arrays = {name: np.asarray(named[name]) for name in contract.input_names if name in named}
        windows = self._windows(inputs) if self.overflow == "window" else None
        return _Chunk(inputs, cut_windows(arrays, contract, windows) if windows else [arrays], windows)

    def _named(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The graph's inputs by name, among what transformers' `preprocess` gave."""
        return inputs

    def _windows(self, inputs: Mapping[str, Any]) -> Windows | None:
        """How an item is cut, or None where the largest rung holds it."""
        for name, role in (("input_ids", SEQUENCE), ("input_values", SAMPLES)):
            limit = self.model.ladder.limit(role)
            if limit is not None and name in inputs and (size := inputs[name].shape[1]) > limit:
                special = inputs["special_tokens_mask"][0] if role == SEQUENCE else np.zeros(size, bool)
                return plan_windows(np.asarray(special), limit, role)
        return None

    def _outputs(self, chunks: Sequence[_Chunk]) -> Iterator[Any]:
        """The model's output for each chunk, as if it had been alone."""
        results = iter(self.run_items(self.model.runtime, [arrays for chunk in chunks for arrays in chunk.arrays]))
        for chunk in chunks:  # pragma: no branch  # nobody asks behind the last output
            parts = list(islice(results, len(chunk.arrays)))
            merged = merge_windows(parts, self.model.contract, chunk.windows) if chunk.windows else parts[0]
            yield self.model.output_of(merged, device="cpu")

    def _forwarded(self, inputs: Any, output: Any, params: Params) -> Any:
        """What transformers' `_forward` makes of `inputs` where the model's output is known already."""
        replay: Any = copy.copy(self)
        replay.model = StandIn(self.model, call=lambda **_: output)
        return replay._forward(inputs, **params)


class _Call(NamedTuple):
    """What one call asks for: the rows of a run where the graph leaves them open, and transformers' parameters."""

    rows: int
    preprocess: Params
    forward: Params
    postprocess: Params


@dataclass(frozen=True)
class _Chunk:
    """An item as the tokenizer made it, or a part of one.

    Attributes:
        inputs: What transformers' `preprocess` gave.
        arrays: What the graph gets: one set of arrays, or one for each window.
        windows: How it was cut, or None.
    """

    inputs: Any
    arrays: list[Arrays]
    windows: Windows | None


class StandIn:
    """In place of a model or a tokenizer: called, it does something else; whatever is not replaced is the real one's.

    Args:
        real: What it stands for.
        call: What happens when it is called.
        **replaced: Attributes with other values.
    """

    def __init__(self, real: Any, *, call: Callable[..., Any], **replaced: Any) -> None:
        self.__dict__.update(replaced, _real=real, forward=call)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what `call` returns."""
        return self.forward(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_real"], name)


def _same(answer: Any) -> Any:
    return answer


def _name_of_class(model: Any) -> str | None:
    """The model class that the task table knows."""
    return model.task.model if isinstance(model, FixedShapeMixin) and model.task else None


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
