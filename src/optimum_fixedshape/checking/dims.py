"""Dims that are declared open: whether they are."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np

from optimum_fixedshape.contract import BATCHES, FILLED, PAST, SAMPLES, SEQUENCE, SOURCE
from optimum_fixedshape.errors import FixedShapeError
from optimum_fixedshape.fitting import Arrays
from optimum_fixedshape.roles import HEIGHT, MEL_FRAMES, WIDTH

from .comparing import Outputs, listed, said
from .probe import Probe
from .report import Finding, Verdict, brief
from .subject import Subject

logger = logging.getLogger(__name__)

_TRIED: dict[str, Sequence[int]] = {
    **dict.fromkeys(BATCHES, (1, 2, 3, 5)),
    "num_choices": (2, 3),
    SEQUENCE: (8, 12, 20),
    SAMPLES: (4000, 6000),
    PAST: (4, 6, 11),
    SOURCE: (6, 10),
}
_USUAL_LENGTHS = (16, 32, 64, 77, 128, 256, 384, 512)
_SHARES = (1.0, 1.5)
"""Of images and spectrograms: the size that the model was made for, and a larger one."""


def working_probe(probe: Probe) -> Probe | None:
    """Returns the probe at sizes at which the graph runs, or None where it runs at none that is usual.

    An export that baked a size in says that its dims are open, and runs at one size only.
    """
    batches = [role for role in probe.open_sizes if role in BATCHES]
    rows = [dict.fromkeys(batches, size) for size in (3, 1, 2, 4, 8)] if batches else [{}]
    lengths = [{}, *({SEQUENCE: size} for size in _USUAL_LENGTHS)] if SEQUENCE in probe.open_sizes else [{}]
    for length, row in product(lengths, rows):
        tried = probe.at({**row, **length}) if row or length else probe
        try:
            _ = tried.answer
        except FixedShapeError:  # it cannot even be opened
            return None
        except Exception as error:  # onnxruntime's errors share no public base class
            logger.debug("%s does not run at %s: %s", probe.label, tried.open_sizes, error)
            continue
        return tried
    return None


def check_dynamic(subject: Subject) -> Iterator[Finding]:
    """Yields for each open dim whether the graph runs, and answers as it should, at several sizes."""
    for probe in subject.probes:
        roles = [role for role in probe.open_sizes if role in _TRIED or role in (HEIGHT, WIDTH, MEL_FRAMES)]
        if not roles:
            yield Finding(Verdict.SKIPPED, "No dim of the graph is open.", f"{probe.label}: all sizes are fixed")
        for role in roles:
            yield _of_role(probe, role)


def _of_role(probe: Probe, role: str) -> Finding:
    own = probe.open_sizes[role]
    usual = _TRIED.get(role) or [round(own * share) for share in _SHARES]
    sizes = sorted({own, *usual})
    if role == SEQUENCE and probe.is_behind_cache and SOURCE in probe.stated.sizes:
        sizes = [own]  # stock decoders behind an encoder are made for one new token at a time
    errors = {}
    for size in sizes:
        try:
            wrong = _wrong_at(probe, role, size, min(sizes))
        except Exception as error:  # onnxruntime's errors share no public base class
            wrong = brief(error)
        if wrong:
            errors[size] = wrong
    works = [size for size in sizes if size not in errors]
    facts = {"axis": role, "sizes": sizes, "works": works}
    if not errors:
        what = "Every open dim takes any size."
        return Finding(Verdict.PASS, what, f"{probe.label}: {role} {listed(sizes)}", facts)
    baked = f"only {listed(works)} of {listed(sizes)} can be used" if works else f"none of {listed(sizes)} can be used"
    evidence = f"{probe.label}: {baked}. {role} {min(errors)}: {errors[min(errors)]}"
    if role in FILLED:
        return Finding(
            Verdict.FAIL,
            f"{role} is declared open, and a size is baked in. Pin it to one that works, or export again.",
            evidence,
            facts,
        )
    return Finding(
        Verdict.WARNING,
        f"{role} is declared open, and the model was made for one size: pin it.",
        evidence,
        facts,
    )


def _wrong_at(probe: Probe, role: str, size: int, least: int) -> str:
    """What is wrong with the answer at a size, in words."""
    sized = probe.at({role: size})
    answer = sized.answer
    for spec in sized.contract.outputs:
        for index, axis in enumerate(spec.axes or ()):
            got = answer[spec.name].shape
            if axis.role == role and axis.size and got[index] != axis.length_for(axis.size) + axis.extra:
                return f"{spec.name} came out as {got}"
    if role in BATCHES:
        return _rows_apart(sized, role, size)
    if role == SEQUENCE and size > least and not probe.is_behind_cache:
        return _unread(sized, least)
    return ""


def _rows_apart(probe: Probe, role: str, size: int) -> str:
    """What differs between rows run together and one by one."""
    outputs = {spec.name: axis for spec in probe.contract.outputs if (axis := spec.axis_of(role)) is not None}
    inputs = {spec.name: axis for spec in probe.contract.inputs if (axis := spec.axis_of(role)) is not None}
    for index in range(size):
        row = {name: array.take([index], inputs[name]) for name, array in probe.feed.items() if name in inputs}
        alone = _alone(probe, role, row, inputs, size)
        together: Outputs = {}
        for name, axis in outputs.items():
            if probe.answer[name].shape[axis] != size:
                return f"{size} rows went in, and {name} came out as {probe.answer[name].shape}"
            together[name] = probe.answer[name].take([index], axis)
        difference = probe.apart(together, {name: alone[name].take([0], axis) for name, axis in outputs.items()})
        if difference > (1.0 if probe.accuracy.is_quantized else probe.tolerance):
            return f"row {index} of {size} and the same row alone are {said(difference)}"
    return ""


def _alone(probe: Probe, role: str, row: Arrays, inputs: Mapping[str, int], size: int) -> Outputs:
    """The answer to one row: by itself, or where the graph does not take one row, to the same row in every slot."""
    if size > 1:
        try:
            return probe.at({role: 1}).run({**probe.feed, **row})
        except Exception as error:  # the size 1 is tried by itself, and reported
            logger.debug("%s does not take one row of %s: %s", probe.label, role, error)
    return probe.run({**probe.feed, **{name: array.repeat(size, inputs[name]) for name, array in row.items()}})


def _unread(probe: Probe, read: int) -> str:
    """What is wrong if other tokens beyond the smallest size change nothing."""
    tokens = probe.tokens
    if tokens is None or (axis := tokens.axis_of(SEQUENCE)) is None:
        return ""
    feed = probe.inputs(padded=False)
    answer = probe.run(feed)
    places = (slice(None),) * axis + (slice(read, None),)
    for other in range(1, 4):
        changed = feed[tokens.name].copy()
        changed[places] = probe.inputs(other, padded=False)[tokens.name][places]
        if (
            np.array_equal(changed, feed[tokens.name])
            or probe.apart(probe.run({**feed, tokens.name: changed}), answer) > 0
        ):
            return ""
    return f"tokens beyond the first {read} change nothing"
