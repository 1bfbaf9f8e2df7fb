"""Which of transformers' pipeline classes to build on."""

from __future__ import annotations

from optimum_fixedshape._compat import stock_pipeline

from . import question_answering


def pipeline_base(name: str) -> type:
    """Returns transformers' pipeline class called `name`, or ours where this transformers has dropped it."""
    return stock_pipeline(name) or getattr(question_answering, name)  # type: ignore[no-any-return]
