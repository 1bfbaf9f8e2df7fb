"""Lean paths of pipelines that read texts: Rust's tokenizer, the graph, and one pass over what came out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from transformers.tokenization_utils_base import TruncationStrategy

from optimum_fixedshape.contract import BATCH, SEQUENCE
from optimum_fixedshape.processors.text import FixedShapeTokenizer

from .path import PLAIN, LeanPath, Params
from .rows import Rows, TextRows

Text = str | tuple[str, str]
_PADS_NOTHING = (None, False, True, "longest", "do_not_pad")  # alone, a text is the longest
_CUTS = (None, False, True, *(each.value for each in TruncationStrategy))


class Encoded(NamedTuple):
    """One encoded text.

    Attributes:
        item: Its place among the items of the call.
        text: What was encoded.
        encoding: What Rust made of it.
    """

    item: int
    text: Text
    encoding: Any


class TextPath(LeanPath):
    """Texts in, one answer for each out. What Rust's tokenizer cannot do alone goes the plain way."""

    output: ClassVar[str] = "logits"
    """The output that answers are read from."""

    axes: ClassVar[tuple[str | None, ...]] = (BATCH, None)
    """What the axes of the output stand for."""

    needs_offsets: ClassVar[bool] = False
    """Whether answers point into the text."""

    def __init__(self, pipe: Any) -> None:
        super().__init__(pipe)
        self.rows = TextRows(pipe.model, pipe.tokenizer, self.output)
        self._limit = pipe.tokenizer.limit

    @classmethod
    def takes(cls, pipe: Any) -> bool:
        """Whether the graph takes tokens alone, and the tokenizer's own class adds nothing to Rust's."""
        contract = pipe.model.contract
        return (
            isinstance(pipe.tokenizer, FixedShapeTokenizer)
            and pipe.tokenizer.is_rust_alone
            and pipe.tokenizer.exact_length
            and pipe.tokenizer.limit == pipe.model.ladder.limit(SEQUENCE)
            and TextRows.takes(contract)
            and any(spec.name == cls.output and spec.roles() == cls.axes for spec in contract.outputs)
        )

    def answers(self, items: Sequence[Any], rows: int, preprocess: Params, postprocess: Params) -> list[Any]:
        """Returns the answer to each item, in order, or `PLAIN`."""
        answers = [PLAIN] * len(items)
        call = self.tokenizer_call(preprocess)
        if call is not None and (encoded := self.encode(items, call)):
            runs: Iterable[Rows]
            if len(encoded) == 1:
                runs = (self.rows.run_one(encoded[0].encoding),)
            else:
                runs = self.rows.run([each.encoding for each in encoded], rows)
            for index, answer in self.read(encoded, runs, postprocess):
                answers[encoded[index].item] = answer
        return answers

    def tokenizer_call(self, preprocess: Params) -> Mapping[str, Any] | None:
        """Returns ``truncation`` and ``max_length`` of a call; None where transformers should look at it."""
        if not preprocess:
            return preprocess
        said = {"padding": None, "truncation": None, "max_length": None} | dict(preprocess)
        padding, truncation, most = said.pop("padding"), said["truncation"], said["max_length"]
        is_known = len(said) == 2 and _is_one_of(_PADS_NOTHING, padding) and _is_one_of(_CUTS, truncation)
        return said if is_known and (most is None or (truncation and type(most) is int)) else None

    def text_of(self, item: Any) -> Text | None:
        """Returns the text or the pair that an item stands for; None where transformers should look at it."""
        return item if isinstance(item, str) else None

    def encode(self, items: Sequence[Any], call: Mapping[str, Any]) -> list[Encoded]:
        """Returns the encodings of those items that are texts and that a rung holds.

        Args:
            items: What the caller passed.
            call: ``truncation`` and ``max_length``, as for `FixedShapeTokenizer.rust`.
        """
        tokenizer = self.pipe.tokenizer
        texts = [(place, text) for place, item in enumerate(items) if (text := self.text_of(item)) is not None]
        limit = self._limit or tokenizer.model_max_length  # of one longer than this transformers warns
        try:
            rust = tokenizer.rust(**call)
            encode = rust.encode_batch if self.needs_offsets else rust.encode_batch_fast
            encodings = encode([text for _, text in texts])
        except Exception:  # it is raised again in the place of its item, when those before it are answered
            return []
        each = zip(texts, encodings, strict=True)
        return [Encoded(place, text, found) for (place, text), found in each if 0 < len(found) <= limit]

    @abstractmethod
    def read(self, encoded: Sequence[Encoded], runs: Iterable[Rows], postprocess: Params) -> Iterator[tuple[int, Any]]:
        """Yields the answers, each with its place in `encoded`."""


def _is_one_of(known: Sequence[Any], value: Any) -> bool:
    """Whether a switch is known: 1 equals True, but transformers does not take it."""
    return (value is None or isinstance(value, (bool, str))) and value in known
