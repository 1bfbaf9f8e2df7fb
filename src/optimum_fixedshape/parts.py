"""The graphs of a model that writes: which is the encoder, which starts a cache and which goes on with it.

Their contracts tell, not their names. What stock exports keep in other ways (both decoders in one file, caches without
a mask) is brought into the same form, in a folder of its own: the files that came stay as they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import onnx

from .caches import ENCODER, FIRST, FOLLOWING, MERGED, kind_of
from .config import FixedShapeConfig, Names, Roles, config_with, read_contracts
from .contract import PAST, SEQUENCE, SOURCE, TOTAL, ShapeContract
from .decoding import CONTEXT, POSITIONS, PREFILL
from .errors import GraphNotFoundError, ShapeMismatchError
from .graph.decoders import open_cache
from .graph.loading import load_model
from .graph.merged import split_merged
from .graph.naming import rename_tensors
from .graph.weights import save_rungs
from .hub import HubOptions
from .ladder import ShapeLadder, ladder_of_texts
from .repo import Sizes, fetch_graphs, sizes_of
from .scratch import ScratchFolder

_WEIGHTS = "decoders.onnx_data"  # not the name of any other part's, as all of them may be saved to one folder
_PREFILLS = (16, 64, 256)
_PREFILLS_BEHIND_ENCODERS = (8, 64)


class Rungs(NamedTuple):
    """One part of a model: its ladder, and the file of each rung."""

    ladder: ShapeLadder
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Parts:
    """The graphs of a model that writes, on this machine.

    Attributes:
        folder: The folder that holds config and processors.
        config: What is known of the graphs, ready to be saved again.
        following: The decoder behind a cache, or None where the graphs keep none.
        first: The decoder that starts a cache, or runs without one; None where `following` can start.
        encoder: The encoder, or None.
        scratch: The folder of graphs that were rewritten, to be kept as long as they run.
    """

    folder: Path
    config: FixedShapeConfig
    following: Rungs | None
    first: Rungs | None
    encoder: Rungs | None
    scratch: ScratchFolder | None

    @property
    def ladder(self) -> ShapeLadder:
        """What the model as a whole takes from its processor: the encoder's shapes, or texts of any length."""
        if self.encoder:
            return self.encoder.ladder
        decoder = self.following or self.first
        assert decoder is not None  # find_parts has made sure
        return ladder_of_texts(decoder.ladder.largest)


def find_parts(
    source: str | Path,
    *,
    file_name: str | None = None,
    hub: HubOptions | None = None,
    shapes: Sizes | None = None,
    roles: Roles | None = None,
    names: Names | None = None,
) -> Parts:
    """Returns the graphs of `source`, downloaded if they are on the Hub.

    Args:
        source: An ``.onnx`` file, a folder or a Hub repo id.
        file_name: The one graph of the model, where there are others beside it.
        hub: How the Hub is asked.
        shapes: Sizes to pin dynamic axes to; ``context_length`` and ``prefill_length`` for the decoder, all others for
            what their names say. By default what was saved with the graphs.
        roles: Roles of axes, where the guessed ones are wrong; beside what was saved with the graphs.
        names: The graphs' names to standard ones, likewise.

    Raises:
        GraphNotFoundError: There is no decoder.
        InvalidModelError: A file is broken, or its cache is laid out in a way that is not understood.
        ShapeMismatchError: A size, a role or a name contradicts the graphs.
    """
    folder, paths, saved = fetch_graphs(source, file_name, hub or HubOptions())
    config = config_with(saved, paths, shapes=sizes_of(shapes or {}), roles=roles, names=names)
    found, scratch = _sorted(paths, config, told=names)
    decoders = [contract for kind in (FIRST, FOLLOWING) for _, contract in found[kind]]
    if missing := _missing(decoders, found[ENCODER]):
        graphs = config.graphs
        raise GraphNotFoundError(
            f"{source} holds no {missing}. Graphs there: {', '.join(graphs)}.", source=str(source), found=graphs
        )
    # Graphs that were rewritten have standard names.
    used = {old: new for part in found.values() for _, contract in part for old, new in contract.names.items()}
    config = replace(config, names=used)
    sizes = sizes_of(config.shapes)
    _check_keys(sizes, [contract for part in found.values() for _, contract in part])
    following, first, encoder = (
        _rungs(kind, found[kind], found[ENCODER], sizes) for kind in (FOLLOWING, FIRST, ENCODER)
    )
    return Parts(folder, config, following, first, encoder, scratch)


def _missing(decoders: Sequence[ShapeContract], encoders: Sequence[Any]) -> str:
    """What a model needs and the folder has not, in words."""
    if not decoders:
        return "graph that gives logits, as decoders do"
    reads = any(SOURCE in contract.sizes for contract in decoders)
    return "encoder, whose output its decoder reads" if reads and not encoders else ""


Found = Mapping[str, Sequence[tuple[Path, ShapeContract]]]


def _sorted(
    paths: Sequence[Path], config: FixedShapeConfig, *, told: Names | None
) -> tuple[Found, ScratchFolder | None]:
    found: dict[str, list[tuple[Path, ShapeContract]]] = defaultdict(list)
    for path, contract in zip(paths, read_contracts(paths, config, told=told), strict=True):
        found[kind_of(contract)].append((path, contract))
    merged = [] if found[FOLLOWING] else [path for path, _ in found[MERGED]]
    is_fixed = CONTEXT in config.shapes
    if not merged and not (is_fixed and any(_lacks_inputs(contract) for _, contract in found[FOLLOWING])):
        return found, None
    scratch = ScratchFolder()
    decoders = (path for kind in (FIRST, FOLLOWING) for path, _ in found[kind])
    rewritten = _split(merged, config.names) if merged else _loaded(decoders, config.names)
    if is_fixed:
        rewritten = ((name, open_cache(model)) for name, model in rewritten)
    saved = save_rungs(rewritten, folder=scratch.path, weights_name=_WEIGHTS)
    for kind in (FIRST, FOLLOWING):
        found[kind] = []
    for path, contract in zip(saved.paths, read_contracts(saved.paths, config), strict=True):
        found[kind_of(contract)].append((path, contract))
    return found, scratch


