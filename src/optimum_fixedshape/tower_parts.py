"""The parts of a model with two towers, each with a ladder and sessions of its own, on the weights of the whole."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import onnxruntime as ort

from .contract import BATCH, BATCHES, IMAGES, SOUNDS, TEXTS, ShapeContract, TensorSpec
from .errors import FixedShapeError, InvalidModelError
from .graph.loading import load_model
from .graph.tensors import list_files
from .graph.towers import Towers, gather_weights, open_rows, split_towers
from .graph.weights import save_rungs
from .ladder import ShapeLadder
from .runtime import Runtime
from .scratch import ScratchFolder
from .sessions import CPU, SLOW_ON_CPU, SessionPool, options_with

logger = logging.getLogger(__name__)

ITEMS = (IMAGES, SOUNDS)
_FOLDER_OF_WEIGHTS = "session.model_external_initializers_file_folder_path"


class Parts(NamedTuple):
    """The runtimes of the parts.

    Attributes:
        items: From images or sounds to their embeddings.
        texts: From texts to their embeddings.
        head: From both embeddings to all other outputs.
    """

    items: Runtime
    texts: Runtime
    head: Runtime


@dataclass(frozen=True)
class _Cut:
    """One graph, cut.

    Attributes:
        towers: Its parts.
        folder: Where the files with its weights are.
        is_open: Whether the head takes any number of rows.
    """

    towers: Towers
    folder: Path
    is_open: bool


class PartPool(SessionPool):
    """Sessions of graphs in memory, whose weights lie in the files of the graph that they were cut from.

    Args:
        pool: That of the whole graph.
        graphs: The bytes of each graph, and the folder that its weights are in.
        scratch: What has to be there as long as the sessions.
    """

    def __init__(
        self, pool: SessionPool, graphs: Mapping[Path, tuple[bytes, Path]], scratch: ScratchFolder | None
    ) -> None:
        super().__init__(pool.providers, pool.provider_options, pool.session_options)
        self._graphs = graphs
        self._scratch = scratch
        self._sessions: dict[Path, ort.InferenceSession] = {}
        self._opening = threading.Lock()

    def get(self, path: Path, rung: ShapeContract) -> ort.InferenceSession:
        """Returns the session of a part, opened when it is first asked for.

        Raises:
            InvalidModelError: onnxruntime refuses the part.
        """
        with self._opening:
            if path not in self._sessions:
                self._sessions[path] = self._open_part(path)
            return self._sessions[path]

    def _open_part(self, path: Path) -> ort.InferenceSession:
        content, folder = self._graphs[path]
        options = self.session_options or options_with({})
        # Means nothing to sessions of files, so that the caller's own options may have it.
        options.add_session_config_entry(_FOLDER_OF_WEIGHTS, str(folder))
        try:
            return ort.InferenceSession(
                content,
                sess_options=options,
                providers=self.providers,
                provider_options=self.provider_options,
                disabled_optimizers=SLOW_ON_CPU,
            )
        except Exception as error:  # onnxruntime's errors share no public base class
            raise InvalidModelError(f"onnxruntime cannot open {path}: {error}", path=str(path)) from error


def cut_runtime(runtime: Runtime) -> Parts | None:
    """Returns the parts of a model with two towers, or None where its graphs have to run as a whole.

    Weights stay in the files that they are in; those inside a graph are written once to a folder that goes with the
    parts. Graphs are cut on the CPU only: other providers take the graphs that were made for them.
    """
    if runtime.pool.providers[0] != CPU or not _has_two_towers(runtime.ladder.largest):
        return None
    texts = {spec.session_name for spec in runtime.ladder.largest.inputs if spec.batch_role == TEXTS}
    scratch = ScratchFolder()
    try:
        cuts = {path: _cut(path, texts, scratch) for path in dict.fromkeys(runtime.graphs)}
    except FixedShapeError as error:
        logger.debug("The graph runs as a whole: %s", error)
        return None
    found = {path: cut for path, cut in cuts.items() if cut is not None}
    if len(found) < len(cuts):
        return None
    return Parts(*(_runtime(runtime, found, part, scratch) for part in Parts._fields))


def _has_two_towers(contract: ShapeContract) -> bool:
    """Whether every input is for texts or for items, and counts them along its first axis."""
    counted = [(spec.roles() or (None,))[0] for spec in contract.inputs]
    return TEXTS in counted and any(role in ITEMS for role in counted) and set(counted) <= {TEXTS, *ITEMS}


def _cut(path: Path, texts: set[str], scratch: ScratchFolder) -> _Cut | None:
    if not path.is_file():  # a session of a graph in memory
        return None
    if not list_files(path):
        name = f"{len(list(scratch.path.iterdir()))}.onnx"
        saved = save_rungs([(name, load_model(path))], folder=scratch.path, weights_name=f"{name}_data")
        path = saved.paths[0]
    model = load_model(path, with_external=False)
    folder = gather_weights(model, path)
    towers = split_towers(model, texts=texts)
    return None if towers is None else _Cut(towers, folder, open_rows(towers.head))


def _runtime(whole: Runtime, cuts: Mapping[Path, _Cut], part: str, scratch: ScratchFolder) -> Runtime:
    rungs: dict[tuple[Sequence[TensorSpec], ...], tuple[ShapeContract, Path]] = {}
    for rung, path in zip(whole.ladder.rungs, whole.graphs, strict=True):
        contract = _CONTRACTS[part](rung, cuts[path])
        rungs.setdefault((contract.inputs, contract.outputs), (contract, path / part))
    graphs = {path / part: (getattr(cut.towers, part).SerializeToString(), cut.folder) for path, cut in cuts.items()}
    ladder, paths = zip(*rungs.values(), strict=True)
    return Runtime(ShapeLadder(ladder), paths, fill=whole.fill, pool=PartPool(whole.pool, graphs, scratch))


def _tower(rung: ShapeContract, roles: Sequence[str], output: str) -> ShapeContract:
    """The contract of one tower: like any model, it counts its rows as a batch."""

    def counted(spec: TensorSpec) -> TensorSpec:
        axes = tuple(replace(axis, role=BATCH) if axis.role in roles else axis for axis in spec.axes or ())
        return replace(spec, axes=axes)

    inputs = tuple(counted(spec) for spec in rung.inputs if spec.batch_role in roles)
    return replace(
        rung, inputs=inputs, outputs=tuple(counted(spec) for spec in rung.outputs if spec.session_name == output)
    )


def _head(rung: ShapeContract, cut: _Cut) -> ShapeContract:
    def told(spec: TensorSpec) -> TensorSpec:
        axes = tuple(
            replace(axis, size=None) if cut.is_open and axis.role in BATCHES else axis for axis in spec.axes or ()
        )
        return replace(spec, axes=axes)

    outputs = {spec.session_name: told(spec) for spec in rung.outputs}
    inputs = tuple(outputs.pop(value.name) for value in cut.towers.head.graph.input)
    return replace(rung, inputs=inputs, outputs=tuple(outputs.values()))


_CONTRACTS: Mapping[str, Callable[[ShapeContract, _Cut], ShapeContract]] = {
    "items": lambda rung, cut: _tower(rung, ITEMS, cut.towers.items.graph.output[0].name),
    "texts": lambda rung, cut: _tower(rung, (TEXTS,), cut.towers.texts.graph.output[0].name),
    "head": _head,
}
