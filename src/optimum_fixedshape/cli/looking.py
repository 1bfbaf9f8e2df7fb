"""What graphs are and take, by their files' headers. Imports neither typer nor NumPy, so that it starts at once."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import console
from .mistakes import FAILED, is_mistake, message_of, wants_traceback

if TYPE_CHECKING:
    from rich.table import Table

    from optimum_fixedshape.config import FixedShapeConfig
    from optimum_fixedshape.contract import Axis, ShapeContract, TensorSpec
    from optimum_fixedshape.detecting import TaskGuesses
    from optimum_fixedshape.hub import HubOptions


def show(paths: Sequence[str], *, as_json: bool, file_name: str | None = None, hub: HubOptions | None = None) -> None:
    """Prints what graphs are and take: tables, or a line of JSON for each path.

    Where one of several cannot be read, a line on stderr says why, and the others are shown.

    Raises:
        GraphNotFoundError: There is no graph, or on the Hub there are several to choose from.
        InvalidModelError: A file is broken.
        SystemExit: One of several could not be read.
    """
    has_failed = False
    for path in paths:
        try:
            found = look_into(path, file_name, hub)
        except Exception as error:
            if len(paths) == 1 or wants_traceback() or not is_mistake(error):
                raise
            console.complain(message_of(error))
            has_failed = True
            continue
        if as_json:
            console.emit_json(found.to_dict())
        else:
            console.emit_tables(*found.tables())
    if has_failed:
        sys.exit(FAILED)


@dataclass(frozen=True)
class Found:
    """What the headers of one model's graphs say.

    Attributes:
        source: The file, folder or repo.
        graphs: Contracts by the graphs' names there.
        saved: What was saved with the graphs.
        guesses: What the first graph may be for, or the decoder of a model of several parts.
        sizes: Bytes of the graphs and of the files that hold their weights, where they are on this machine.
    """

    source: str
    graphs: Mapping[str, ShapeContract]
    saved: FixedShapeConfig | None
    guesses: TaskGuesses
    sizes: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain types, ready for JSON."""
        return {
            "source": self.source,
            "config": asdict(self.saved) if self.saved else None,
            "graphs": [self._graph(name, contract) for name, contract in self.graphs.items()],
            "tasks": [asdict(guess) for guess in self.guesses],
            "ambiguous": self.guesses.is_ambiguous,
        }

    def _graph(self, name: str, contract: ShapeContract) -> dict[str, Any]:
        return {
            "name": name,
            "bytes": self.sizes.get(name),
            "weights": {file: self.sizes.get(file) for file in _weights_of(name, contract)},
            "rungs": list(self._rungs(contract)),
            "dynamic": list(_dynamic(contract)),
            **contract.to_dict(),
        }

    def _rungs(self, contract: ShapeContract) -> Iterator[Mapping[str, int | None]]:
        """The sizes that a graph runs at: its own, or those that its dynamic axes are pinned to at load."""
        from optimum_fixedshape.repo import pin_all

        known = {key: size for key, size in self.saved.shapes.items() if key in contract.sizes} if self.saved else {}
        return (rung.sizes for rung in pin_all(contract, known))

    def tables(self) -> Iterator[str | Table]:
        """Yields what people read."""
        yield self._rung_table()
        yield "\n".join(self._about()) + "\n"
        told: set[tuple[tuple[str, ...], tuple[str, ...]]] = set()
        for name, contract in self.graphs.items():
            if (names := (contract.input_names, contract.output_names)) not in told:
                told.add(names)
                yield _tensor_table(name, contract)
        if self.saved and self.saved.task:
            yield f"Task, as saved with the graphs: {console.printable(self.saved.task)}\n"
        yield self._task_table()

    def _rung_table(self) -> Table:
        rows = [
            (name, console.bytes_text(self.sizes.get(name)), console.sizes_text(sizes), _dynamic_text(contract))
            for name, contract in self.graphs.items()
            for sizes in self._rungs(contract)
        ]
        return console.table(self.source, ("graph", "size", "shape", "dynamic"), rows, right=("size",))

    def _about(self) -> Iterator[str]:
        """What is the same for most graphs of a model, said once."""
        graphs = self.graphs.items()
        files = dict.fromkeys(file for name, contract in graphs for file in _weights_of(name, contract))
        weights = ", ".join(f"{file} {console.bytes_text(self.sizes.get(file))}" for file in files)
        facts = {
            "opset": [
                ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in contract.opset.items())
                for _, contract in graphs
            ],
            "written by": [contract.producer for _, contract in graphs],
            "metadata": [f"{key}={value[:200]}" for _, contract in graphs for key, value in contract.metadata.items()],
            "weights": [weights or "inside the graphs"],
        }
        for name, found in facts.items():
            if told := ", ".join(filter(None, dict.fromkeys(found))):
                yield f"{name}: {console.printable(told)}"

    def _task_table(self) -> Table:
        title = "What it may be for" + (", which is ambiguous" if self.guesses.is_ambiguous else "")
        rows = [
            (guess.task, guess.model, f"{guess.score:.2f}", "; ".join(guess.evidence), _renamed(guess.names))
            for guess in self.guesses
        ]
        return console.table(title, ("task", "class", "score", "evidence", "names"), rows, right=("score",))


