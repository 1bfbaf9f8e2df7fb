"""`write_config`: makes a graph that came alone a complete folder, which stock transformers and optimum load."""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import onnx

from .caches import ENCODER, kind_of
from .choosing import MAIN_GRAPH
from .config import FixedShapeConfig, Names, config_with, joined_names, made_folder, read_contracts
from .contract import ShapeContract
from .errors import (
    ExistingFilesError,
    GraphNotFoundError,
    InvalidInputError,
    InvalidModelError,
    ShapeMismatchError,
    UnsupportedTaskError,
)
from .graph.heads import open_head
from .graph.loading import load_model
from .graph.naming import rename_tensors
from .hub import HubOptions, HubRepo
from .ladder import entrance
from .models.auto import identify_model
from .models.minimal import is_row_an_item, label_facts, labels_of, minimal_config, pipeline_settings
from .models.remote_code import write_remote_code
from .paths import path_of
from .processors.files import copy_processors, derive_processors, is_of_processors, pad_token_of
from .repo import fetch_model
from .sessions import check_files
from .tasks import Task

Labels = Sequence[str] | Mapping[int, str] | Mapping[str, str] | str | Path

_CONFIG: Final = "config.json"


def write_config(
    path: str | Path,
    *,
    output: str | Path | None = None,
    source: str | Path | None = None,
    task: str | None = None,
    input_names: Names | None = None,
    output_names: Names | None = None,
    labels: Labels | None = None,
    file_name: str | None = None,
    subfolder: str = "",
    revision: str | None = None,
    token: bool | str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    variant: str | None = None,
) -> Path:
    """Returns the folder of a graph that came alone, once it has all that goes with a model.

    That is ``config.json``, the files of its processors, and ``fixedshape_config.json`` with its task and the names of
    its inputs and outputs. What neither `source` nor the caller says is derived from the graph; a warning says where an
    image processor or a feature extractor has usual settings, and what cannot be derived. A configuration that was
    derived has a model type that stock transformers knows, such as ``vit`` for images: only the sizes and labels in it
    are facts.

    Without `output` the files go beside the graph, which stays as it is. With `output` a new folder gets a copy of the
    graph as ``model.onnx``, whose inputs and outputs have standard names, so that stock optimum runs it, too; a
    classifier's scores are logits there: a softmax or sigmoid at the end is left out, as pipelines apply it.

    Args:
        path: The ``.onnx`` file, a folder or a Hub repo id.
        output: The new folder. A graph on the Hub needs one.
        source: Where configuration and processors are: the folder or Hub repo of the original.
        task: The task, where the graph does not tell.
        input_names: The graph's names of inputs to the standard ones, such as ``{"data_0": "pixel_values"}``.
        output_names: The same for outputs.
        labels: Names of the labels in order: a list, a mapping from their numbers, or a file with one on each line.
        file_name: Which graph, where there are several.
        subfolder: Folder of the repo that holds the graph.
        revision: Branch, tag or commit on the Hub: of `path` where that is a repo, else of `source`.
        token: For private repos.
        cache_dir: Where downloads are kept.
        local_files_only: Never ask the Hub, only its cache.
        variant: Which graph, where there are several kinds, such as ``"quantized"``.

    Raises:
        ExistingFilesError: A file that would be written is there, and holds something else. Nothing is written.
        GraphNotFoundError: There is no graph, or it is on the Hub and there is no `output`.
        InvalidInputError: The file of labels cannot be read.
        ShapeMismatchError: There are more or fewer labels than the graph has, or no input or output of a name.
        UnsupportedTaskError: The task is unknown, or needs a configuration that nothing can be derived of.
    """
    hub = HubOptions(revision, token, cache_dir, local_files_only, subfolder=subfolder, variant=variant)
    if output is None and not path_of(path).exists():
        raise GraphNotFoundError(
            f"{path} is no file or folder on this machine, beside which files could be written. Of a graph on the Hub, "
            "pass output=, a new folder.",
            source=str(path),
        )
    told = {**(input_names or {}), **(output_names or {})}
    identity = identify_model(path, task=task, file_name=file_name, hub=hub)
    home, paths, saved = fetch_model(path, file_name, hub)
    known = config_with(saved, paths, shapes={}, roles=None, names=identity.names)
    known = replace(known, names=joined_names(known.names, told), task=identity.task.name if identity.task else None)
    graphs = dict(zip(paths, read_contracts(paths, known, told=told), strict=True))
    used = {old: new for contract in graphs.values() for old, new in contract.names.items()}
    of_source = hub if Path(path).exists() else replace(hub, revision=None)
    origin = None if source is None else _fetched_source(source, of_source)
    bare = _Bare(graphs, replace(known, names=used), identity.task, home, origin, _labels_among(labels))
    with TemporaryDirectory(dir=None if output is None else made_folder(Path(output).absolute().parent)) as scratch:
        if output is None:
            drafts = bare.beside(Path(scratch), paths[0].parent)
        else:
            drafts = bare.apart(Path(scratch), Path(output))
        _settle(drafts)
    return home if output is None else Path(output)


