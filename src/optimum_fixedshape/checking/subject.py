"""What is checked: the graphs of a file, a folder or a Hub repo, and what lies beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from optimum_fixedshape.caches import FOLLOWING, MERGED, kind_of
from optimum_fixedshape.config import FixedShapeConfig, Names, Roles
from optimum_fixedshape.contract import ShapeContract
from optimum_fixedshape.errors import GraphNotFoundError
from optimum_fixedshape.fitting import Fill
from optimum_fixedshape.graph.outline import Outline, read_outline
from optimum_fixedshape.graph.reader import read_contract
from optimum_fixedshape.hub import HubOptions
from optimum_fixedshape.ladder import ShapeLadder
from optimum_fixedshape.padding import ALWAYS_PADDED, audio_padding_matters, text_padding_matters
from optimum_fixedshape.parts import Parts, find_parts
from optimum_fixedshape.repo import fetch_model, find_graphs
from optimum_fixedshape.roles import with_frames
from optimum_fixedshape.sessions import SessionPool
from optimum_fixedshape.tasks import Task, find_task, task_of_architectures, tasks_called

from .comparing import accuracy_of
from .probe import Probe, usual_sizes

_LARGE_BYTES = 10**9
_STEPS = ("kernel", "stride")
Group = tuple[Probe, ...]


@dataclass(frozen=True)
class Subject:
    """What is checked.

    Attributes:
        source: What the caller named.
        folder: The folder of config and processors.
        groups: The rungs of each part of the model, which is one group unless it writes.
        config: ``config.json``, or nothing.
        saved: What was saved with the graphs.
        parts: The parts of a model that writes, or None.
        pool: Opens the sessions.
        original: The PyTorch model, or where it is; None where none was given.
        seed: Of random inputs.
        is_large: Whether the weights are so large that fewer runs have to do.
    """

    source: str
    folder: Path
    groups: tuple[Group, ...]
    config: Mapping[str, Any]
    saved: FixedShapeConfig
    parts: Parts | None
    pool: SessionPool
    original: Any
    seed: int
    is_large: bool

    @cached_property
    def task(self) -> Task | None:
        """The task, as saved or as the architecture tells it."""
        if rows := tasks_called(self.saved.task):
            return rows[0]
        names = self.config.get("architectures")
        return task_of_architectures(names) if isinstance(names, list) else None

    @cached_property
    def sees_padding(self) -> str | None:
        """Why the original itself answers otherwise to padded items, in words, or None where it does not."""
        if self.config.get("model_type") in ALWAYS_PADDED:
            return "the model was trained to see padding, always to the same length"
        if self.task and self.task.name == "audio-xvector":
            return "heads for speakers count too few frames as padding, in the original, too"
        ladder = ShapeLadder(tuple(probe.contract for probe in self.groups[0]))
        config = SimpleNamespace(**self.config)
        return text_padding_matters(ladder, config) or audio_padding_matters(ladder, config)

    @property
    def probes(self) -> Group:
        """All rungs of all parts."""
        return tuple(probe for group in self.groups for probe in group)


def find_subject(
    source: str | Path,
    *,
    pool: SessionPool,
    original: Any,
    roles: Roles | None,
    names: Names | None,
    file_name: str | None,
    hub: HubOptions,
    seed: int,
) -> Subject:
    """Returns what is to be checked at `source`, downloaded if it is on the Hub.

    Args:
        source: An ``.onnx`` file, a folder or a Hub repo id.
        pool: Opens the sessions.
        original: The PyTorch model, or where it is.
        roles: Roles of axes, where the guessed ones are wrong.
        names: The graphs' names of inputs and outputs to standard ones.
        file_name: Which graph, where there are several.
        hub: How the Hub is asked.
        seed: Of random inputs.

    Raises:
        GraphNotFoundError, InvalidModelError, ShapeMismatchError: See `repo.find_graphs`.
    """
    parts = _parts(source, file_name, hub, roles, names)
    if parts:
        rungs = [each for each in (parts.encoder, parts.first, parts.following) if each]
        ladders = [(each.ladder, each.paths) for each in rungs]
        folder, saved = parts.folder, parts.config
    else:
        graphs = find_graphs(source, file_name=file_name, hub=hub, roles=roles, names=names)
        ladders, folder, saved = [(graphs.ladder, graphs.paths)], graphs.folder, graphs.config
    config = read_json(folder / "config.json")
    outlines = {path: read_outline(path) for _, paths in ladders for path in paths}
    is_large = sum(map(_bytes_of, outlines)) > _LARGE_BYTES
    groups = tuple(
        _few(tuple(_probes(ladder, paths, outlines, config, pool, seed)), is_large=is_large)
        for ladder, paths in ladders
    )
    return Subject(str(source), folder, groups, config, saved, parts, pool, original, seed, is_large)


def read_json(path: Path) -> dict[str, Any]:
    """Returns what a JSON file of the folder holds; nothing where it is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _parts(
    source: str | Path, file_name: str | None, hub: HubOptions, roles: Roles | None, names: Names | None
) -> Parts | None:
    """The parts of a model that writes, or None for any other and for a part that stands alone."""
    _, paths, saved = fetch_model(source, file_name, hub)
    kinds = {kind_of(read_contract(path, roles=saved.roles if saved else None)) for path in paths}
    writes = bool(saved and saved.task and find_task(saved.task).writes)
    if not writes and kinds.isdisjoint({FOLLOWING, MERGED}):
        return None
    try:
        return find_parts(source, file_name=file_name, hub=hub, roles=roles, names=names)
    except GraphNotFoundError:
        if len(paths) > 1:
            raise
        return None


