"""What every model does: arrays in, fitted, run, unfitted, `ModelOutput` out."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import transformers
from optimum.modeling_base import OptimizedModel

from optimum_fixedshape.choosing import MAIN_GRAPH
from optimum_fixedshape.config import FixedShapeConfig
from optimum_fixedshape.errors import MissingInputError
from optimum_fixedshape.fitting import Array, Arrays
from optimum_fixedshape.runtime import Runtime
from optimum_fixedshape.scratch import ScratchFolder
from optimum_fixedshape.tasks import Task, task_of_model

from .loading import LoadingMixin
from .minimal import is_row_an_item
from .saving import SavingMixin
from .session import SessionMixin

if TYPE_CHECKING:
    import onnxruntime as ort

    from optimum_fixedshape.detecting import TaskGuesses

logger = logging.getLogger(__name__)

_POSITIONAL = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
_MAIN_INPUTS = ("input_ids", "pixel_values", "pixel_values_videos", "input_values", "input_features")


class FixedShapeMixin(LoadingMixin, SavingMixin, SessionMixin):
    """Put before optimum's class: the same surface, and a graph of any shape behind it.

    Attributes:
        config: The configuration of the original model.
        fixed_shape_config: What is known of the graphs, and saved with them.
        task: The row of the task table, or None for custom tasks.
        detection: How `AutoModelForONNX` told the task by the graph; None where something else said it.
        auto_model_class: transformers' class that loads the original.
    """

    task: ClassVar[Task | None] = None
    detection: TaskGuesses | None = None
    auto_model_class: ClassVar[Any]
    input_modalities: str | tuple[str, ...] = "text"
    model_type = "onnx_model"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.task = task_of_model(cls.__name__) or cls.task
        cls.auto_model_class = getattr(transformers, cls.task.auto if cls.task else "AutoModel")
        cls.input_modalities = _modalities_of(cls.task) if cls.task else "text"

    def __init__(
        self,
        *,
        config: transformers.PretrainedConfig,
        session: Runtime | ort.InferenceSession,
        use_io_binding: bool | None = None,
        model_save_dir: str | Path | ScratchFolder | None = None,
    ) -> None:
        """Takes what optimum's models take; `session` may also be a `Runtime` with several rungs."""
        OptimizedModel.__init__(self, model=None, config=config)
        self.initialize_ort_attributes(session, use_io_binding)
        self._save_dir = model_save_dir or self.path.parent
        self.fixed_shape_config = FixedShapeConfig(
            tuple(path.name or MAIN_GRAPH for path in self.runtime.graphs), names=self.runtime.ladder.largest.names
        )
        self._said: set[str] = set()

    @property
    def home(self) -> Path:
        """The folder that holds config and processors."""
        return self._save_dir.path if isinstance(self._save_dir, ScratchFolder) else Path(self._save_dir)

    @property
    def model_save_dir(self) -> Path:
        """The same as `home`, under optimum's name for it."""
        return self.home

    def run(self, feeds: Mapping[str, Array]) -> Arrays:
        """Returns the graph's outputs by name: NumPy in, NumPy out, no torch.

        Args:
            feeds: Input name to an array of any rows, and any length that a rung holds.

        Raises:
            InputTooLongError: The arrays are longer than the largest rung.
            MissingInputError, ShapeMismatchError: The arrays contradict the graph.
        """
        return self.runtime.run([feeds])[0]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what `forward` returns."""
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any, return_dict: bool | None = None, **inputs: Any) -> Any:
        """Returns the task's `ModelOutput`, each output as long and with as many rows as the inputs.

        Args:
            *args: ``input_ids``, ``attention_mask``, ``token_type_ids``, ``position_ids``, in this order; for a graph
                that takes others the graph's inputs in its own order.
            return_dict: False returns a tuple. By default what the config says.
            **inputs: Inputs by name, such as ``(rows, tokens)`` or ``(rows, channels, height, width)``: torch tensors,
                NumPy arrays or nested lists. Tensors give tensors, all else gives NumPy arrays.

        Raises:
            InputTooLongError: The inputs are longer than the largest rung: only processors and pipelines can cut.
            MissingInputError, ShapeMismatchError: The inputs contradict the graph.
            TypeError: There are more positional inputs than names for them.
        """
        given = self._named(args) | {name: value for name, value in inputs.items() if value is not None}
        tensor = next((value for value in given.values() if is_tensor(value)), None)
        outputs = self.run(self._feeds(given))
        output = self.output_of(outputs, device=None if tensor is None else tensor.device)
        if return_dict is None:
            return_dict = getattr(self.config, "return_dict", True)
        return output if return_dict else output.to_tuple()

    def output_of(self, outputs: Mapping[str, Array], *, device: Any = None) -> Any:
        """Returns graph outputs as the task's `ModelOutput`.

        Args:
            outputs: Output name to array.
            device: Where torch tensors go; None keeps NumPy arrays.
        """
        values: dict[str, Any] = {}
        for name, array in outputs.items():
            if name == "logits" and is_row_an_item(self.task):
                array = without_spent_axes(array)
            value = array if device is None else as_tensor(array, device)
            numbered = re.fullmatch(r"(hidden_states|attentions)\.\d+", name)
            if numbered:
                values[numbered[1]] = (*values.get(numbered[1], ()), value)
            else:
                values[name] = value
        own, plain = self._output_classes
        return own(**values) if own and own.__dataclass_fields__.keys() >= values.keys() else plain(values)

    def __getstate__(self) -> dict[str, Any]:
        """Returns what is pickled: nothing that use leaves behind, so that `datasets` knows the model again."""
        kept = {name: value for name, value in self.__dict__.items() if name != "_output_classes"}
        return {**kept, "_said": set()}

    @cached_property
    def _output_classes(self) -> tuple[Any, Any]:
        from transformers.utils import ModelOutput

        return _output_class(self.task) if self.task else None, ModelOutput

    @property
    def main_input_name(self) -> str:
        """The input that the others go with: transformers' name for what the model is about."""
        names = self.contract.input_names
        return next((name for name in _MAIN_INPUTS if name in names), names[0])

    def _named(self, args: tuple[Any, ...]) -> dict[str, Any]:
        names = self.contract.input_names
        if set(names) <= {*_POSITIONAL}:
            names = _POSITIONAL
        if len(args) > len(names):
            raise TypeError(f"At most {len(names)} inputs go by position ({', '.join(names)}), got {len(args)}.")
        return {name: value for name, value in zip(names, args, strict=False) if value is not None}

    def _feeds(self, given: Mapping[str, Any]) -> dict[str, Any]:
        names = self.contract.input_names
        known = set(names)
        if not known & given.keys():
            raise MissingInputError(
                f"The graph takes {', '.join(names)}; what came is: {', '.join(given) or 'nothing'}.",
                missing=names,
                given=tuple(given),
            )
        self.say_ignored({name: value for name, value in given.items() if name not in known})
        return {name: as_array(value) for name, value in given.items() if name in known}

    def say_ignored(self, inputs: Mapping[str, Any]) -> None:
        """Logs once of each input that no graph takes, where a model that takes it would answer differently."""
        for name, value in inputs.items():
            if name not in self._said and _matters(name, value):
                self._said.add(name)
                logger.warning("The graph of this %s takes no %r: it is ignored.", type(self).__name__, name)

    def can_generate(self) -> bool:
        """Whether the model writes text with ``generate()``: these do not."""
        return False

    def eval(self) -> Self:
        """Returns the model: a graph is always in evaluation mode."""
        return self


