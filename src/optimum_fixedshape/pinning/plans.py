"""What is to be pinned: which graphs there are, and which fixed ones are made of them, under which names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

from optimum_fixedshape.caches import ENCODER, FIRST, FOLLOWING, MERGED, kind_of
from optimum_fixedshape.choosing import MAIN_GRAPH
from optimum_fixedshape.config import FixedShapeConfig, Names, config_with, read_contracts
from optimum_fixedshape.contract import BATCH, PAST, SEQUENCE, SOURCE, ShapeContract
from optimum_fixedshape.decoding import CONTEXT, PREFILL
from optimum_fixedshape.errors import ShapeMismatchError
from optimum_fixedshape.graph.loading import load_model
from optimum_fixedshape.graph.pin import asked_of, fix_contract, pin_as
from optimum_fixedshape.hub import HubOptions
from optimum_fixedshape.parts import Parts, Rungs, find_parts
from optimum_fixedshape.repo import Roles, Sizes, fetch_model, sizes_of


@dataclass(frozen=True)
class Plan:
    """One graph to be written.

    Attributes:
        name: Its file.
        path: The graph that it is made of.
        contract: What that one takes, as far as it is known.
        sizes: What its axes are pinned to.
    """

    name: str
    path: Path
    contract: ShapeContract
    sizes: Mapping[str, int]

    @property
    def fixed(self) -> ShapeContract:
        """The contract at these sizes."""
        return fix_contract(self.contract, self.sizes)


@dataclass(frozen=True)
class Source:
    """What is pinned.

    Attributes:
        folder: The folder of configuration and processors.
        config: What is known of the graphs.
        plans: The graphs to be made.
        repo: The Hub repo that they come from, or None for files on this machine.
        keep: What has to live as long as they are read.
    """

    folder: Path
    config: FixedShapeConfig
    plans: tuple[Plan, ...]
    repo: str | None
    keep: Any = None


def source_of(
    model: str | Path, file_name: str | None, hub: HubOptions, shapes: Sizes, roles: Roles | None, names: Names | None
) -> Source:
    """Returns what is to be pinned, downloaded if it is on the Hub.

    Args:
        model: An ``.onnx`` file, a folder or a Hub repo id.
        file_name: Which graph, where there are several.
        hub: How the Hub is asked.
        shapes: Sizes by shape key, or by the graph's own name of an axis; lists make rungs.
        roles: Roles of axes, where the guessed ones are wrong.
        names: The graph's names to standard ones.

    Raises:
        GraphNotFoundError: There is no graph, or several to choose from.
        ShapeMismatchError: An axis is left open, or a size contradicts what the graph says.
        InvalidModelError: A file is broken.
    """
    folder, paths, saved = fetch_model(model, file_name, hub)
    repo = None if Path(model).exists() else str(model)
    config = config_with(saved, paths, shapes=sizes_of(shapes), roles=roles, names=names)
    contracts = read_contracts(paths, config, told=names)
    if _writes(contracts, config):
        parts = _parts_of(model, config.shapes, file_name=file_name, hub=hub, roles=roles, names=names)
        plans = tuple(_plans_of_parts(parts))
        for plan in plans:
            _check_complete(plan)
        return Source(parts.folder, parts.config, plans, repo, parts.scratch)
    plans = tuple(_plans_of(list(zip(paths, contracts, strict=True)), sizes_of(config.shapes)))
    return Source(folder, config, plans, repo)


def _check_complete(plan: Plan) -> None:
    """Raises an error for what is left open, before there is any work."""
    if plan.contract.sizes.get(PAST, 0) is None and PAST not in plan.sizes:
        raise ShapeMismatchError(
            f"{plan.path.name} has a cache of open length. Say in shapes= how many tokens a text may have, prompt and "
            f"answer together, as in {{{CONTEXT!r}: 256, {PREFILL!r}: 64}}.",
            left=(CONTEXT,),
        )
    fix_contract(plan.contract, plan.sizes)


def _writes(contracts: Sequence[ShapeContract], config: FixedShapeConfig) -> bool:
    """Whether the graphs are those of a model that writes: they have a cache, or read an encoder."""
    has_parts = any(kind_of(contract) in (FOLLOWING, MERGED) or SOURCE in contract.sizes for contract in contracts)
    return has_parts or not {CONTEXT, PREFILL}.isdisjoint(config.shapes)


def _plans_of(graphs: Sequence[tuple[Path, ShapeContract]], sizes: Mapping[str, Sequence[int]]) -> Iterator[Plan]:
    """One plan for each combination of sizes, largest first, which has the name that stock optimum loads.

    Graphs that are a ladder already keep their names.
    """
    for path, contract in graphs:
        ordered = {key: sorted(sizes[key], reverse=True) for key in _keys_in_order(contract, sizes)}
        for place, each in enumerate(product(*ordered.values())):
            asked = dict(zip(ordered, each, strict=True))
            open_sizes = asked_of(contract, fix_contract(contract, asked)).values()
            name = MAIN_GRAPH if len(graphs) == 1 else path.name
            yield Plan(f"model_{'x'.join(map(str, open_sizes))}.onnx" if place else name, path, contract, asked)


def _keys_in_order(contract: ShapeContract, sizes: Mapping[str, Any]) -> list[str]:
    """The keys of `sizes` in the order of the graph's axes, as exports name files; unknown ones last."""
    axes = [axis for spec in contract.inputs for axis in spec.axes or ()]
    known = dict.fromkeys(key for axis in axes for key in (axis.role, axis.symbol) if key in sizes)
    return [*filter(None, known), *(key for key in sizes if key not in known)]


