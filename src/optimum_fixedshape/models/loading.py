"""Loading and saving: from a folder, a file or the Hub, and back; exported on the way where there is no graph yet."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from ..config import FixedShapeConfig
from ..contract import SEQUENCE, ShapeContract, ShapeLadder
from ..errors import GraphNotFoundError
from ..fitting import Fill, pad_id_of
from ..repo import MAIN_GRAPH, Graphs, HubOptions, Sizes, find_graphs, holds_torch_model
from ..runtime import Runtime
from ..tasks import Task

logger = logging.getLogger(__name__)

_OF_TORCH_ALONE = {"dtype", "torch_dtype", "device_map", "attn_implementation", "low_cpu_mem_usage", "use_safetensors"}
_OF_PIPELINES = {"_from_pipeline", "_commit_hash", "code_revision", "framework"}


class LoadingMixin:
    """`from_pretrained`, `save_pretrained` and `push_to_hub`, with the arguments of optimum's `ORTModel`."""

    task: Task | None
    runtime: Runtime
    config: Any
    home: str | Path
    fixed_shape_config: FixedShapeConfig

    @classmethod
    def from_pretrained(
        cls,
        model_id: str | Path,
        config: Any = None,
        export: bool = False,
        *,
        shapes: Sizes | None = None,
        subfolder: str = "",
        revision: str | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        cache_dir: str | Path | None = None,
        token: bool | str | None = None,
        file_name: str | None = None,
        provider: str = "CPUExecutionProvider",
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
            provider_options: One mapping for each provider.
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
        kept: TemporaryDirectory[str] | None = None
        graphs = None if export else _graphs_or_none(model_id, file_name, hub)
        if graphs is None:
            kept, graphs = _export_on_the_fly(cls.task, model_id, shapes, hub, trust_remote_code)
            shapes = None
        ladder, paths = graphs.ladder(shapes)
        if config is None or isinstance(config, (str, Path)):
            config = _load_config(config or graphs.folder, hub, trust_remote_code, ladder.largest)
        runtime = Runtime(
            ladder,
            paths,
            fill=fill_of(config),
            providers=providers or [provider],
            provider_options=[provider_options] if isinstance(provider_options, Mapping) else provider_options,
            session_options=session_options,
        )
        model: Any = cls(config=config, session=runtime, use_io_binding=use_io_binding)
        model._kept = kept
        model.home = graphs.folder if Path(model_id).exists() else model_id
        model.fixed_shape_config = graphs.saved_config(task=cls.task and cls.task.name, shapes=shapes)
        _warn_of_padding(cls.__name__, ladder)
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
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save_pretrained(folder)
        self._save_pretrained(folder)
        if push_to_hub:
            self.push_to_hub(folder, **kwargs)

    def _save_pretrained(self, save_directory: str | Path) -> None:
        folder = Path(save_directory)
        files = list(dict.fromkeys(self.runtime.graphs))
        names = [path.name for path in files]
        if MAIN_GRAPH not in names:
            names[0] = MAIN_GRAPH
        for path, name in zip(files, names, strict=True):
            _copy(path, folder / name)
        data = {(path.parent, name) for path, rung in self._rungs() for name in rung.external_data}
        for parent, name in sorted(data):
            _copy(parent / name, folder / name)
        replace(self.fixed_shape_config, graphs=tuple(names)).save_pretrained(folder)

    def _rungs(self) -> Iterable[tuple[Path, ShapeContract]]:
        return zip(self.runtime.graphs, self.runtime.ladder.rungs, strict=True)

    def push_to_hub(
        self,
        save_directory: str | Path,
        repository_id: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        **kwargs: Any,
    ) -> str:
        """Uploads the model and returns the address of the commit.

        Args:
            save_directory: The folder that was saved before; or, as in transformers, the repo id alone, and the model
                is saved on the way.
            repository_id: The repo id; the repo is created if need be.
            private: Create it as a private one.
            token: Whose account to use; None takes the saved login.
            **kwargs: Arguments of `HfApi.upload_folder`, such as ``commit_message=`` or ``revision=``.
        """
        from huggingface_hub import HfApi

        if repository_id is None:
            with TemporaryDirectory() as folder:
                self.save_pretrained(folder)
                return self.push_to_hub(folder, str(save_directory), private, token, **kwargs)
        api = HfApi(token=token)
        api.create_repo(repository_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repository_id, folder_path=str(save_directory), **kwargs))

    def __getstate__(self) -> dict[str, Any]:
        # The folder of an export on the fly lives as long as the model that made it; a copy only reads it.
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}


def fill_of(config: Any) -> Fill:
    """Returns what pads the inputs of a model with this configuration."""
    return Fill(pad_id_of(config))


def _check_rest(kwargs: Mapping[str, Any]) -> None:
    for name, value in kwargs.items():
        if name in _OF_TORCH_ALONE:
            if value not in (None, False, "auto"):
                warnings.warn(f"{name}={value!r} has no meaning for a graph and is ignored.", stacklevel=3)
        elif name not in _OF_PIPELINES:
            raise TypeError(f"from_pretrained got an unexpected keyword argument {name!r}.")


def _graphs_or_none(model_id: str | Path, file_name: str | None, hub: HubOptions) -> Graphs | None:
    try:
        return find_graphs(model_id, file_name=file_name, hub=hub)
    except GraphNotFoundError as error:
        if error.found or file_name or not holds_torch_model(model_id, hub):
            raise
        return None


def _export_on_the_fly(
    task: Task | None, model_id: str | Path, shapes: Sizes | None, hub: HubOptions, trust_remote_code: bool
) -> tuple[TemporaryDirectory[str], Graphs]:
    from ..export.folder import export_model, shapes_up_to

    logger.warning(
        "%s holds no graph: exporting it now, which takes a while. Save the model with save_pretrained() to do this once.",
        model_id,
    )
    folder = TemporaryDirectory(prefix="optimum-fixedshape-")
    options = {**hub.for_transformers(), "trust_remote_code": trust_remote_code, "subfolder": hub.subfolder}
    if shapes is None:
        shapes = shapes_up_to(_load_config(model_id, hub, trust_remote_code, None))
    export_model(model_id, folder.name, task=task and task.name, shapes=shapes, progress=False, **options)
    return folder, find_graphs(folder.name)


def _load_config(where: str | Path, hub: HubOptions, trust_remote_code: bool, contract: ShapeContract | None) -> Any:
    from transformers import AutoConfig, PretrainedConfig

    if contract and Path(where).is_dir() and not (Path(where) / "config.json").is_file():
        return PretrainedConfig(num_labels=_labels(contract))
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
