"""What optimum's models tell of their onnxruntime session, told of a ladder's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from optimum_fixedshape.contract import ShapeContract, Steps
from optimum_fixedshape.errors import InvalidArgumentError
from optimum_fixedshape.fitting import Fill, pad_id_of
from optimum_fixedshape.ladder import ShapeLadder
from optimum_fixedshape.roles import with_frames
from optimum_fixedshape.runtime import RungStats, Runtime

if TYPE_CHECKING:
    import onnxruntime as ort
    import torch

_DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda", "ROCMExecutionProvider": "cuda"}
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class SessionMixin:
    """The surface of optimum's ``ORTSessionMixin``, and what a ladder has beyond it.

    Attributes:
        runtime: The rungs and their sessions.
    """

    config: Any
    runtime: Runtime

    def initialize_ort_attributes(
        self, session: Runtime | ort.InferenceSession, use_io_binding: bool | None = None
    ) -> None:
        """Puts a session, or a `Runtime` with several rungs, behind the model."""
        is_ladder = isinstance(session, Runtime)
        self.runtime = session if is_ladder else Runtime.of_session(session, fill=fill_of(self.config))
        steps = _steps_of(self.config)
        self.runtime.ladder = ShapeLadder(tuple(with_frames(rung, steps) for rung in self.runtime.ladder.rungs))
        self._use_io_binding = bool(use_io_binding)

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

    @property
    def session(self) -> ort.InferenceSession:
        """The onnxruntime session of the first rung, which is the one that stock optimum loads."""
        return self.runtime.session(0)

    @property
    def model(self) -> ort.InferenceSession:
        """The same as `session`, under optimum's other name for it."""
        return self.session

    @model.setter
    def model(self, value: None) -> None:
        """Takes what optimum's constructor sets; the session comes from the runtime."""

    @property
    def path(self) -> Path:
        """The file of the first rung."""
        return self.runtime.graphs[0]

    @property
    def model_path(self) -> Path:
        """The same as `path`."""
        return self.path

    @property
    def model_name(self) -> str:
        """The name of the file of the first rung."""
        return self.path.name

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Returns the model on another device; its sessions are opened there when next needed.

        Args:
            *args: A device (``"cpu"``, ``"cuda:1"``, ``torch.device``, a GPU's number). A dtype changes nothing: the
                graph's is baked in.
            **kwargs: The same as ``device=`` and ``dtype=``.

        Raises:
            InvalidArgumentError: There is no such device, or onnxruntime has no provider for it.
        """
        device = _device_among((*args, *kwargs.values()))
        if device is None or device == self.device or (device.type == self.device.type and device.index is None):
            return self
        if device.type not in _PROVIDERS:
            raise InvalidArgumentError(
                f"No provider is known for the device {device}. Load the model with provider= instead."
            )
        self.runtime = self.runtime.on(
            _PROVIDERS[device.type], {} if device.index is None else {"device_id": str(device.index)}
        )
        return self  # pragma: no cover  # needs onnxruntime-gpu

    @property
    def device(self) -> torch.device:
        """The device of the first provider; providers that torch does not know count as the CPU."""
        import torch

        pool = self.runtime.pool
        kind = _DEVICES.get(pool.providers[0])
        return torch.device(kind, int(pool.provider_options[0].get("device_id", 0))) if kind else torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The torch dtype of the first input or output that holds floating point numbers, else float32."""
        import torch

        kinds = (getattr(torch, spec.dtype, None) for spec in (*self.contract.inputs, *self.contract.outputs))
        return next((kind for kind in kinds if kind is not None and kind.is_floating_point), torch.float32)

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
        if not isinstance(value, bool):
            raise TypeError(f"use_io_binding must be True or False, got {value!r}.")
        self._use_io_binding = value

    def raise_on_numpy_input_io_binding(self, use_torch: bool) -> None:
        """Raises nothing: NumPy arrays are taken whatever `use_io_binding` is."""

    @property
    def input_names(self) -> dict[str, int]:
        """Input names, each with its place in the graph."""
        return _places(self.contract.input_names)

    @property
    def output_names(self) -> dict[str, int]:
        """Output names, each with its place in the graph."""
        return _places(self.contract.output_names)

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
        return _by_name(self.session.get_inputs(), self.runtime.ladder.largest)

    @property
    def output_dtypes(self) -> dict[str, str]:
        """The onnxruntime type of each output."""
        return _by_name(self.session.get_outputs(), self.runtime.ladder.largest)


def fill_of(config: Any) -> Fill:
    """Returns what pads the inputs of a model with this configuration."""
    return Fill(pad_id_of(config))


def _steps_of(config: Any) -> Steps:
    """The convolutions that make frames of samples, in models of the Wav2Vec2 family."""
    return tuple(zip(getattr(config, "conv_kernel", ()), getattr(config, "conv_stride", ()), strict=False))


def _by_name(nodes: Sequence[Any], contract: ShapeContract) -> dict[str, str]:
    return {contract.names.get(node.name, node.name): node.type for node in nodes}


def _places(names: Sequence[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}


def _device_among(values: Sequence[Any]) -> torch.device | None:
    import torch

    named = [value for value in values if isinstance(value, (str, int, torch.device)) and not isinstance(value, bool)]
    if not named:
        return None
    if isinstance(named[0], int):
        return torch.device("cuda", named[0]) if named[0] >= 0 else torch.device("cpu")
    try:
        return torch.device(named[0])
    except RuntimeError as error:
        raise InvalidArgumentError(f"There is no device {named[0]!r}: {error}") from error
