"""Loading: from a folder, a file or the Hub; exported on the way where there is no graph yet."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

from optimum_fixedshape.config import Names, Roles
from optimum_fixedshape.contract import ShapeContract
from optimum_fixedshape.errors import GraphNotFoundError, InvalidModelError, warn
from optimum_fixedshape.fitting import Fill
from optimum_fixedshape.hub import HubOptions
from optimum_fixedshape.ladder import ShapeLadder
from optimum_fixedshape.padding import audio_padding_matters, text_padding_matters
from optimum_fixedshape.repo import Sizes, find_graphs, holds_torch_model
from optimum_fixedshape.runtime import Runtime
from optimum_fixedshape.scratch import ScratchFolder
from optimum_fixedshape.sessions import CPU, SessionPool
from optimum_fixedshape.tasks import Task

from .minimal import labels_of
from .session import fill_of

logger = logging.getLogger(__name__)

_OF_TORCH_ALONE = {
    *("attn_implementation", "device_map", "dtype", "ignore_mismatched_sizes", "low_cpu_mem_usage", "max_memory"),
    *("offload_folder", "output_attentions", "output_hidden_states", "quantization_config", "torch_dtype"),
    *("use_safetensors", "weights_only"),
}
_FEWEST_LABELS = 2  # transformers' default, where a graph does not tell
_OF_PIPELINES = {"_from_pipeline", "_from_auto", "_commit_hash", "adapter_kwargs", "code_revision", "framework"}


class LoadingMixin:
    """`from_pretrained`, with the arguments of optimum's `ORTModel`."""

    task: ClassVar[Task | None]

    @classmethod
    def from_pretrained(
        cls,
        model_id: str | Path,
        config: Any = None,
        export: bool = False,
        *,
        shapes: Sizes | None = None,
        roles: Roles | None = None,
        input_names: Names | None = None,
        output_names: Names | None = None,
        subfolder: str = "",
        revision: str | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        cache_dir: str | Path | None = None,
        token: bool | str | None = None,
        file_name: str | None = None,
        variant: str | None = None,
        provider: str = CPU,
        providers: Sequence[str] | None = None,
        provider_options: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None,
        session_options: Any = None,
        max_open: int | None = None,
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
                ``{"y": ["batch_size", None]}``. Where names are mapped, either name will do.
            input_names: The graph's names of inputs to the standard ones, such as ``{"data_0": "pixel_values"}``: all
                else then knows the standard ones alone. Saved with the model.
            output_names: The same for outputs, such as ``{"prob_1": "logits"}``.
            subfolder: Folder of the repo that holds the graphs.
            revision: Branch, tag or commit on the Hub.
            force_download: Download again what is in the cache.
            local_files_only: Never ask the Hub, only its cache.
            trust_remote_code: Run code of the repo for its configuration.
            cache_dir: Where downloads are kept.
            token: For private repos.
            file_name: Which graph, where there are several.
            variant: Which graphs, where there are several kinds: ``"quantized"`` takes ``model_quantized.onnx``, or of
                a model of several parts all that end so.
            provider: The execution provider.
            providers: Several, in order of preference; wins over `provider`.
            provider_options: One mapping for each provider, or one for the first.
            session_options: onnxruntime's `SessionOptions`. With some of your own, nothing is cached on disk.
            max_open: How many sessions are open at a time, for devices that hold few graphs. The one that was not used
                for longest is closed first.
            use_io_binding: Accepted as optimum's.
            **kwargs: Values of the configuration to change (``id2label=``, ...). Arguments of transformers that have no
                meaning for a graph are ignored with a warning.

        Raises:
            GraphNotFoundError: There is neither a graph nor a PyTorch model, or several graphs to choose from.
            InvalidModelError: The graph is broken.
            ShapeMismatchError: `shapes` contradicts what is baked into the graph, or it has no input or output of a
                name that is mapped, or two would have one name.
            TypeError: An argument is unknown.
        """
        changes = _changes_among(kwargs)
        hub = HubOptions(revision, token, cache_dir, local_files_only, force_download, subfolder, variant)
        providers = providers or [provider]
        pool = SessionPool(
            providers, _one_for_each(provider_options, providers), session_options, max_open=max_open, cached=True
        )
        save_dir: Path | ScratchFolder
        told: dict[str, Any] = {"roles": roles, "names": {**(input_names or {}), **(output_names or {})}}
        graphs = None if export else cls._graphs_or_none(model_id, file_name, hub, shapes=shapes, **told)
        if graphs is not None:
            save_dir = graphs.folder
        else:
            save_dir = _exported(cls.task, model_id, shapes, hub, trust_remote_code)
            graphs = cls._find(save_dir.path, **told)
        pool.cached = not isinstance(save_dir, ScratchFolder) and getattr(graphs, "scratch", None) is None
        if config is None or isinstance(config, (str, Path)):
            config = _load_config(config or graphs.folder, hub, trust_remote_code, graphs.ladder.largest)
        config = _changed(config, changes)
        runtime = cls._runtime_of(graphs, fill_of(config), pool)
        make: Any = cls._class_for(config)
        model = make(config=config, session=runtime, use_io_binding=use_io_binding, model_save_dir=save_dir)
        task = graphs.config.task or (cls.task.name if cls.task else None)
        model.fixed_shape_config = replace(graphs.config, task=task)
        _warn_of_padding(cls.__name__, graphs.ladder, config)
        return model  # type: ignore[no-any-return]

    from_model = from_pretrained

    @classmethod
    def _class_for(cls, config: Any) -> type:
        return cls

    @staticmethod
    def _find(source: str | Path, **options: Any) -> Any:
        return find_graphs(source, **options)

    @staticmethod
    def _runtime_of(graphs: Any, fill: Fill, pool: SessionPool) -> Any:
        return Runtime(graphs.ladder, graphs.paths, fill=fill, pool=pool)

    @classmethod
    def _graphs_or_none(cls, model_id: str | Path, file_name: str | None, hub: HubOptions, **told: Any) -> Any:
        try:
            return cls._find(model_id, file_name=file_name, hub=hub, **told)
        except GraphNotFoundError as error:
            if error.found or file_name or not holds_torch_model(model_id, hub):
                raise
            return None


def _changes_among(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    for name in kwargs.keys() & _OF_TORCH_ALONE:
        if kwargs[name] not in (None, False, "auto"):
            warn(f"{name}={kwargs[name]!r} has no meaning for a graph and is ignored.")
    return {name: value for name, value in kwargs.items() if name not in _OF_TORCH_ALONE | _OF_PIPELINES}


def _changed(config: Any, changes: dict[str, Any]) -> Any:
    for name in changes:
        if not hasattr(config, name):
            raise TypeError(f"from_pretrained got an unexpected keyword argument {name!r}.")
    changed = copy.deepcopy(config) if changes else config
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed


def _one_for_each(options: Any, providers: Sequence[str]) -> Sequence[Mapping[str, Any]] | None:
    return [options, *[{}] * (len(providers) - 1)] if isinstance(options, Mapping) else options


def _exported(
    task: Task | None, model_id: str | Path, shapes: Sizes | None, hub: HubOptions, trust_remote_code: bool
) -> ScratchFolder:
    from transformers import AutoConfig

    from optimum_fixedshape.export.folder import export_model
    from optimum_fixedshape.export.shapes import shapes_up_to

    options = {**hub.for_transformers(), "trust_remote_code": trust_remote_code, "subfolder": hub.subfolder}
    config = AutoConfig.from_pretrained(model_id, **options)
    if shapes is None and (task is None or task.modality == "text") and _reads_tokens(config):
        shapes = shapes_up_to(config)
    logger.warning(
        "Exporting %s on the fly, for %s. This takes a while: keep the graphs with save_pretrained() to do it once.",
        model_id,
        ", ".join(f"{key} {size}" for key, size in (shapes or {}).items()) or "the sizes that it was made for",
    )
    folder = ScratchFolder()
    export_model(model_id, folder.path, task=task.name if task else None, shapes=shapes, progress=False, **options)
    return folder


def _reads_tokens(config: Any) -> bool:
    """Whether the original's encoder is about texts, as far as transformers knows it."""
    from transformers import AutoModel

    known = AutoModel._model_mapping
    return type(config) not in known or known[type(config)].main_input_name == "input_ids"


def config_facts(where: str | Path, **options: Any) -> dict[str, Any]:
    """Returns what the ``config.json`` of a folder or a Hub repo says.

    Raises:
        InvalidModelError: It holds something else than an object.
        OSError: There is none, or it is not JSON.
    """
    from transformers import PretrainedConfig

    with contextlib.suppress(TypeError):  # transformers 4 writes into what it reads, whatever that is
        facts: Any = PretrainedConfig.get_config_dict(where, **options)[0]
        if isinstance(facts, dict):
            return facts
    raise InvalidModelError(f"config.json of {where} is not a valid configuration.", path=str(where))


def _load_config(where: str | Path, hub: HubOptions, trust_remote_code: bool, contract: ShapeContract) -> Any:
    from transformers import AutoConfig, PretrainedConfig

    if Path(where).is_dir():
        is_known = (Path(where) / "config.json").is_file()
        facts = config_facts(where) if is_known else {"num_labels": labels_of(contract) or _FEWEST_LABELS}
        if not facts.get("model_type"):  # a graph whose original nobody knows
            return PretrainedConfig.from_dict(facts)
    return AutoConfig.from_pretrained(where, trust_remote_code=trust_remote_code, **hub.for_transformers())


def _warn_of_padding(name: str, ladder: ShapeLadder, config: Any) -> None:
    if reason := text_padding_matters(ladder, config) or audio_padding_matters(ladder, config):
        warn(f"What this {name} answers to items shorter than a rung may depend on the padding: {reason}.")
