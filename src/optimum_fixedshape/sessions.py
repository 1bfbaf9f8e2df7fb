"""onnxruntime sessions: opened when first needed, once for all threads, and again in every process."""

from __future__ import annotations

import functools
import logging
import re
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .contract import Axis, ShapeContract, TensorSpec
from .errors import GraphNotFoundError, InvalidArgumentError, InvalidModelError, warn
from .graph.reader import read_contract
from .graph.tensors import check_tensors
from .roles import with_roles
from .session_cache import cached_graph
from .threads import threads_for

if TYPE_CHECKING:  # importing it takes longer than reading a header
    import onnxruntime as ort

logger = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
Pins = tuple[tuple[str, int], ...]

# Fixed shapes let onnxruntime fuse Add + LayerNormalization into a CPU kernel that is several times slower than both.
SLOW_ON_CPU = ["SkipLayerNormFusion", "EmbedLayerNormFusion"]

_CACHED_FROM_BYTES = 16 * 2**20  # smaller graphs open about as fast without

_ERRORS = 3  # onnxruntime's number: it warns that what it saves is for this CPU alone

_NUMPY_TYPES = {"float": "float32", "double": "float64"}

_RECORD_NODES = "session.record_ep_graph_assignment_info"  # means nothing to onnxruntime before 1.24
_SIGNATURE = re.compile(r"^/\S+\.cc:\d+ [^()]*\([^()]*\) ")  # of the function in C++ that raised an error
_ENTRIES = ("session.disable_cpu_ep_fallback", _RECORD_NODES)


