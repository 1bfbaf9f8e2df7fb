"""`report_ladder`: how much of what a ladder computes for a user's texts is real, and which ladder would be best."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from .bench import task_to_time
from .contract import SEQUENCE
from .errors import UnsupportedTaskError
from .suggesting import LadderSuggestion, real_share, suggest_ladder

Texts = Iterable[str | tuple[str, str]]
_TEXTS_AT_ONCE = 1024


@dataclass(frozen=True)
class LadderReport:
    """The ladder of a model and the best one, for the same texts.

    Attributes:
        present: The tokens of each rung that the model has; empty where its graph takes any number.
        present_real: The share of the tokens computed on these rungs that are real, 0 to 1; 1 where there are none.
        present_too_long: How many texts are longer than the largest of them, and count as cut to it.
        suggestion: The best ladder.
    """

    present: tuple[int, ...]
    present_real: float
    present_too_long: int
    suggestion: LadderSuggestion

    @property
    def shape_option(self) -> str:
        """What makes the suggested ladder, for ``optimum-fixedshape export`` and ``pin``."""
        return f"--shape {SEQUENCE}={','.join(map(str, self.suggestion.rungs))}"

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain types, ready for JSON."""
        return {**asdict(self), "shape_option": self.shape_option}


def report_ladder(
    model: str | Path, texts: Texts, *, max_rungs: int = 8, multiple_of: int = 4, **hub_options: Any
) -> LadderReport:
    """Returns how well the ladder of a model fits texts, and the ladder that fits them best.

    Only the tokenizer reads the texts; the graphs stay closed.

    Args:
        model: An ``.onnx`` file, a folder or a Hub repo id.
        texts: Any number of texts or pairs of texts, read as needed.
        max_rungs: How many rungs the suggested ladder may have.
        multiple_of: What they are multiples of.
        **hub_options: ``revision=``, ``subfolder=``, ``token=``, ``cache_dir=``, ``local_files_only=``, ``file_name=``
            and ``variant=``.

    Raises:
        GraphNotFoundError: There is no graph.
        InvalidArgumentError: There are no texts, or an argument is below 1.
        ProcessorError: The model has no tokenizer.
        UnsupportedTaskError: The graph takes no tokens, or the model writes.
    """
    task_to_time(model, hub_options)
    from .processors.auto import AutoTokenizer

    tokenizer = AutoTokenizer.from_model(model, **hub_options)
    if SEQUENCE not in tokenizer.ladder.largest.sizes:
        taken = ", ".join(map(str, tokenizer.ladder.largest.inputs))
        raise UnsupportedTaskError(f"{model} takes no tokens, but {taken}.", task=None)
    plain = tokenizer.plain()
    lengths = list(_lengths(plain, texts))
    longest = plain.model_max_length
    suggestion = suggest_ladder(lengths, max_rungs, multiple_of=multiple_of, limit=longest)
    sizes = {rung.sequence_length for rung in tokenizer.ladder.rungs}
    present = tuple(sorted(size for size in sizes if size is not None)) if None not in sizes else ()
    too_long = sum(length > present[-1] for length in lengths) if present else 0
    return LadderReport(present, real_share(lengths, present) if present else 1.0, too_long, suggestion)


def _lengths(tokenizer: Any, texts: Texts) -> Iterator[int]:
    remaining = iter(texts)
    while some := list(islice(remaining, _TEXTS_AT_ONCE)):
        yield from map(len, tokenizer(some, verbose=False)["input_ids"])