def _lacks_inputs(contract: ShapeContract) -> bool:
    """Whether a decoder cannot be told which slots are empty, or may count positions by slots."""
    known = POSITIONS | {"decoder_attention_mask"}  # which graphs have that were opened already, or exported by us
    return TOTAL not in contract.sizes or known.isdisjoint(contract.input_names)


def _loaded(paths: Iterable[Path], names: Names) -> Iterator[tuple[str, onnx.ModelProto]]:
    for path in paths:
        model = load_model(path)
        rename_tensors(model, names)
        yield path.name, model


def _split(paths: Iterable[Path], names: Names) -> Iterator[tuple[str, onnx.ModelProto]]:
    for _, model in _loaded(paths, names):
        parts = split_merged(model)
        yield "decoder_model.onnx", parts.first
        yield "decoder_with_past_model.onnx", parts.following


def _check_keys(sizes: Mapping[str, Sequence[int]], contracts: Sequence[ShapeContract]) -> None:
    known = {role for contract in contracts for role in contract.sizes} - {PAST, TOTAL} | {CONTEXT, PREFILL}
    if unknown := sorted(sizes.keys() - known):
        raise ShapeMismatchError(f"shapes= names {', '.join(unknown)}, and the graphs have {', '.join(sorted(known))}.")
    if short := [size for size in sizes.get(CONTEXT, ()) if size < 2]:
        raise ShapeMismatchError(f"{CONTEXT} must be 2 or more, got {short[0]}.")


def _rungs(
    kind: str,
    graphs: Sequence[tuple[Path, ShapeContract]],
    encoders: Sequence[tuple[Path, ShapeContract]],
    sizes: Mapping[str, Sequence[int]],
) -> Rungs | None:
    rungs = []
    for path, contract in graphs:
        pins = sizes if kind == ENCODER else _pins_of_decoder(contract, encoders, sizes)
        known = {role: list(of) for role, of in pins.items() if role in contract.sizes}
        lengths = [{}] if kind == ENCODER else _lengths(contract, sizes)
        for each, length in product(product(*known.values()), lengths):
            rungs.append((contract.pinned({**dict(zip(known, each, strict=True)), **length}), path))
    return Rungs(ShapeLadder(tuple(rung for rung, _ in rungs)), tuple(path for _, path in rungs)) if rungs else None


def _pins_of_decoder(
    contract: ShapeContract, encoders: Sequence[tuple[Path, ShapeContract]], sizes: Mapping[str, Sequence[int]]
) -> dict[str, Sequence[int]]:
    pins = {role: of for role, of in sizes.items() if role not in (CONTEXT, PREFILL, SEQUENCE)}
    if not contract.cache and SOURCE not in contract.sizes and SEQUENCE in sizes:
        pins[SEQUENCE] = sizes[SEQUENCE]
    is_open = contract.sizes.get(SOURCE, 0) is None
    if is_open and SOURCE not in pins and (places := sizes.get(SEQUENCE) or _places_of(encoders)):
        pins[SOURCE] = places
    return pins


def _lengths(contract: ShapeContract, sizes: Mapping[str, Sequence[int]]) -> list[dict[str, int]]:
    """The numbers of new tokens and of slots: both together are the context, since prompts are read from its start."""
    contexts = sizes.get(CONTEXT, ())
    if not contract.cache:
        return [{SEQUENCE: size} for size in contexts] or [{}]
    if _takes_one(contract) and contract.sizes.get(SEQUENCE, 0) is None:
        news = [1]
    elif contexts or PREFILL in sizes:
        news = _prefills(contract, contexts, sizes.get(PREFILL))
    else:
        return [{}]
    if not contexts or PAST not in contract.sizes:
        return [{SEQUENCE: new} for new in news]
    pairs = {(size - (new := min(each, size - 1)), new) for size in contexts for each in news}
    lengths = [{PAST: slots, SEQUENCE: new} for slots, new in sorted(pairs, reverse=True)]
    return [{**each, TOTAL: each[PAST] + each[SEQUENCE]} if TOTAL in contract.sizes else each for each in lengths]


def _prefills(contract: ShapeContract, contexts: Sequence[int] | None, asked: Sequence[int] | None) -> list[int]:
    """How many new tokens a run takes: one, for each step, and more for prompts."""
    usual = _PREFILLS_BEHIND_ENCODERS if SOURCE in contract.sizes else _PREFILLS
    most = max(contexts or usual)
    chosen = asked or [size for size in usual if size <= most]
    return list(dict.fromkeys([1, *chosen]))


def _takes_one(contract: ShapeContract) -> bool:
    """Whether a decoder takes one new token at a time: stock exports behind an encoder and a cache are traced with one.

    Some of them have lost the causal mask on the way, so that several tokens would see each other.
    """
    return PAST in contract.sizes and SOURCE in contract.sizes


def _places_of(encoders: Sequence[tuple[Path, ShapeContract]]) -> list[int]:
    """How many places the encoder gives, where its graph says so."""
    specs = (contract.outputs[0] for _, contract in encoders)
    return [spec.axes[1].size for spec in specs if spec.axes and len(spec.axes) > 1 and spec.axes[1].size]
