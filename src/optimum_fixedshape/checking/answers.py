"""Answers in themselves: whether a graph runs, gives the same answer twice, gives numbers, and follows its inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from optimum_fixedshape.contract import TensorSpec
from optimum_fixedshape.sessions import CPU, nodes_by_provider

from .comparing import is_finite, listed, said
from .probe import Probe
from .report import Finding, Verdict, brief
from .subject import Subject

_RANDOM = ("RandomNormal", "RandomUniform", "Bernoulli", "Multinomial", "Dropout")
_TRIES = 3
_KINDS_SHOWN = 5


def check_session(subject: Subject) -> Iterator[Finding]:
    """Yields whether each graph can be opened on the provider, and runs at all."""
    for probe in subject.probes:
        try:
            session = probe.pool.get(probe.path, probe.contract)
            _ = probe.answer
        except Exception as error:  # onnxruntime's errors share no public base class
            yield Finding(Verdict.FAIL, "The graph does not run on this provider.", f"{probe.label}: {brief(error)}")
            continue
        yield _placed(probe, session, subject.pool.providers[0])


def _placed(probe: Probe, session: Any, wanted: str) -> Finding:
    """Where a graph runs of which a provider was to run all."""
    nodes = {} if wanted == CPU else nodes_by_provider(session)
    used = list(nodes) or session.get_providers()
    facts = {"nodes": {name: len(kinds) for name, kinds in nodes.items()}} if nodes else {}
    if wanted not in used:
        return Finding(
            Verdict.WARNING,
            "onnxruntime could not use the provider, and fell back to another: what follows is true of that one.",
            f"{probe.label}: asked for {wanted}, runs on {', '.join(used)}",
            facts,
        )
    if len(nodes) > 1:
        return Finding(
            Verdict.WARNING,
            "The provider leaves nodes of the graph to another, and between the two their data is copied.",
            f"{probe.label}: {'; '.join(f'{name} runs {_counted(kinds)}' for name, kinds in nodes.items())}",
            facts,
        )
    return Finding(Verdict.PASS, "Every graph opens and runs on this provider.", f"{probe.label}: runs", facts)


def _counted(kinds: Sequence[str]) -> str:
    most = [f"{count} {kind}" for kind, count in Counter(kinds).most_common(_KINDS_SHOWN)]
    return f"{len(kinds)} nodes ({', '.join(most)}{', …' if len(set(kinds)) > _KINDS_SHOWN else ''})"


def check_determinism(subject: Subject) -> Iterator[Finding]:
    """Yields whether the same inputs give the same answer again."""
    for probe in subject.probes:
        difference = probe.apart(probe.run(probe.feed), probe.answer)
        facts = {"difference": difference}
        random = sorted({node.op_type for node in probe.outline.walk() if node.op_type.startswith(_RANDOM)})
        drawn = f"; it holds {listed(random)}" if random else ""
        if difference > probe.tolerance:
            yield Finding(
                Verdict.FAIL,
                "The same inputs give another answer each time. Export the model in eval() mode, without random nodes.",
                f"{probe.label}: two runs of the same inputs are {said(difference)}{drawn}",
                facts,
            )
        else:
            yield Finding(
                Verdict.PASS,
                "The same inputs give the same answer again.",
                f"{probe.label}: two runs are {said(difference)}",
                facts,
            )


def check_numbers(subject: Subject) -> Iterator[Finding]:
    """Yields whether ordinary inputs give finite numbers."""
    for probe in subject.probes:
        wrong = sorted(name for name, array in probe.answer.items() if not is_finite(array))
        if wrong:
            yield Finding(
                Verdict.FAIL,
                f"Ordinary inputs give NaN or infinity in {listed(wrong)}.",
                f"{probe.label}: {'; '.join(_share_of_broken(name, probe.answer[name]) for name in wrong)}",
                {"outputs": wrong},
            )
        else:
            yield Finding(
                Verdict.PASS, "Ordinary inputs give finite numbers.", f"{probe.label}: {len(probe.answer)} outputs"
            )


def check_outputs(subject: Subject) -> Iterator[Finding]:
    """Yields which outputs stay as they are whatever is fed."""
    for probe in subject.probes:
        answers = [probe.run(probe.inputs(other)) for other in range(1, _TRIES)]
        still = [
            spec
            for spec in probe.contract.outputs
            if all(np.array_equal(answer[spec.name], probe.answer[spec.name]) for answer in answers)
        ]
        for spec in still:
            yield _of_constant(probe, spec)
        if not still:
            yield Finding(
                Verdict.PASS,
                "Every output follows what is fed.",
                f"{probe.label}: {len(probe.contract.outputs)} outputs changed with the inputs",
            )


def _of_constant(probe: Probe, spec: TensorSpec) -> Finding:
    reached = any(spec.session_name in probe.outline.reached_from(name) for name in probe.outline.inputs)
    values = probe.answer[spec.name]
    why = f"the same in {_TRIES} runs on different inputs" if reached else "no input leads to it"
    facts = {"outputs": [spec.name]}
    if spec.batch_role is None and values.size:
        return Finding(
            Verdict.WARNING, f"{spec.name} is a constant, and has no rows.", f"{probe.label}: {spec}: {why}", facts
        )
    shown = np.unique(values).size if values.dtype.kind in "biuf" else 0
    return Finding(
        Verdict.FAIL,
        f"{spec.name} does not follow the inputs: it is the same whatever is fed.",
        f"{probe.label}: {spec}: {why}; {shown} different values in it",
        facts,
    )


def _share_of_broken(name: str, array: np.ndarray) -> str:
    broken = int((~np.isfinite(array.astype(np.float64))).sum())
    return f"{broken} of {array.size} numbers of {name}"