_STEMS: Final = {ENCODER: "encoder_model", FIRST: "decoder_model", FOLLOWING: "decoder_with_past_model"}


def _parts_of(model: str | Path, shapes: Sizes, **options: Any) -> Parts:
    """The parts of a model at these sizes; how many places an encoder gives, its graph tells once it is fixed."""
    parts = find_parts(model, shapes=shapes or None, **options)
    decoders = [rung for part in (parts.first, parts.following) if part for rung in part.ladder.rungs]
    if parts.encoder is None or all(rung.sizes.get(SOURCE, 0) is not None for rung in decoders):
        return parts
    places = []
    for plan in _plans_of_part(parts.encoder, "encoder_model", parts.config):
        shape = pin_as(load_model(plan.path), plan.contract, plan.sizes).graph.output[0].type.tensor_type.shape
        places += [shape.dim[1].dim_value] if len(shape.dim) == 3 else []
    return find_parts(model, shapes={**shapes, SOURCE: places}, **options) if places else parts


def _plans_of_parts(parts: Parts) -> Iterator[Plan]:
    for part in filter(None, (parts.encoder, parts.first, parts.following)):
        stem = _STEMS[kind_of(part.ladder.largest)] if parts.encoder else "model"
        yield from _plans_of_part(part, stem, parts.config)


def _plans_of_part(part: Rungs, stem: str, config: FixedShapeConfig) -> Iterator[Plan]:
    """One plan for each rung of a part, largest first, under the names that exports give them."""
    rungs = zip(part.ladder.rungs, part.paths, strict=True)
    largest_first = sorted(rungs, key=lambda each: _numbers(each[0]), reverse=True)
    for place, (rung, path) in enumerate(largest_first):
        (contract,) = read_contracts([path], config)
        sizes = {role: size for role, size in rung.sizes.items() if size is not None}
        name = f"{stem}_{'x'.join(map(str, _numbers(rung)))}.onnx" if place else f"{stem}.onnx"
        yield Plan(name, path, contract, sizes)


def _numbers(rung: ShapeContract) -> tuple[int, ...]:
    """The sizes that tell the rungs of one part apart, in the order in which exports put them into names."""
    sizes = {role: size or 0 for role, size in rung.sizes.items()}
    if kind_of(rung) == ENCODER:
        return tuple(sizes.values())
    new, past = sizes.get(SEQUENCE, 0), sizes.get(PAST, 0)
    if SOURCE not in sizes:
        return (sizes.get(BATCH, 0), past + new, new) if PAST in sizes else (sizes.get(BATCH, 0), new)
    return sizes.get(BATCH, 0), sizes[SOURCE], past + new
