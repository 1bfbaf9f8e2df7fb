"""Lean paths of pipelines that read texts: Rust's tokenizer, the graph, and one pass over what came out."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from optimum_fixedshape.contract import BATCH
from optimum_fixedshape.processors.text import FixedShapeTokenizer

from .path import PLAIN, LeanPath, Params
from .rows import Rows, TextRows

Text = str | tuple[str, str]
_PADS_NOTHING = (None, False, True, "longest", "do_not_pad")  # alone, a text is the longest


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
        makes_types = "token_type_ids" in pipe.tokenizer.model_input_names
        self.rows = TextRows(pipe.model.runtime, self.output, makes_types=makes_types)

    @classmethod
    def takes(cls, pipe: Any) -> bool:
        """Whether the graph takes tokens alone, and the tokenizer's own class adds nothing to Rust's."""
        contract = pipe.model.contract
        return (
            isinstance(pipe.tokenizer, FixedShapeTokenizer)
            and pipe.tokenizer.is_rust_alone
            and TextRows.takes(contract)
            and any(spec.name == cls.output and spec.roles() == cls.axes for spec in contract.outputs)
        )

    def answers(self, items: Sequence[Any], rows: int, preprocess: Params, postprocess: Params) -> list[Any]:
        """Returns the answer to each item, in order, or `PLAIN`."""
        answers = [PLAIN] * len(items)
        if (call := self.tokenizer_call(preprocess)) is not None:
            encoded = self.encode(items, call)
            runs = self.rows.run([each.encoding for each in encoded], rows)
            for index, answer in self.read(encoded, runs, postprocess):
                answers[encoded[index].item] = answer
        return answers

    def tokenizer_call(self, preprocess: Params) -> Mapping[str, Any] | None:
        """Returns ``truncation`` and ``max_length`` of a call; None where transformers should look at it."""
        said = dict(preprocess)
        pads = said.pop("padding", None) not in _PADS_NOTHING
        is_odd = said.get("max_length") is not None and not said.get("truncation")
        return None if pads or is_odd or not said.keys() <= {"truncation", "max_length"} else said

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
        rust, limit = tokenizer.rust(**call), tokenizer.limit or sys.maxsize
        encode = rust.encode_batch if self.needs_offsets else rust.encode_batch_fast
        encodings = encode([text for _, text in texts])
        each = zip(texts, encodings, strict=True)
        return [Encoded(*text, encoding) for text, encoding in each if 0 < len(encoding) <= limit]

    @abstractmethod
    def read(self, encoded: Sequence[Encoded], runs: Iterable[Rows], postprocess: Params) -> Iterator[tuple[int, Any]]:
        """Yields the answers, each with its place in `encoded`."""