@dataclass(frozen=True)
class _Bare:
    """A graph, or several of one model, and all that is known of them."""

    graphs: Mapping[Path, ShapeContract]
    config: FixedShapeConfig
    row: Task | None
    home: Path
    origin: Path | None
    labels: Sequence[str] | None

    def beside(self, scratch: Path, folder: Path) -> dict[Path, Path]:
        """Writes what goes beside the graphs, and returns where each file goes."""
        self._write(scratch, list(self.graphs.values()))
        settings = pipeline_settings(next(iter(self.graphs.values())), self.row)
        config = replace(self.config, pipeline={**settings, **self.config.pipeline})
        drafts = {file: self.home / file.name for file in _files_in(scratch)}
        config.save_pretrained(scratch / "graphs")
        return drafts | {file: folder / file.name for file in _files_in(scratch / "graphs")}

    def apart(self, scratch: Path, folder: Path) -> dict[Path, Path]:
        """Writes what a new folder holds, and returns where each file goes."""
        written = [path.name for path in self.graphs]
        if len(written) == 1:
            written = [MAIN_GRAPH]
        for (path, contract), name in zip(self.graphs.items(), written, strict=True):
            self._copy_graph(path, contract, scratch / name)
        roles = {self.config.names.get(name, name): axes for name, axes in self.config.roles.items()}
        config = replace(self.config, graphs=tuple(written), names={}, roles=roles)
        contracts = read_contracts([scratch / name for name in written], config)
        self._write(scratch, contracts)
        if self.row is not None:
            write_remote_code(scratch, self.row)
        config.save_pretrained(scratch)
        return {file: folder / file.relative_to(scratch) for file in sorted(scratch.rglob("*")) if file.is_file()}

    def _copy_graph(self, path: Path, contract: ShapeContract, target: Path) -> None:
        for name in check_files(path):
            (target.parent / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path.parent / name, target.parent / name)
        opens = is_row_an_item(self.row) and "logits" in contract.output_names
        if not opens and not contract.names:
            shutil.copyfile(path, target)
            return
        model = load_model(path, with_external=False)
        rename_tensors(model, contract.names)
        if opens:
            open_head(model, "logits")
        onnx.save(model, target)

    def _write(self, scratch: Path, contracts: Sequence[ShapeContract]) -> None:
        """Writes configuration and processors."""
        for place in filter(None, (self.home, self.origin)):  # the original's win
            copy_processors(place, scratch)
        facts = self._facts(contracts, scratch)
        (scratch / _CONFIG).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        derive_processors(entrance(contracts), self.row, scratch)

    def _facts(self, contracts: Sequence[ShapeContract], scratch: Path) -> dict[str, Any]:
        """What ``config.json`` says: the original's, with the caller's labels; else what the graph tells."""
        contract = next((each for each in contracts if kind_of(each) != ENCODER), contracts[0])
        place = next((folder for folder in (self.origin, self.home) if folder and (folder / _CONFIG).is_file()), None)
        if place is None:
            if len({kind_of(each) for each in contracts}) > 1:
                raise UnsupportedTaskError(
                    "Graphs in several parts need the configuration of their original, which says how answers start "
                    "and end. Pass source=, the folder or Hub repo that has it.",
                    task=self.row.name if self.row else None,
                )
            facts = minimal_config(contract, self.row, self.labels)
            pad = pad_token_of(scratch)
            return facts if pad is None else {**facts, "pad_token_id": pad}
        facts = _json_of(place / _CONFIG)
        if not isinstance(facts, dict):
            raise InvalidModelError(f"{place / _CONFIG} is not a valid configuration.", path=str(place / _CONFIG))
        if self.labels:
            named = label_facts(contract, self.row, self.labels)
            facts = {name: value for name, value in facts.items() if name != "num_labels"}
            return facts | {name: named[name] for name in ("id2label", "label2id")}
        count, names = labels_of(contract, self.row), facts.get("id2label")
        if is_row_an_item(self.row) and count and names and len(names) != count:
            raise ShapeMismatchError(
                f"{place / _CONFIG} names {len(names)} labels, and the graph has {count}. Pass labels=, or the source "
                "that the graph was made from."
            )
        if is_row_an_item(self.row) and count and not names:
            facts.setdefault("num_labels", count)
        return dict(facts)


def _labels_among(labels: Labels | None) -> list[str] | None:
    if labels is None:
        return None
    if isinstance(labels, (str, Path)):
        try:
            lines = Path(labels).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(
                f"labels= is to be a list, a mapping, or a text file with one label on each line; {labels} cannot be "
                f"read: {error}",
                item=str(labels),
            ) from error
        return [line.strip() for line in lines if line.strip()]
    if isinstance(labels, Mapping):
        numbered = {int(number): label for number, label in labels.items() if str(number).isdecimal()}
        if len(numbered) < len(labels) or sorted(numbered) != list(range(len(numbered))):
            raise ShapeMismatchError(
                f"labels= must map the numbers 0 to {len(labels) - 1} to labels, got {', '.join(map(str, labels))}."
            )
        return [numbered[number] for number in range(len(numbered))]
    return list(labels)


def _fetched_source(source: str | Path, hub: HubOptions) -> Path:
    """The folder that holds configuration and processors of the original, downloaded if it is on the Hub."""
    if Path(source).is_dir():
        return Path(source)
    repo = HubRepo(str(source), replace(hub, subfolder="", variant=None))
    return repo.fetch([name for name in repo.names if name == _CONFIG or is_of_processors(name)])


def _files_in(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if file.is_file()]


def _settle(drafts: Mapping[Path, Path]) -> None:
    """Moves files to where they go, unless they are there already.

    Raises:
        ExistingFilesError: Other ones are there; none is moved.
    """
    new = {draft: target for draft, target in drafts.items() if not _is_there(draft, target)}
    if taken := [str(target) for target in new.values() if target.exists()]:
        raise ExistingFilesError(
            f"{', '.join(taken)} exist and hold something else, and nothing is overwritten. Move them away, or pass "
            "output=, a new folder.",
            files=tuple(taken),
        )
    for draft, target in new.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(draft, target)


def _is_there(draft: Path, target: Path) -> bool:
    if not target.is_file():
        return False
    if filecmp.cmp(draft, target, shallow=False):
        return True
    return target.suffix == ".json" and _json_of(draft) == _json_of(target)


def _json_of(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