class SessionPool:
    """The sessions of one model's graphs. Safe to share between threads; copies open sessions of their own.

    Args:
        providers: Execution providers in order of preference.
        provider_options: One mapping for each provider.
        session_options: Passed on to every session. Sessions that are told the sizes of a rung, and copies in other
            processes, keep all of it but config entries, of which onnxruntime has no list; only
            ``session.disable_cpu_ep_fallback`` stays.
        max_open: How many sessions are kept, for devices that hold few; None for no limit. Before one more is opened,
            the one that was not used for longest is closed, or as soon as no thread runs it any more.
        cached: Whether sessions on the CPU, without options of the user's, read their weights from a cache on disk,
            which rungs and processes share in memory; see `session_cache`. For graphs that stay where they are.

    Raises:
        InvalidArgumentError: onnxruntime was built without one of the providers, there are not as many options as
            providers, or `max_open` is less than 1.
    """

    def __init__(
        self,
        providers: Sequence[str] = (CPU,),
        provider_options: Sequence[Mapping[str, Any]] | None = None,
        session_options: ort.SessionOptions | None = None,
        *,
        max_open: int | None = None,
        cached: bool = False,
    ) -> None:
        self.providers = _checked(providers)
        self.provider_options = [dict(options) for options in provider_options or [{}] * len(self.providers)]
        self.session_options = session_options
        self.max_open = max_open
        self.cached = cached
        if len(self.provider_options) != len(self.providers):
            raise InvalidArgumentError(
                f"provider_options has {len(self.provider_options)} mappings for {len(self.providers)} providers "
                f"({', '.join(self.providers)}): give one for each, in the same order."
            )
        if max_open is not None and max_open < 1:
            raise InvalidArgumentError(f"max_open={max_open} leaves no session to run: give 1 or more, or None.")
        self._start()

    def _start(self) -> None:
        self._open: dict[tuple[Path, Pins], ort.InferenceSession] = {}  # those used last are at the end
        self._lock = threading.Lock()
        self._has_warned = False

    def __getstate__(self) -> dict[str, Any]:
        options = None if self.session_options is None else _settings_of(self.session_options)
        return {
            "providers": self.providers,
            "provider_options": self.provider_options,
            "session_options": options,
            "max_open": self.max_open,
            "cached": self.cached,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.session_options is not None:
            self.session_options = options_with(self.session_options)
        self._start()

    def on(self, provider: str, options: Mapping[str, Any]) -> SessionPool:
        """Returns a pool on another provider, with the same settings otherwise, and nothing open.

        Raises:
            InvalidArgumentError: onnxruntime was built without it.
        """
        return SessionPool([provider], [options], self.session_options, max_open=self.max_open, cached=self.cached)

    def add(self, path: Path, session: ort.InferenceSession) -> None:
        """Takes in a session of the graph at `path` that is open already."""
        self._open[path, ()] = session

    def get(self, path: Path, rung: ShapeContract) -> ort.InferenceSession:
        """Returns the session that runs `rung` of the graph at `path`, opened when it is first asked for.

        On the CPU a dynamic graph has one session for all its rungs; other providers get one with each rung's sizes.

        Raises:
            GraphNotFoundError: The graph, or a file that holds its weights, is missing.
            InvalidModelError: onnxruntime refuses the graph, or the provider its options.
        """
        key = path, () if self.providers[0] == CPU else _pins(rung)
        if self.max_open is None and (session := self._open.get(key)) is not None:
            return session  # without the lock, so that a rung which is being opened holds up nobody else
        with self._lock:
            session = self._open.pop(key, None)
            if session is None:
                self._make_room()
                session = self._opened(*key, reads_texts="input_ids" in rung.input_names)
            self._open[key] = session
        return session

    def _make_room(self) -> None:
        while self.max_open is not None and len(self._open) >= self.max_open:
            del self._open[next(iter(self._open))]  # threads that run it hold it until they are done

    def _opened(self, path: Path, pins: Pins, *, reads_texts: bool) -> ort.InferenceSession:
        files = [path.parent / name for name in check_files(path)]
        size = sum(file.stat().st_size for file in (path, *files))
        threads = threads_for(size, reads_texts=reads_texts) if self.providers == [CPU] else 0
        if self._caches and size >= _CACHED_FROM_BYTES:
            found = cached_graph(path, files, SLOW_ON_CPU, functools.partial(_save, path))
            if found is not None and (session := self._opened_from_cache(found, path, threads)) is not None:
                return session
        options = self.session_options or options_with({"intra_op_num_threads": threads})
        if pins:
            # A copy: pins stay on the options they were put on, and those of the next rung would not replace them.
            options = options_with(_settings_of(options))
            for symbol, size in pins:
                options.add_free_dimension_override_by_name(symbol, size)
        if self.providers[0] == CPU:
            return self._session(path, options)
        if not _entries_of(options).get(_RECORD_NODES):
            options.add_session_config_entry(_RECORD_NODES, "1")
        session = self._session(path, options)
        self.warn_of_fallback(path, session)
        return session

    def warn_of_fallback(self, path: Path, session: ort.InferenceSession) -> None:
        """Warns, once, where all of a graph runs on providers that nobody asked for."""
        used = list(nodes_by_provider(session)) or session.get_providers()
        if self._has_warned or not set(used).isdisjoint(self.providers):
            return
        self._has_warned = True
        warn(
            f"{', '.join(self.providers)} with the options {self.provider_options[0]} runs nothing of {path.name}: "
            f"onnxruntime gave it to {', '.join(used)}. What it wrote to stderr may say why. If that is in order, name "
            "that provider in providers=, too."
        )

    @property
    def _caches(self) -> bool:
        return self.cached and self.session_options is None and self.providers == [CPU]

    def _opened_from_cache(self, found: Path, path: Path, threads: int) -> ort.InferenceSession | None:
        import onnxruntime as ort

        as_it_is = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options = options_with({"graph_optimization_level": as_it_is, "intra_op_num_threads": threads})
        try:
            session = self._session(found, options)
        except InvalidModelError as error:  # another process has removed it just now
            logger.debug("%s is opened without the cache: %s", path, error)
            return None
        session._model_path = str(path)  # by which a bare session is known
        return session

    def _session(self, path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
        import onnxruntime as ort

        try:
            return ort.InferenceSession(
                str(path),
                sess_options=options,
                providers=self.providers,
                provider_options=self.provider_options,
                disabled_optimizers=SLOW_ON_CPU if self.providers[0] == CPU else None,
                enable_fallback=0,  # which prints to stdout, and hides options that the provider does not have
            )
        except Exception as error:  # onnxruntime's errors share no public base class
            said = _SIGNATURE.sub("", str(error))
            raise InvalidModelError(f"onnxruntime cannot open {path}: {said}", path=str(path)) from error


def _save(path: Path, saved: Path, weights_name: str) -> None:
    """Writes the graph at `path` as onnxruntime runs it on the CPU, with weights as its kernels want them."""
    import onnxruntime as ort

    options = options_with({"optimized_model_filepath": str(saved), "log_severity_level": _ERRORS})
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", weights_name)
    ort.InferenceSession(str(path), options, providers=[CPU], disabled_optimizers=SLOW_ON_CPU)


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
        raise InvalidArgumentError(
            f"This onnxruntime has no {', '.join(map(str, unknown))}. It has: {', '.join(available)}."
        )
    return list(providers)


def _spec(node: Any) -> TensorSpec:
    dtype = node.type.removeprefix("tensor(").removesuffix(")")
    sizes = [size if isinstance(size, int) and size > 0 else None for size in node.shape]
    symbols = [size if isinstance(size, str) else None for size in node.shape]
    return TensorSpec(node.name, _NUMPY_TYPES.get(dtype, dtype), tuple(map(Axis, sizes, symbols)))


def _pins(rung: ShapeContract) -> Pins:
    axes = (axis for spec in rung.inputs for axis in spec.axes or ())
    return tuple(sorted({(axis.symbol, axis.size) for axis in axes if axis.symbol and axis.size}))


def nodes_by_provider(session: ort.InferenceSession) -> dict[str, list[str]]:
    """Returns the types of the nodes that each provider runs, of a session that a pool opened on another than the CPU.

    Empty with onnxruntime before 1.24, which does not tell.
    """
    nodes: dict[str, list[str]] = defaultdict(list)
    for part in getattr(session, "get_provider_graph_assignment_info", tuple)():
        nodes[part.ep_name] += [node.op_type for node in part.get_nodes()]
    return dict(nodes)


def _settings_of(options: ort.SessionOptions) -> dict[str, Any]:
    names = (name for name in dir(options) if not name.startswith("_"))
    attributes = {name: value for name in names if not callable(value := getattr(options, name))}
    return {**attributes, **_entries_of(options)}


def _entries_of(options: ort.SessionOptions) -> dict[str, str]:
    entries = {}
    for name in _ENTRIES:
        with suppress(RuntimeError):  # it is not set
            entries[name] = options.get_session_config_entry(name)
    return entries


def options_with(settings: Mapping[str, Any]) -> ort.SessionOptions:
    """Returns options with these attributes and entries, and otherwise those of all sessions here."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    # Every rung has threads of its own; idle ones that spin would take the cores from the rung that runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name, value in settings.items():
        if name in _ENTRIES:
            options.add_session_config_entry(name, value)
        else:
            setattr(options, name, value)
    return options
