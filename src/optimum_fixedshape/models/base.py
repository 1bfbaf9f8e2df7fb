"""What every model does: arrays in, fitted, run, unfitted, `ModelOutput` out."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from optimum.modeling_base import OptimizedModel

from ..config import FixedShapeConfig
from ..contract import ShapeContract, ShapeLadder
from ..errors import MissingInputError
from ..fitting import Array, Arrays
from ..runtime import RungStats, Runtime
from ..tasks import Task, task_of_model
from .loading import LoadingMixin, fill_of

if TYPE_CHECKING:
    import onnxruntime as ort
    import torch

logger = logging.getLogger(__name__)

_POSITIONAL = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
_DEVICES = {"CPUExecutionProvider": "cpu", "CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class FixedShapeMixin(LoadingMixin):
    """Put before optimum's class: the same surface, and a graph of any shape behind it.

    Attributes:
        config: The configuration of the original model.
        home: The folder or Hub repo that the model came from, where its processors are, too.
    """

    task: ClassVar[Task | None] = None
    main_input_name = "input_ids"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.task = task_of_model(cls.__name__)

    def __init__(
        self,
        *,
        config: Any,
        session: Runtime | ort.InferenceSession,
        use_io_binding: bool | None = None,
        model_save_dir: str | Path | None = None,
    ) -> None:
        """Takes what optimum's models take; `session` may also be a `Runtime` with several rungs."""
        OptimizedModel.__init__(self, model=None, config=config)
        self.runtime = session if isinstance(session, Runtime) else Runtime.of_session(session, fill_of(config))
        self.home = model_save_dir or (self.path.parent if self.runtime.graphs else "")
        self.fixed_shape_config = FixedShapeConfig(tuple(path.name for path in self.runtime.graphs))
        self._kept: Any = None
        self._use_io_binding = bool(use_io_binding)
        self._warned: set[str] = set()

    @property
    def ladder(self) -> ShapeLadder:
        """The contracts of all rungs."""
        return self.runtime.ladder

    @property
    def contract(self) -> ShapeContract:
        """The contract of the largest rung: what the model as a whole can hold."""
        return self.ladder.largest

    @property
    def stats(self) -> tuple[RungStats, ...]:
        """Runs, rows and padding waste of each rung so far."""
        return self.runtime.stats

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
            *args: ``input_ids``, ``attention_mask``, ``token_type_ids``, ``position_ids``, in this order.
            return_dict: False returns a tuple.
            **inputs: Inputs by name, each ``(rows, tokens)``: torch tensors, NumPy arrays or nested lists. Tensors
                give tensors, all else gives NumPy arrays.

        Raises:
            InputTooLongError: The inputs are longer than the largest rung: only processors and pipelines know how to cut.
            MissingInputError, ShapeMismatchError: The inputs contradict the graph.
        """
        given = {**dict(zip(_POSITIONAL, args, strict=False)), **inputs}
        given = {name: value for name, value in given.items() if value is not None}
        tensor = next((value for value in given.values() if _is_tensor(value)), None)
        outputs = self.run(self._feeds(given))
        output = self.output_of(outputs, device=None if tensor is None else tensor.device)
        return output if return_dict is not False else output.to_tuple()

    def output_of(self, outputs: Mapping[str, Array], *, device: Any = None) -> Any:
        """Returns graph outputs as the task's `ModelOutput`.

        Args:
            outputs: Output name to array.
            device: Where torch tensors go; None keeps NumPy arrays.
        """
        values: dict[str, Any] = {}
        for name, array in outputs.items():
            value = array if device is None else _tensor(array, device)
            numbered = re.fullmatch(r"(hidden_states|attentions)\.\d+", name)
            if numbered:
                values[numbered[1]] = (*values.get(numbered[1], ()), value)
            else:
                values[name] = value
        output_class = self._output_class
        fields = {name: value for name, value in values.items() if name in output_class.__dataclass_fields__}
        if len(fields) < len(values):
            from transformers.utils import ModelOutput

            return ModelOutput(values)
        return output_class(**fields)

    @cached_property
    def _output_class(self) -> Any:
        from transformers import modeling_outputs
        from transformers.utils import ModelOutput

        return getattr(modeling_outputs, self.task.output) if self.task else ModelOutput

    def _feeds(self, given: Mapping[str, Any]) -> Arrays:
        known = set(self.contract.input_names)
        for name in given.keys() - known - set(_POSITIONAL) - self._warned:
            self._warned.add(name)
            logger.warning("The graph of %s takes no %r: it is ignored.", type(self).__name__, name)
        if not known & given.keys():
            wanted = ", ".join(self.contract.input_names)
            raise MissingInputError(
                f"The graph takes {wanted}; what came is: {', '.join(given) or 'nothing'}.",
                missing=self.contract.input_names,
                given=tuple(given),
            )
        return {name: _array(value) for name, value in given.items() if name in known}

    def can_generate(self) -> bool:
        """Whether the model writes text with ``generate()``: these do not."""
        return False

    def eval(self) -> Self:
        """Returns the model: a graph is always in evaluation mode."""
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Returns the model on another device; its sessions are opened there when next needed.

        Args:
            *args: A device (``"cpu"``, ``"cuda:1"``, ``torch.device``, a GPU's number). A dtype changes nothing: the
                graph's is baked in.
            **kwargs: The same as ``device=`` and ``dtype=``.

        Raises:
            ValueError: onnxruntime has no provider for the device.
        """
        import torch

        device = kwargs.get("device", next((a for a in args if not isinstance(a, torch.dtype)), None))
        device = None if device is None else torch.device(device)
        if device is None or device == self.device or (device.type == self.device.type and device.index is None):
            return self
        if device.type not in _PROVIDERS:
            raise ValueError(f"No provider is known for the device {device}. Load the model with provider= instead.")
        options = [{"device_id": str(device.index)}] if device.index else None
        self.runtime = Runtime(
            self.ladder,
            self.runtime.graphs,
            fill=self.runtime.fill,
            providers=[_PROVIDERS[device.type]],
            provider_options=options,
            session_options=self.runtime.session_options,
        )
        return self

    @property
    def device(self) -> torch.device:
        """The device of the first provider; providers that torch does not know count as the CPU."""
        import torch

        kind = _DEVICES.get(self.runtime.providers[0], "cpu")
        index = self.runtime.provider_options[0].get("device_id", 0)
        return torch.device(kind) if kind == "cpu" else torch.device(kind, int(index))

    @property
    def dtype(self) -> torch.dtype:
        """The torch dtype of the first output that holds floating point numbers; float32 where there is none."""
        import torch

        kinds = (getattr(torch, spec.dtype, None) for spec in (*self.contract.outputs, *self.contract.inputs))
        return next((kind for kind in kinds if kind is not None and kind.is_floating_point), torch.float32)

    @property
    def session(self) -> ort.InferenceSession:
        """The onnxruntime session of the first rung, which is the one that stock optimum loads."""
        return self.runtime.session(0)

    @property
    def path(self) -> Path:
        """The file of the first rung."""
        return self.runtime.graphs[0]

    @property
    def providers(self) -> list[str]:
        """The execution providers of the sessions, in order of preference."""
        return list(self.session.get_providers())

    @property
    def provider(self) -> str:
        """The first execution provider."""
        return self.providers[0]

    @property
    def provider_options(self) -> dict[str, Any]:
        """The options of each provider."""
        return dict(self.session.get_provider_options())

    @property
    def provider_option(self) -> dict[str, Any]:
        """The options of the first provider."""
        return dict(self.provider_options[self.provider])

    @property
    def use_io_binding(self) -> bool:
        """Accepted as optimum's; arrays are fitted on the CPU, so nothing is bound."""
        return self._use_io_binding

    @use_io_binding.setter
    def use_io_binding(self, value: bool) -> None:
        self._use_io_binding = bool(value)

    @property
    def input_names(self) -> dict[str, int]:
        """Input names, each with its place in the graph."""
        return {name: i for i, name in enumerate(self.contract.input_names)}

    @property
    def output_names(self) -> dict[str, int]:
        """Output names, each with its place in the graph."""
        return {name: i for i, name in enumerate(self.contract.output_names)}

    @property
    def input_shapes(self) -> dict[str, Any]:
        """The shape of each input of the largest rung."""
        return {spec.name: list(spec.shape or ()) for spec in self.contract.inputs}

    @property
    def output_shapes(self) -> dict[str, Any]:
        """The shape of each output of the largest rung."""
        return {spec.name: list(spec.shape or ()) for spec in self.contract.outputs}

    @property
    def input_dtypes(self) -> dict[str, str]:
        """The onnxruntime type of each input."""
        return {node.name: node.type for node in self.session.get_inputs()}

    @property
    def output_dtypes(self) -> dict[str, str]:
        """The onnxruntime type of each output."""
        return {node.name: node.type for node in self.session.get_outputs()}


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach")


def _array(value: Any) -> Array:
    return value.detach().cpu().numpy() if _is_tensor(value) else np.asarray(value)  # type: ignore[no-any-return]


def _tensor(array: Array, device: Any) -> Any:
    import torch

    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)


