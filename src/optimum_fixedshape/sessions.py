"""onnxruntime sessions: opened when first needed, once for all threads, and again in every process."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .contract import Axis, ShapeContract, TensorSpec
from .errors import GraphNotFoundError, InvalidArgumentError, InvalidModelError
from .graph.reader import read_contract
from .graph.tensors import check_tensors
from .roles import with_roles

if TYPE_CHECKING:  # importing it takes longer than reading a header
    import onnxruntime as ort

CPU = "CPUExecutionProvider"
Pins = tuple[tuple[str, int], ...]

# Fixed shapes let onnxruntime fuse Add + LayerNormalization into a CPU kernel that is several times slower than both.
_SLOW_ON_CPU = ["SkipLayerNormFusion", "EmbedLayerNormFusion"]

_NUMPY_TYPES = {"float": "float32", "double": "float64"}


class SessionPool:
    """The sessions of one model's graphs. Safe to share between threads; copies open sessions of their own.

    Args:
        providers: Execution providers in order of preference.
        provider_options: One mapping for each provider.
        session_options: Passed on to every session. Copies in other processes keep all of it but config entries, which
            onnxruntime does not list.

    Raises:
        InvalidArgumentError: onnxruntime was built without one of the providers, or there are not as many options as
            providers.
    """

    def __init__(
        self,
        providers: Sequence[str] = (CPU,),
        provider_options: Sequence[Mapping[str, Any]] | None = None,
        session_options: ort.SessionOptions | None = None,
    ) -> None:
        self.providers = _checked(providers)
        self.provider_options = [dict(options) for options in provider_options or [{}] * len(self.providers)]
        self.session_options = session_options
        if len(self.provider_options) != len(self.providers):
            raise InvalidArgumentError(
                f"provider_options has {len(self.provider_options)} mappings for {len(self.providers)} providers "
                f"({', '.join(self.providers)}): give one for each, in the same order."
            )
        self._open: dict[tuple[Path, Pins], ort.InferenceSession] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        options = None if self.session_options is None else _settings_of(self.session_options)
        return {"providers": self.providers, "provider_options": self.provider_options, "session_options": options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _open={}, _lock=threading.Lock())
        if self.session_options is not None:
            self.session_options = _options_with(self.session_options)

    def add(self, path: Path, session: ort.InferenceSession) -> None:
        """Takes in a session of the graph at `path` that is open already."""
        self._open[path, ()] = session

    def get(self, path: Path, rung: ShapeContract) -> ort.InferenceSession:
        """Returns the session that runs `rung` of the graph at `path`, opened when it is first asked for.

        On the CPU a dynamic graph has one session for all its rungs; other providers get one with each rung's sizes.

        Raises:
            GraphNotFoundError: The graph, or a file that holds its weights, is missing.
            InvalidModelError: onnxruntime refuses the graph.
        """
        pins = () if self.providers[0] == CPU else _pins(rung)
        with self._lock:
            if (path, pins) not in self._open:
                self._open[path, pins] = self._opened(path, pins)
            return self._open[path, pins]

    def _opened(self, path: Path, pins: Pins) -> ort.InferenceSession:
        import onnxruntime as ort

        check_files(path)
        options = self.session_options or _options_with({})
        if pins:
            # A copy: pins stay on the options they were put on, and those of the next rung would not replace them.
            options = _options_with(_settings_of(options))
            for symbol, size in pins:
                options.add_free_dimension_override_by_name(symbol, size)
        try:
            return ort.InferenceSession(
                str(path),
                sess_options=options,
                providers=self.providers,
                provider_options=self.provider_options,
                disabled_optimizers=_SLOW_ON_CPU if self.providers[0] == CPU else None,
            )
        except Exception as error:  # onnxruntime's errors share no public base class
            raise InvalidModelError(f"onnxruntime cannot open {path}: {error}", path=str(path)) from error


def check_files(path: Path) -> tuple[str, ...]:
    """Returns the files that hold weights of the graph at `path`, relative to its folder, all of which may be read.

    Raises:
        GraphNotFoundError: A file is missing.
        InvalidModelError: A weight is larger than what the files hold, or leads outside the folder.
    """
    if not path.is_file():
        raise GraphNotFoundError(f"There is no file {path} to open the graph from.", source=str(path))
    return tuple(sorted({place.file.relative_to(path.parent).as_posix() for place in check_tensors(path)}))


def contract_of_session(session: ort.InferenceSession) -> ShapeContract:
    """Returns the contract of an open session, with the shapes that it reports, pinned or not."""
    path = Path(getattr(session, "_model_path", None) or "")
    stated = ShapeContract(
        inputs=tuple(map(_spec, session.get_inputs())),
        outputs=tuple(map(_spec, session.get_outputs())),
        external_data=read_contract(path).external_data if path.is_file() else (),
        path=path if path.name else None,
    )
    return with_roles(stated, {})


def _checked(providers: Sequence[str]) -> list[str]:
    import onnxruntime as ort

    available = ort.get_available_providers()
    if unknown := [name for name in providers if name not in available]:
        raise InvalidArgumentError(f"This onnxruntime has no {', '.join(unknown)}. It has: {', '.join(available)}.")
    return list(providers)


def _spec(node: Any) -> TensorSpec:
    dtype = node.type.removeprefix("tensor(").removesuffix(")")
    sizes = [size if isinstance(size, int) and size > 0 else None for size in node.shape]
    symbols = [size if isinstance(size, str) else None for size in node.shape]
    return TensorSpec(node.name, _NUMPY_TYPES.get(dtype, dtype), tuple(map(Axis, sizes, symbols)))


def _pins(rung: ShapeContract) -> Pins:
    axes = (axis for spec in rung.inputs for axis in spec.axes or ())
    return tuple(sorted({(axis.symbol, axis.size) for axis in axes if axis.symbol and axis.size}))


def _settings_of(options: ort.SessionOptions) -> dict[str, Any]:
    names = (name for name in dir(options) if not name.startswith("_"))
    return {name: value for name in names if not callable(value := getattr(options, name))}


def _options_with(settings: Mapping[str, Any]) -> ort.SessionOptions:
    import onnxruntime as ort

    options = ort.SessionOptions()
    # Every rung has threads of its own; idle ones that spin would take the cores from the rung that runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name, value in settings.items():
        setattr(options, name, value)
    return options
