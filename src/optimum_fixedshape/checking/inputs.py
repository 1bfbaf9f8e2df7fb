"""Inputs that a graph ignores."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from optimum_fixedshape.caches import place_of
from optimum_fixedshape.contract import TensorSpec
from optimum_fixedshape.decoding import POSITIONS
from optimum_fixedshape.fitting import Arrays

from .probe import Probe
from .report import Finding, Verdict
from .subject import Subject

_HELPERS = {"token_type_ids", "bbox", "is_longer", "special_tokens_mask", *POSITIONS}
"""Inputs that only add to what the others say: a graph that ignores them may be what was meant."""

_TRIES = 3


def check_inputs(subject: Subject) -> Iterator[Finding]:
    """Yields which inputs change no output; masks are looked at apart."""
    for probe in subject.probes:
        masks = {spec.name for spec in probe.masks()}
        followed = 0
        for spec in (spec for spec in probe.contract.inputs if spec.name not in masks):
            if finding := _of_input(probe, spec):
                yield finding
            else:
                followed += 1
        yield Finding(
            Verdict.PASS, "Every input changes the answer.", f"{probe.label}: {followed} inputs change the answer"
        )


def _of_input(probe: Probe, spec: TensorSpec) -> Finding | None:
    """What is wrong with an input; None where it changes an output, or takes only one value."""
    if not probe.outline.reached_from(spec.session_name):
        return _ignored(probe, spec, "no output follows from it")
    changed = 0
    for feed in _changed(probe, spec):
        try:
            answer = probe.run(feed)
        except Exception:  # a table of one row refuses all but 0, which is an answer, too
            continue
        changed += 1
        if probe.apart(answer, probe.answer) > 0:
            return None
    return _ignored(probe, spec, f"{changed} other values of it gave the same answer") if changed else None


def _changed(probe: Probe, spec: TensorSpec) -> Iterator[Arrays]:
    """Yields the ordinary inputs with another value of one."""
    now = probe.feed[spec.name]
    values = [probe.inputs(other)[spec.name] for other in range(1, _TRIES + 1)]
    if spec.name in _HELPERS and now.dtype.kind in "biu":
        values += [now ^ True if now.dtype.kind == "b" else (now + 1) % 2, now[..., ::-1].copy()]
    yield from ({**probe.feed, spec.name: value} for value in values if not np.array_equal(value, now))


def _ignored(probe: Probe, spec: TensorSpec, why: str) -> Finding:
    is_helper = spec.name in _HELPERS or ((place := place_of(spec.name)) is not None and place.is_cross)
    consequence = "the answer cannot depend on it" if is_helper else "the answer cannot be right"
    return Finding(
        Verdict.WARNING if is_helper else Verdict.FAIL,
        f"The graph ignores its input {spec.name}: {consequence}.",
        f"{probe.label}: {spec}: {why}",
        {"inputs": [spec.name]},
    )