def _modalities_of(task: Task) -> str | tuple[str, ...]:
    kinds = {"image_processor": "image", "feature_extractor": "audio", "video_processor": "video"}
    texts = ["text"] if "input_ids" in task.inputs else []
    found = (*texts, *(kinds[processor] for processor in task.processors if processor in kinds))
    return found if len(found) > 1 else found[0]


def _output_class(task: Task) -> Any:
    home, _, name = task.output.rpartition(":")
    return getattr(importlib.import_module(home or "transformers.modeling_outputs"), name)


def _matters(name: str, value: Any) -> bool:
    """Whether a model that takes the input would answer differently; of a missing mask `from_pretrained` has warned."""
    nothing = value is None or value is False or (name == "token_type_ids" and not np.any(as_array(value)))
    return name not in _KNOWN_OTHERWISE and not nothing


_KNOWN_OTHERWISE = ("attention_mask", "cache_position")


def without_spent_axes(array: Array) -> Array:
    """Returns an array ``(rows, labels)`` of one ``(rows, labels, 1, 1)``, as pooled convolutions leave it."""
    is_spent = array.ndim > 2 and set(array.shape[2:]) == {1}
    return array.reshape(array.shape[:2]) if is_spent else array


def is_tensor(value: Any) -> bool:
    """Whether a value is a torch tensor."""
    return hasattr(value, "detach")


def as_array(value: Any) -> Any:
    """Returns a tensor as NumPy, and all else as it is."""
    return value.detach().cpu().numpy() if is_tensor(value) else value


def as_tensor(array: Array, device: Any) -> Any:
    """Returns an array as a tensor on a device; text, sequences and maps, which have no tensors, as they are."""
    import torch

    if getattr(array, "dtype", None) is None or array.dtype.kind not in "biufc":
        return array
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)