def _probes(
    ladder: ShapeLadder,
    paths: tuple[Path, ...],
    outlines: Mapping[Path, Outline],
    config: Mapping[str, Any],
    pool: SessionPool,
    seed: int,
) -> Iterator[Probe]:
    fill = Fill(_pad_id(config))
    kernels, strides = (found if isinstance(found := config.get(f"conv_{key}"), list) else [] for key in _STEPS)
    steps = tuple(zip(kernels, strides, strict=False))
    for stated, path in zip(ladder.rungs, paths, strict=True):
        rung = with_frames(stated, steps)
        contract = rung.pinned(usual_sizes(rung, outlines[path], config))
        accuracy = accuracy_of(outlines[path], pool.providers[0], pool.provider_options[0])
        label = _label(path, rung, ladder, paths)
        yield Probe(label, path, rung, contract, outlines[path], accuracy, pool, fill, seed)


def _label(path: Path, rung: ShapeContract, ladder: ShapeLadder, paths: tuple[Path, ...]) -> str:
    if paths.count(path) == 1:
        return path.name
    differing = {role for each in ladder.rungs for role in each.sizes if each.sizes[role] != rung.sizes.get(role)}
    return f"{path.name} ({', '.join(f'{role} {rung.sizes.get(role)}' for role in sorted(differing))})"


def _pad_id(config: Mapping[str, Any]) -> int:
    text = config.get("text_config")
    for facts in (config, text if isinstance(text, dict) else {}):
        for name in ("pad_token_id", "eos_token_id"):
            found = facts.get(name)
            found = found[0] if isinstance(found, list) and found else found
            if isinstance(found, int) and found >= 0:
                return found
    return 0


def _bytes_of(path: Path) -> int:
    beside = [path.parent / name for name in read_contract(path).external_data]
    return sum(file.stat().st_size for file in (path, *beside) if file.is_file())


def _few(probes: Group, *, is_large: bool) -> Group:
    """All rungs, or of a large model the cheapest and the largest."""
    return probes if not is_large or len(probes) < 3 else (probes[0], probes[-1])


def at_working_sizes(subject: Subject, working: Mapping[Probe, Probe]) -> Subject:
    """Returns the subject with probes that run in place of those that do not."""
    groups = tuple(tuple(working.get(probe, probe) for probe in group) for group in subject.groups)
    return replace(subject, groups=groups)