def look_into(source: str, file_name: str | None = None, hub: HubOptions | None = None) -> Found:
    """Returns what the headers of the graphs of `source` say.

    Raises:
        GraphNotFoundError: There is no graph, or on the Hub there are several to choose from.
        InvalidModelError: A file is broken.
    """
    from optimum_fixedshape.detecting import detect_task

    graphs, saved = _graphs_of(source, file_name, hub)
    config = _config_beside(source, next(iter(graphs)))
    main = next((contract for name, contract in graphs.items() if "decoder" in name), next(iter(graphs.values())))
    return Found(source, graphs, saved, detect_task(main, config=config), _sizes_of(source, graphs))


def _graphs_of(
    source: str, file_name: str | None, hub: HubOptions | None
) -> tuple[Mapping[str, ShapeContract], FixedShapeConfig | None]:
    from optimum_fixedshape.errors import GraphNotFoundError
    from optimum_fixedshape.graph.reader import read_contract
    from optimum_fixedshape.repo import peek_graphs

    try:
        return peek_graphs(source, file_name=file_name, hub=hub)
    except GraphNotFoundError as error:
        # Whoever looks into a folder need not choose among its graphs, which are read in no time.
        if file_name or not error.found or not Path(source).is_dir():
            raise
        return {name: read_contract(Path(source) / name) for name in error.found}, None


def _config_beside(source: str, graph: str) -> dict[str, Any] | None:
    """The model's own configuration: beside the graph, or in the folder above as with ``onnx/model.onnx``."""
    path = Path(source)
    folder = path.parent if path.is_file() else (path / graph).parent
    for file in (folder / "config.json", folder.parent / "config.json"):
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        return config if isinstance(config, dict) else None
    return None


def _sizes_of(source: str, graphs: Mapping[str, ShapeContract]) -> dict[str, int]:
    path = Path(source)
    folder = path.parent if path.is_file() else path
    files = {*graphs, *(file for name, contract in graphs.items() for file in _weights_of(name, contract))}
    return {file: (folder / file).stat().st_size for file in sorted(files) if (folder / file).is_file()}


def _weights_of(name: str, contract: ShapeContract) -> list[str]:
    return [(Path(name).parent / file).as_posix() for file in contract.external_data]


def _dynamic(contract: ShapeContract) -> Iterator[dict[str, Any]]:
    for spec in (*contract.inputs, *contract.outputs):
        if spec.axes is None:
            yield {"tensor": spec.name, "axis": None, "symbol": None, "role": None}
        for index, axis in enumerate(spec.axes or ()):
            if axis.size is None:
                yield {"tensor": spec.name, "axis": index, "symbol": axis.symbol, "role": axis.role}


def _dynamic_text(contract: ShapeContract) -> str:
    found = list(_dynamic(contract))
    roles = dict.fromkeys(each["role"] for each in found if each["role"])
    others = sum(not each["role"] for each in found)
    counted = [f"{others} other {'axis' if others == 1 else 'axes'}"] if others else []
    return ", ".join([*roles, *counted]) or "nothing"


def _tensor_table(name: str, contract: ShapeContract) -> Table:
    rows = [
        (side, *_tensor_row(spec))
        for side, specs in (("input", contract.inputs), ("output", contract.outputs))
        for spec in specs
    ]
    return console.table(f"What {name} takes and gives", ("", "name", "type", "shape", "evidence"), rows)


def _tensor_row(spec: TensorSpec) -> tuple[str, ...]:
    axes = spec.axes or ()
    shape = "any rank" if spec.axes is None else ", ".join(map(_axis_text, axes)) or "a number"
    name = f"{spec.name} ({spec.graph_name})" if spec.graph_name else spec.name
    evidence = dict.fromkeys(axis.evidence for axis in axes if axis.evidence)
    return name, spec.dtype, shape, "; ".join(evidence) or "-"


def _axis_text(axis: Axis) -> str:
    size = "any" if axis.size is None and axis.symbol in (None, axis.role) else str(axis)
    return f"{axis.role} {size}" if axis.role else str(axis)


def _renamed(names: Mapping[str, str]) -> str:
    return ", ".join(f"{graph_name}={name}" for graph_name, name in names.items()) or "-"
