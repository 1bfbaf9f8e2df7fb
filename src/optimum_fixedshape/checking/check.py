"""`check_model`: is this graph safe to use, on the provider that it is to run on?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimum_fixedshape.choosing import LocalFolder
from optimum_fixedshape.config import Roles
from optimum_fixedshape.errors import GraphNotFoundError, InvalidModelError
from optimum_fixedshape.hub import HubOptions
from optimum_fixedshape.sessions import CPU, SessionPool

from .agreement import check_agreement
from .answers import check_determinism, check_numbers, check_outputs, check_session
from .cache import check_cache
from .dims import check_dynamic, working_probe
from .files import check_files
from .inputs import check_inputs
from .masks import check_empty_masks, check_masks
from .padding import check_left_padding, check_padding
from .report import Finding, Line, Report, Verdict, brief, conclude
from .slots import check_slots
from .subject import Subject, at_working_sizes, find_subject


@dataclass(frozen=True)
class _Check:
    """How a line is made.

    Attributes:
        name: Of the line.
        look: Yields what is to be said.
        needs: Lines that must not fail before: what one broken thing breaks is reported once.
    """

    name: str
    look: Callable[[Subject], Iterator[Finding]]
    needs: tuple[str, ...] = ()


_ANSWERS = ("session", "determinism", "numbers")
_FOLLOWS = (*_ANSWERS, "outputs", "inputs")
_CHECKS = (
    _Check("session", check_session),
    _Check("determinism", check_determinism, ("session",)),
    _Check("numbers", check_numbers, ("session", "determinism")),
    _Check("outputs", check_outputs, _ANSWERS),
    _Check("inputs", check_inputs, (*_ANSWERS, "outputs")),
    _Check("masks", check_masks, _FOLLOWS),
    _Check("dynamic", check_dynamic, _ANSWERS),
    _Check("slots", check_slots, (*_ANSWERS, "outputs", "dynamic")),
    _Check("empty masks", check_empty_masks, (*_FOLLOWS, "masks", "dynamic", "slots")),
    _Check("padding", check_padding, (*_FOLLOWS, "masks", "dynamic")),
    _Check("left padding", check_left_padding, (*_FOLLOWS, "masks", "dynamic", "padding")),
    _Check("cache", check_cache, (*_FOLLOWS, "masks", "dynamic")),
    _Check("agreement", check_agreement, _ANSWERS),
    _Check("files", check_files),
)
LINES = tuple(check.name for check in _CHECKS)
"""The names of the lines of every report, in order."""


def check_model(
    path: str | Path,
    provider: str = CPU,
    *,
    original: Any = None,
    provider_options: Mapping[str, Any] | None = None,
    roles: Roles | None = None,
    input_names: Mapping[str, str] | None = None,
    file_name: str | None = None,
    subfolder: str = "",
    revision: str | None = None,
    variant: str | None = None,
    token: bool | str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> Report:
    """Returns whether a graph is safe to use on a provider: one line for each thing that can be wrong, with evidence.

    Every rung is run on random inputs, a few dozen times. Of models whose weights are larger than 1 GB only the
    cheapest and the largest rung are, at fewer sizes.

    Args:
        path: An ``.onnx`` file, a folder or a Hub repo id.
        provider: The execution provider that the graph is to run on.
        original: The PyTorch model that the graph was made from, which is put into eval mode, or the folder or Hub repo
            that holds it.
        provider_options: Options of the provider.
        roles: What the axes of an input or output are where their names do not tell.
        input_names: The graph's names to standard ones, such as ``{"data_0": "pixel_values"}``.
        file_name: Which graph, where there are several.
        subfolder: Folder of the repo that holds the graphs.
        revision: Branch, tag or commit on the Hub.
        variant: Which graphs, of a repo that keeps several kinds, such as ``"quantized"``.
        token: For private repos.
        cache_dir: Where downloads are kept.
        local_files_only: Never ask the Hub, only its cache.
        seed: Another seed gives other random inputs.
        progress: Whether to show a progress bar.

    Raises:
        GraphNotFoundError: There is no graph, or several to choose from.
        MissingInputError: An input is of a type that no array has.
        ShapeMismatchError: A role or a name contradicts the graph.
        ValueError: onnxruntime was built without the provider.
    """
    hub = HubOptions(revision, token, cache_dir, local_files_only, subfolder=subfolder, variant=variant)
    pool = _QuietPool(provider, provider_options)
    try:
        subject = find_subject(
            path, pool=pool, original=original, roles=roles, names=input_names, file_name=file_name, hub=hub, seed=seed
        )
    except (GraphNotFoundError, InvalidModelError) as error:
        if not _is_broken(path, error):
            raise
        return _broken(str(path), provider, error)
    subject = at_working_sizes(subject, {probe: found for probe in subject.probes if (found := working_probe(probe))})
    lines: dict[str, Line] = {}
    for check in _shown(_CHECKS, progress=progress):
        lines[check.name] = _line(check, subject, lines)
    names = tuple(dict.fromkeys(probe.path.name for probe in subject.probes))
    return Report(str(path), provider, names, tuple(lines.values()))


class _QuietPool(SessionPool):
    """Sessions that say nothing: what fails is for the report to say."""

    def __init__(self, provider: str, provider_options: Mapping[str, Any] | None) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        super().__init__([provider], [provider_options] if provider_options else None, options)

    def warn_of_fallback(self, path: Path, session: Any) -> None:
        """Does nothing: there is a line for it."""


def _line(check: _Check, subject: Subject, before: Mapping[str, Line]) -> Line:
    if failed := [name for name in check.needs if before[name].verdict is Verdict.FAIL]:
        return Line(check.name, Verdict.SKIPPED, f"Not checked, because {failed[0]} fails.")
    try:
        return conclude(check.name, list(check.look(subject)))
    except Exception as error:  # onnxruntime's errors share no public base class, and a report must not end in one
        summary = "The check could not be finished: the graph refuses what it should take."
        return Line(check.name, Verdict.FAIL, summary, (f"{type(error).__name__}: {brief(error)}",))


def _shown(checks: Iterable[_Check], *, progress: bool) -> Iterator[_Check]:
    if not progress:
        yield from checks
        return
    from tqdm import tqdm

    with tqdm(list(checks), leave=False) as bar:
        for check in bar:
            bar.set_description(check.name)
            yield check


def _is_broken(path: str | Path, error: Exception) -> bool:
    """Whether a local file or folder is there, and what is in it is damaged or incomplete."""
    source = Path(path)
    if isinstance(error, InvalidModelError):
        return source.exists()
    listed = source.is_dir() and any(name.endswith("fixedshape_config.json") for name in LocalFolder(source).names)
    return source.is_file() or listed or "keeps its weights in" in str(error)


def _broken(source: str, provider: str, error: Exception) -> Report:
    """The report of graphs that cannot even be found in one piece."""
    failed = Line("files", Verdict.FAIL, "The graphs are not complete, or not valid.", (str(error),))
    skipped = "Not checked, because files fails."
    lines = [failed if name == "files" else Line(name, Verdict.SKIPPED, skipped) for name in LINES]
    return Report(source, provider, (), tuple(lines))
