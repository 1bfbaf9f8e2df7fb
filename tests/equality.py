"""The measure of correctness, written once: what we answer is what the original answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
import onnxruntime
import PIL.Image
import torch

from optimum_fixedshape.contract import BATCHES, SAMPLES, SEQUENCE
from optimum_fixedshape.ladder import ShapeLadder

TOLERANCE = 1e-4


def assert_same(ours: Any, theirs: Any, *, tolerance: float = TOLERANCE, where: str = "answer") -> None:
    """Asserts that two answers agree field by field: same types, same lengths, numbers within `tolerance`."""
    if isinstance(theirs, Mapping):
        assert isinstance(ours, Mapping), f"{where}: {type(ours)} is no mapping"
        assert list(ours) == list(theirs), f"{where}: fields {list(ours)} != {list(theirs)}"
        for key in theirs:
            assert_same(ours[key], theirs[key], tolerance=tolerance, where=f"{where}[{key!r}]")
    elif isinstance(theirs, (list, tuple)):
        assert type(ours) is type(theirs), f"{where}: {type(ours)} != {type(theirs)}"
        assert len(ours) == len(theirs), f"{where}: {len(ours)} items != {len(theirs)}"
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(mine, other, tolerance=tolerance, where=f"{where}[{index}]")
    elif isinstance(theirs, (torch.Tensor, np.ndarray)):
        assert type(ours) is type(theirs), f"{where}: {type(ours)} != {type(theirs)}"
        mine, other = np.asarray(ours), np.asarray(theirs)
        assert mine.shape == other.shape, f"{where}: shape {mine.shape} != {other.shape}"
        assert_close(mine, other, tolerance=tolerance, where=where)
    elif isinstance(theirs, PIL.Image.Image):
        assert (ours.mode, ours.size) == (theirs.mode, theirs.size), where
        # Depth is rounded to 256 levels: what lies between two may fall to either.
        assert_close(np.asarray(ours), np.asarray(theirs), tolerance=1.0, where=where)
    elif isinstance(theirs, (float, np.floating)):
        assert isinstance(ours, type(theirs)), f"{where}: {type(ours)} != {type(theirs)}"
        assert_close(np.asarray(ours), np.asarray(theirs), tolerance=tolerance, where=where)
    else:
        assert ours == theirs, f"{where}: {ours!r} != {theirs!r}"


def assert_close(ours: np.ndarray, theirs: np.ndarray, *, tolerance: float, where: str) -> None:
    assert np.isfinite(theirs.astype(float)).all(), f"{where}: the original itself is not finite"
    apart = float(np.abs(ours.astype(float) - theirs.astype(float)).max(initial=0.0))
    assert apart <= tolerance, f"{where}: {apart:.2e} apart"


def assert_model_equals_original(
    model: Any, original: torch.nn.Module, *, seed: int = 0, sees_padding: bool = False
) -> None:
    """Asserts equality below, at and above every rung in all directions, in every slot, in torch and in NumPy.

    A model that sees padding, with a mask or without, can only answer as the original at the lengths of its rungs.
    """
    generator = np.random.default_rng(seed)
    for sizes in sizes_around(model.ladder, exact_lengths=sees_padding):
        feeds = random_rows(model, original.config, sizes, generator)
        with torch.no_grad():
            theirs = original(**{name: torch.from_numpy(array) for name, array in feeds.items()}, return_dict=True)
        where = ", ".join(f"{role} {size}" for role, size in sizes.items())
        ours = model(**feeds)
        names = [name for name in theirs if name in ours]
        assert names, where
        assert {"logits", "logits_per_text", "start_logits"} & set(names) or len(names) == len(list(ours)), where
        for name in names:
            assert ours[name].shape == tuple(theirs[name].shape), f"{where}: {name}"
            scale = max(1.0, float(theirs[name].abs().max()))
            assert_close(ours[name], theirs[name].numpy(), tolerance=scale * TOLERANCE, where=f"{where}: {name}")
        in_torch = model(**{name: torch.from_numpy(array) for name, array in feeds.items()})
        assert_same(
            in_torch.to_tuple(), tuple(torch.from_numpy(ours[name]) for name in ours), tolerance=0.0, where=where
        )


def sizes_around(ladder: ShapeLadder, *, exact_lengths: bool = False) -> Iterator[dict[str, int]]:
    """Yields rows and lengths below, at and above every rung; no length that no rung holds."""
    for rung in ladder.rungs:
        around = {
            role: [size] if exact_lengths and role not in BATCHES else _around(role, size, ladder.limit(role))
            for role, size in rung.sizes.items()
            if role in _VARIED
        }
        for each in product(*around.values()):
            yield dict(zip(around, each, strict=True))


_VARIED = BATCHES | {SEQUENCE, SAMPLES}


def _around(role: str, size: int | None, limit: int | None) -> list[int]:
    if role in BATCHES:
        batch = size or 2
        return sorted({1, batch - 1, batch, batch + 1, 2 * batch + 1} - {0})
    length = size or 8
    least = 2 if role == SEQUENCE else length // 2
    return [size for size in sorted({least, length - 1, length, length + 1}) if limit is None or size <= limit]


def random_rows(
    model: Any, config: Any, sizes: Mapping[str, int], generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Returns inputs whose rows all differ, the way a caller's batch looks: no padding, two segments, whole images."""
    feeds = {}
    for spec in model.contract.inputs:
        shape = [sizes.get(axis.role, axis.size) for axis in spec.axes]
        if spec.name == "input_ids":
            feeds[spec.name] = generator.integers(5, config.get_text_config().vocab_size, shape)
        elif spec.name == "token_type_ids":
            kinds = (np.arange(shape[-1]) > shape[-1] // 2).astype(np.int64) * (config.type_vocab_size > 1)
            feeds[spec.name] = np.broadcast_to(kinds, shape).copy()
        elif spec.name == "bbox":
            feeds[spec.name] = generator.integers(0, 500, shape) + np.array([0, 0, 500, 500])
        elif spec.name == "pixel_mask":
            feeds[spec.name] = np.ones(shape, np.int64)
            feeds[spec.name][-1, shape[1] // 2 :] = 0
        elif "mask" in spec.name:
            feeds[spec.name] = np.ones(shape, np.int64)
        else:
            feeds[spec.name] = generator.standard_normal(shape).astype(spec.dtype)
    return feeds


def assert_writes_as_original(
    model: Any, original: Any, inputs: Callable[[int], dict[str, Any]], lengths: Iterable[int], *, steps: int = 5
) -> None:
    """Asserts that `generate()` gives the original's tokens and logits, greedily and in beams.

    Args:
        model: Ours.
        original: The PyTorch model.
        inputs: Makes the arguments of `generate`, for one row and for several, of a prompt of so many tokens.
        lengths: Of the prompts; none longer than the context without its last token.
        steps: How many tokens are written, where the context holds them.
    """
    most = model.context_length or 2**30
    for length in lengths:
        given, prompt = inputs(length), 1 if original.config.is_encoder_decoder else length
        how = {"max_new_tokens": min(steps, most - prompt), "do_sample": False}
        how |= {"return_dict_in_generate": True, "output_logits": True}
        for beams in (1, 3):
            theirs, ours = (each.generate(**given, **how, num_beams=beams) for each in (original, model))
            where = f"prompt of {length}, {beams} beams"
            assert ours.sequences.tolist() == theirs.sequences.tolist(), where
            scale = max(float(logits.abs().max()) for logits in theirs.logits)
            assert_same(ours.logits, theirs.logits, tolerance=scale * TOLERANCE, where=where)


def fix_every_session(model: Any) -> None:
    """Opens each of a model's graphs with every size fixed, as providers for NPUs want it, in place of open sizes."""
    for runtime in model.engine.runtimes:
        for path, rung in zip(runtime.graphs, runtime.ladder.rungs, strict=True):
            options = onnxruntime.SessionOptions()
            for axis in (axis for spec in rung.inputs for axis in spec.axes):
                if axis.symbol:
                    options.add_free_dimension_override_by_name(axis.symbol, axis.size)
            session = onnxruntime.InferenceSession(path, options, providers=runtime.pool.providers)
            assert all(isinstance(size, int) for node in session.get_inputs() for size in node.shape), path
            runtime.pool.add(path, session)


def lengths_around(*sizes: int, most: int) -> list[int]:
    """Returns the lengths of prompts below, at and above each size, from one token to `most`."""
    around = {length for size in sizes for length in (size - 1, size, size + 1)}
    return sorted(length for length in {1, *around, most} if 1 <= length <= most)
