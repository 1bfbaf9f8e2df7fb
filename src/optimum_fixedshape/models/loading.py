"""Loading and saving: from a folder, a file or the Hub, and back; exported on the way where there is no graph yet."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, ClassVar, Self

from optimum_fixedshape.config import FixedShapeConfig, made_folder
from optimum_fixedshape.contract import SEQUENCE, ShapeContract, ShapeLadder
from optimum_fixedshape.errors import GraphNotFoundError
from optimum_fixedshape.hub import HubOptions
from optimum_fixedshape.repo import MAIN_GRAPH, Graphs, Roles, Sizes, find_graphs, holds_torch_model
from optimum_fixedshape.runtime import Runtime
from optimum_fixedshape.sessions import CPU, SessionPool, check_files
from optimum_fixedshape.tasks import Task

from .session import fill_of

logger = logging.getLogger(__name__)

_OF_TORCH_ALONE = {"dtype", "torch_dtype", "device_map", "attn_implementation", "low_cpu_mem_usage", "use_safetensors"}
_OF_PIPELINES = {"_from_pipeline", "_commit_hash", "code_revision", "framework"}


class ScratchFolder:
    """A folder that goes with the last model that reads from it; copies in other processes only borrow it."""

    def __init__(self) -> None:
        self.path = Path(mkdtemp(prefix="optimum-fixedshape-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Path, (self.path,)


class LoadingMixin:
    """`from_pretrained`, `save_pretrained` and `push_to_hub`, with the arguments of optimum's `ORTModel`."""

    task: ClassVar[Task | None]
    runtime: Runtime
    config: Any
    fixed_shape_config: FixedShapeConfig

    @classmethod
    def from_pretrained(
        cls,
        model_id: str | Path,
        config: Any = None,
        export: bool = False,
        *,
        shapes: Sizes | None = None,
        roles: Roles | None = None,
        subfolder: str = "",
        revision: str | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        cache_dir: str | Path | None = None,
        token: bool | str | None = None,
        file_name: str | None = None,
        provider: str = CPU,
        providers: Sequence[str] | None = None,
        provider_options: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None,
        session_options: Any = None,
        use_io_binding: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """Returns the model of an ``.onnx`` file, a folder or a Hub repo.

        Where there is no graph, the PyTorch model is exported on the fly, and a log message says so once.

        Args:
            model_id: The file, folder or Hub repo id.
            config: The model's configuration, or where to load it from. By default it is beside the graph.
            export: Export the PyTorch model even where there is a graph.
            shapes: Sizes to pin dynamic axes to, such as ``{"batch_size": 1, "sequence_length": [32, 128]}``; a list
                makes a ladder. For an export on the fly, the shapes of its graphs.
            roles: What the axes of an input or output are where their names do not tell, such as
                ``{"y": ["batch_size", None]}``.
            subfolder: Folder of the repo that holds the graphs.
            revision: Branch, tag or commit on the Hub.
            force_download: Download again what is in the cache.
            local_files_only: Never ask the Hub, only its cache.
            trust_remote_code: Run code of the repo for its configuration.
            cache_dir: Where downloads are kept.
            token: For private repos.
            file_name: Which graph, where there are several.
            provider: The execution provider.
            providers: Several, in order of preference; wins over `provider`.
            provider_options: One mapping for each provider, or one for the first.
            session_options: onnxruntime's `SessionOptions`.
            use_io_binding: Accepted as optimum's.
            **kwargs: Arguments of transformers that have no meaning for a graph are ignored with a warning.

        Raises:
            GraphNotFoundError: There is neither a graph nor a PyTorch model, or several graphs to choose from.
            InvalidModelError: The graph is broken.
            ShapeMismatchError: `shapes` contradicts what is baked into the graph.
            TypeError: An argument is unknown.
        """
        _check_rest(kwargs)
        hub = HubOptions(revision, token, cache_dir, local_files_only, force_download, subfolder)
        pool = SessionPool(
            providers or [provider], _one_for_each(provider_options, providers or [provider]), session_options
        )
        save_dir: Path | ScratchFolder
        graphs = None if export else _graphs_or_none(model_id, file_name, hub, shapes, roles)
        if graphs is not None:
            save_dir = graphs.folder
        else:
            save_dir = _exported(cls.task, model_id, shapes, hub, trust_remote_code)
            graphs = find_graphs(save_dir.path, roles=roles)
        if config is None or isinstance(config, (str, Path)):
            config = _load_config(config or graphs.folder, hub, trust_remote_code, graphs.ladder.largest)
        runtime = Runtime(graphs.ladder, graphs.paths, fill=fill_of(config), pool=pool)
        make: Any = cls
        model = make(config=config, session=runtime, use_io_binding=use_io_binding, model_save_dir=save_dir)
        task = graphs.config.task or (cls.task.name if cls.task else None)
        model.fixed_shape_config = replace(graphs.config, task=task)
        _warn_of_padding(cls.__name__, graphs.ladder)
        return model  # type: ignore[no-any-return]

    @classmethod
    def from_model(cls, path: str | Path, **kwargs: Any) -> Self:
        """Returns the model of an ``.onnx`` file, a folder or a Hub repo; the same as `from_pretrained`."""
        return cls.from_pretrained(path, **kwargs)

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Writes the graphs, their weights, the config and what the package knows of the shapes to a folder.

        The folder loads here and in stock ``optimum.onnxruntime``, which takes the first rung, ``model.onnx``.

        Args:
            save_directory: The folder; created if need be.
            push_to_hub: Upload it as well.
            **kwargs: Arguments of `push_to_hub`.

        Raises:
            FileExistsError: `save_directory` is a file.
        """
        folder = made_folder(save_directory)
        self.config.save_pretrained(folder)
        self.save_session(folder)
        if push_to_hub:
            kwargs.setdefault("repo_id", kwargs.pop("repository_id", None) or folder.name)
            self.push_to_hub(folder, **kwargs)

    def save_session(self, save_directory: str | Path) -> None:
        """Writes the graphs, their weights and what the package knows of the shapes to a folder.

        Args:
            save_directory: The folder; created if need be. Another model's graphs in it stay there.
        """
        folder = made_folder(save_directory)
        rungs = dict(zip(self.runtime.graphs, self.runtime.ladder.rungs, strict=True))
        names = [path.name for path in rungs]
        if MAIN_GRAPH not in names:
            names[0] = MAIN_GRAPH
        for (path, rung), name in zip(rungs.items(), names, strict=True):
            check_files(path, rung)
            _copy(path, folder / name)
        for data in sorted({path.parent / name for path, rung in rungs.items() for name in rung.external_data}):
            _copy(data, folder / data.relative_to(self.runtime.graphs[0].parent))
        replace(self.fixed_shape_config, graphs=tuple(names)).save_pretrained(folder)

    _save_pretrained = save_session

    def push_to_hub(
        self,
        save_directory: str | Path | None = None,
        repository_id: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        *,
        repo_id: str | None = None,
        **kwargs: Any,
    ) -> str:
        """Uploads the model and returns the address of the commit.

        Args:
            save_directory: The folder that was saved before; or, as in transformers, the repo id alone, and the model
                is saved on the way.
            repository_id: The repo id; the repo is created if need be.
            private: Create it as a private one.
            token: Whose account to use; None takes the saved login.
            repo_id: The same as `repository_id`, under transformers' name for it.
            **kwargs: Arguments of `HfApi.upload_folder`, such as ``commit_message=`` or ``revision=``.

        Raises:
            ValueError: There is no repo id.
        """
        from huggingface_hub import HfApi

        repo_id = repo_id or repository_id
        if repo_id is None:
            repo_id, save_directory = str(save_directory or ""), None
        if save_directory is None:
            with TemporaryDirectory() as folder:
                self.save_pretrained(folder)
                return self.push_to_hub(folder, repo_id, private, token, **kwargs)
        api = HfApi(token=token)
        repo = api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo.repo_id, folder_path=str(save_directory), **kwargs))


def _check_rest(kwargs: Mapping[str, Any]) -> None:
    for name, value in kwargs.items():
        if name in _OF_TORCH_ALONE:
            if value not in (None, False, "auto"):
                warnings.warn(f"{name}={value!r} has no meaning for a graph and is ignored.", stacklevel=3)
        elif name not in _OF_PIPELINES:
            raise TypeError(f"from_pretrained got an unexpected keyword argument {name!r}.")


def _one_for_each(options: Any, providers: Sequence[str]) -> Sequence[Mapping[str, Any]] | None:
    return [options, *[{}] * (len(providers) - 1)] if isinstance(options, Mapping) else options


def _graphs_or_none(
    model_id: str | Path, file_name: str | None, hub: HubOptions, shapes: Sizes | None, roles: Roles | None
) -> Graphs | None:
    try:
        return find_graphs(model_id, file_name=file_name, hub=hub, shapes=shapes, roles=roles)
    except GraphNotFoundError as error:
        if error.found or file_name or not holds_torch_model(model_id, hub):
            raise
        return None


def _exported(
    task: Task | None, model_id: str | Path, shapes: Sizes | None, hub: HubOptions, trust_remote_code: bool
) -> ScratchFolder:
    from optimum_fixedshape.export.folder import export_model
    from optimum_fixedshape.export.shapes import shapes_up_to

    options = {**hub.for_transformers(), "trust_remote_code": trust_remote_code, "subfolder": hub.subfolder}
    if shapes is None:
        shapes = shapes_up_to(_load_config(model_id, hub, trust_remote_code, None))
    logger.warning(
        "Exporting %s on the fly, for %s. This takes a while: keep the graphs with save_pretrained() to do it once.",
        model_id,
        ", ".join(f"{key} {size}" for key, size in shapes.items()),
    )
    folder = ScratchFolder()
    export_model(model_id, folder.path, task=task.name if task else None, shapes=shapes, progress=False, **options)
    return folder


def _load_config(where: str | Path, hub: HubOptions, trust_remote_code: bool, contract: ShapeContract | None) -> Any:
    from transformers import AutoConfig, PretrainedConfig

    if contract and Path(where).is_dir():
        saved = Path(where) / "config.json"
        facts = json.loads(saved.read_text(encoding="utf-8")) if saved.is_file() else {"num_labels": _labels(contract)}
        if not facts.get("model_type"):  # a graph whose original nobody knows
            return PretrainedConfig.from_dict(facts)
    return AutoConfig.from_pretrained(where, trust_remote_code=trust_remote_code, **hub.for_transformers())


def _labels(contract: ShapeContract) -> int:
    """How many labels a bare classifier has; transformers' default of 2 where the graph does not tell."""
    logits = next((spec for spec in contract.outputs if spec.name == "logits" and spec.axes), None)
    last = logits.axes[-1] if logits and logits.axes else None
    return last.size if last and last.size and last.role is None else 2


def _warn_of_padding(name: str, ladder: ShapeLadder) -> None:
    inputs = ladder.largest.input_names
    if ladder.limit(SEQUENCE) is not None and "input_ids" in inputs and "attention_mask" not in inputs:
        warnings.warn(
            f"The graph of this {name} takes no attention_mask, so it cannot tell padding from text: "
            "what it answers to texts shorter than a rung may depend on the padding.",
            stacklevel=3,
        )


def _copy(source: Path, target: Path) -> None:
    if source.resolve() != target.resolve():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
