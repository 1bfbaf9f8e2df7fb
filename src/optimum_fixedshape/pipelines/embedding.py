"""`embed`: one vector a text, with the pooling and normalization that the model's repo states."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from optimum_fixedshape.contract import SEQUENCE, ShapeContract, TensorSpec
from optimum_fixedshape.errors import InvalidArgumentError, UnsupportedTaskError
from optimum_fixedshape.fitting import Array
from optimum_fixedshape.pooling import MODES, Pooling
from optimum_fixedshape.processors.encoding import encode
from optimum_fixedshape.sentence_config import SentenceConfig
from optimum_fixedshape.windows import merge_windows

from .lean.rows import Rows

_BYTES_AT_ONCE = 64 * 2**20
_TEXTS_AT_ONCE = 512
_FEATURES = ("last_hidden_state", "token_embeddings")


class EmbeddingMixin:
    """Put before the pipeline of feature extraction: one vector for each text."""

    model: Any
    tokenizer: Any

    _stated: tuple[Any, SentenceConfig | None] | None = None
    """A model, and what its folder says."""

    @property
    def sentence_config(self) -> SentenceConfig | None:
        """What the model's folder says of embeddings, or None where it says nothing.

        Raises:
            InvalidModelError: A file is broken.
        """
        if self._stated is None or self._stated[0] is not self.model:
            self._stated = (self.model, SentenceConfig.from_folder(self.model.home))
        return self._stated[1]

    def embed(
        self,
        texts: str | Iterable[str],
        *,
        pooling: str | Sequence[str] | None = None,
        normalize: bool | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
    ) -> Array:
        """Returns the vectors of texts, ``(texts, width)`` in float32; that of a single text ``(width,)``.

        They are those of sentence-transformers, but that a text longer than the graph is an error unless `overflow`
        says otherwise: with ``"truncate"`` it is cut where sentence-transformers cuts it, or at the largest rung.

        Args:
            texts: A text, or any number of them: a generator is read as needed, and only its vectors are kept.
            pooling: ``"mean"``, ``"cls"``, ``"max"``, ``"mean_sqrt_len_tokens"``, ``"weightedmean"`` or
                ``"lasttoken"``, or several, whose vectors are put side by side. By default what the repo states.
            normalize: Whether vectors have length 1. By default what the repo states.
            prompt_name: Which of the repo's prompts goes before each text. By default the one that the repo names.
            prompt: What goes before each text, in place of one of the repo's; an empty text for nothing.

        Raises:
            InputTooLongError: A text is longer than the largest rung, and `overflow` is ``"error"``.
            InvalidArgumentError: There is no such pooling or prompt; or the repo states no pooling, and nobody else.
            UnsupportedTaskError: The repo's vectors need a module that is not computed here.
        """
        stated = self.sentence_config or SentenceConfig(())
        pool = self._pooling(pooling, normalize)
        before = stated.prompt(prompt_name) if prompt is None else prompt
        skipped = 0 if pool.include_prompt or not before else _tokens_before(self.tokenizer, before)
        remaining = iter([texts] if isinstance(texts, str) else texts)
        width = (_spec_of_features(self.model.contract).axes or ())[-1].size or 0
        vectors = [np.empty((0, width * len(pool.modes)), np.float32)]
        order: list[int] = []
        while chunk := [before + text for text in islice(remaining, _texts_at_once(self.model.contract))]:
            first = len(order)
            read = [text.lower() for text in chunk] if stated.lower_case else chunk
            for run in features_of(self, read, first=first):
                mask = np.arange(run.output.shape[1]) < np.array(run.lengths)[:, None]
                vectors.append(pool(run.output, mask, prompt_tokens=skipped))
                order += [first + member for member in run.members]
        found: Array = np.concatenate(vectors[1:] or vectors)[np.argsort(order)]
        return found[0] if isinstance(texts, str) else found

    def _pooling(self, modes: str | Sequence[str] | None, normalize: bool | None) -> Pooling:
        stated = self.sentence_config
        if modes is not None:
            names = (modes,) if isinstance(modes, str) else tuple(modes)
            known = stated.pooling if stated and stated.pooling else Pooling()
            pool = replace(known, modes=names)
        elif stated is not None:
            pool = stated.stated_pooling()
        else:
            raise InvalidArgumentError(
                f"{self.model.home} does not say how the features of tokens become one vector: it has no modules.json. "
                f"Pass pooling= ({', '.join(MODES)}) and normalize=; or put the original's modules.json and "
                "1_Pooling/config.json beside the graphs."
            )
        return pool if normalize is None else replace(pool, normalize=normalize)


def features_of(pipe: Any, texts: list[str], *, first: int = 0) -> Iterator[Rows]:
    """Yields the features of the tokens of all texts, run by run, ``(rows, tokens, width)``.

    Args:
        pipe: A pipeline of feature extraction.
        texts: The texts.
        first: The place of the first of them among all that the user passed, for messages.

    Raises:
        InputTooLongError: A text is longer than the largest rung, and the pipeline's `overflow` is ``"error"``.
    """
    stated = pipe.sentence_config
    cut = {"truncation": True, "max_length": stated.max_tokens} if pipe.overflow == "truncate" and stated else {}
    if path := pipe.path:
        ready = path.encode(texts, cut)
        if len(ready) == len(texts):  # the others are too long, and that is not the path's business
            yield from path.rows.run([each.encoding for each in ready])
            return
    encoded = encode(pipe.tokenizer, {"text": texts, "padding": False, **cut}, first)
    chunks = [pipe._chunk({name: np.array([row[i]]) for name, row in encoded.items()}) for i in range(len(texts))]
    outputs = iter(pipe.run_items(pipe.model.runtime, [arrays for chunk in chunks for arrays in chunk.arrays]))
    contract = pipe.model.contract
    name = _spec_of_features(contract).name
    of_length: dict[int, dict[int, Array]] = defaultdict(dict)
    for index, chunk in enumerate(chunks):
        parts = list(islice(outputs, len(chunk.arrays)))
        features = (merge_windows(parts, contract, chunk.windows) if chunk.windows else parts[0])[name][0]
        of_length[len(features)][index] = features
    for length, rows in of_length.items():
        yield Rows(list(rows), [length] * len(rows), np.stack(list(rows.values())))


def _tokens_before(tokenizer: Any, prompt: str) -> int:
    """How many tokens a prompt takes at the start of a text, special ones before it included."""
    tokens = tokenizer(prompt, padding=False)["input_ids"]
    return len(tokens) - (tokens[-1] in tokenizer.all_special_ids)


def _texts_at_once(contract: ShapeContract) -> int:
    """How many texts run together: enough for full batches, bounded in memory."""
    sizes = [axis.size or _TEXTS_AT_ONCE for axis in (_spec_of_features(contract).axes or ())[1:]]
    return max(contract.batch_size or 1, min(_TEXTS_AT_ONCE, _BYTES_AT_ONCE // (4 * int(np.prod(sizes)))))


def _spec_of_features(contract: ShapeContract) -> TensorSpec:
    """The output that holds the features of tokens."""
    known = {spec.name: spec for spec in contract.outputs}
    spec = next((known[name] for name in _FEATURES if name in known), contract.outputs[0])
    if len(spec.axes or ()) != 3 or SEQUENCE not in contract.sizes:
        raise UnsupportedTaskError(
            f"The graph gives no features for each token that could become one vector; its outputs are "
            f"{', '.join(map(str, contract.outputs))}. Export the model for the task feature-extraction.",
            task="feature-extraction",
        )
    return spec
