"""`SentenceConfig`: what a repo of sentence-transformers says of embeddings, and the files in which it says so."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from .errors import InvalidArgumentError, InvalidModelError, UnsupportedTaskError
from .hub import HubOptions, HubRepo

if TYPE_CHECKING:  # importing it brings NumPy, which nobody needs who only looks for files
    from .pooling import Pooling

_MODULES, _PROMPTS, _CONFIG = "modules.json", "config_sentence_transformers.json", "config.json"
_OF_TOKENS = re.compile(r"sentence_[\w-]+_config\.json")
_OF_MODULES = re.compile(r"[1-9]\d*_\w+/config\.json")

_COMPUTED: Final = (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
"""The sequences of modules that are computed here."""

_KEYS: Final[Mapping[str, str]] = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
"""The key that switches each mode on, where the config does not list them under ``pooling_mode``."""


@dataclass(frozen=True)
class SentenceConfig:
    """How texts become vectors, as a repo states it.

    Attributes:
        modules: The names of the modules that the text goes through.
        pooling: What the second and third of them do; None where it cannot be computed here.
        max_tokens: Where sentence-transformers cuts a text; None where only the tokenizer says.
        lower_case: Whether texts are read in lower case.
        prompts: What goes before a text, by name.
        default_prompt_name: The prompt that is used where nobody asks for another.
    """

    modules: tuple[str, ...]
    pooling: Pooling | None = None
    max_tokens: int | None = None
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None

    @classmethod
    def from_folder(cls, folder: str | Path) -> SentenceConfig | None:
        """Returns what the files in `folder` say, or None where there is no ``modules.json``.

        Raises:
            InvalidModelError: A file is broken.
        """
        home = Path(folder)
        if not (home / _MODULES).is_file():
            return None
        try:
            return cls(**_facts_of(home))
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise InvalidModelError(
                f"{home / _MODULES}, or a file that it names, is not what sentence-transformers writes: {error}",
                path=str(home / _MODULES),
            ) from error

    def stated_pooling(self) -> Pooling:
        """Returns what turns features into a vector.

        Raises:
            UnsupportedTaskError: A module does something that is not computed here.
        """
        if self.pooling is not None:
            return self.pooling
        unknown = [name for name in self.modules if name not in _COMPUTED[-1]]
        raise UnsupportedTaskError(
            f"This model embeds texts with the modules {', '.join(self.modules)}, and "
            f"{', '.join(unknown) or 'this order'} is not computed here. Ways out: sentence-transformers itself; or "
            "pooling='mean' (or another) for vectors without it, which are not those of the original.",
            task="feature-extraction",
        )

    def prompt(self, name: str | None) -> str:
        """Returns the text of a prompt; that of the default one where `name` is None, and nothing where there is none.

        Raises:
            InvalidArgumentError: There is no prompt of this name.
        """
        wanted = self.default_prompt_name if name is None else name
        if wanted is None:
            return ""
        if wanted not in self.prompts:
            known = ", ".join(map(repr, self.prompts)) or "none"
            raise InvalidArgumentError(f"The model has no prompt called {wanted!r}. It has: {known}.")
        return self.prompts[wanted] or ""


def is_of_sentences(name: str) -> bool:
    """Whether a file of a model's folder says how texts become vectors, by its name, as ``1_Pooling/config.json``."""
    patterns = (_OF_TOKENS, _OF_MODULES)
    return name in (_MODULES, _PROMPTS) or any(pattern.fullmatch(name) for pattern in patterns)


def copy_sentence_config(source: str | Path, folder: Path, hub: HubOptions | None = None) -> None:
    """Copies the files that say how texts become vectors, where there are any.

    Args:
        source: A folder or a Hub repo id.
        folder: Where they go, under the same names.
        hub: How the Hub is asked.

    Raises:
        GraphNotFoundError: The Hub does not have what it lists, or cannot be asked.
        InvalidModelError: A file is a link that leads out of its folder.
    """
    hub = hub or HubOptions()
    inside = PurePosixPath(hub.subfolder)
    home = Path(source)
    if not home.is_dir():
        repo = HubRepo(str(source), hub)
        listed = [name for name in repo.names if PurePosixPath(name).is_relative_to(inside)]
        home = repo.fetch(name for name in listed if is_of_sentences(str(PurePosixPath(name).relative_to(inside))))
    home /= inside
    if not (home / _MODULES).is_file() or home.resolve() == folder.resolve():
        return
    for path in (*home.glob("*.json"), *home.glob("*/config.json")):
        name = path.relative_to(home).as_posix()
        if is_of_sentences(name):
            _check_place(path, home)
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, folder / name)


def _check_place(path: Path, home: Path) -> None:
    real = home.resolve()
    blobs = [parent.parent / "blobs" for parent in real.parents if parent.name == "snapshots"]  # the Hub's cache
    if not any(path.resolve().is_relative_to(place) for place in (real, *blobs)):
        raise InvalidModelError(
            f"{path} is a link to somewhere else. If you trust it, put the file itself there.", path=str(path)
        )


def _facts_of(home: Path) -> dict[str, Any]:
    modules = json.loads((home / _MODULES).read_text(encoding="utf-8"))
    kinds = [_kind_of(module["type"]) for module in modules]
    of_tokens = next((path for path in sorted(home.glob("sentence_*.json")) if _OF_TOKENS.fullmatch(path.name)), None)
    tokens, prompts = _read(of_tokens), _read(home / _PROMPTS)
    return {
        "modules": tuple(kinds),
        "pooling": _pooling_of(_read(_inside(home, modules[1]["path"])), kinds) if kinds in _COMPUTED else None,
        "max_tokens": tokens.get("max_seq_length"),
        "lower_case": bool(tokens.get("do_lower_case")),
        "prompts": dict(prompts.get("prompts") or {}),
        "default_prompt_name": prompts.get("default_prompt_name"),
    }


def _kind_of(class_name: str) -> str:
    """The name of a module of sentence-transformers, and the whole name of anybody else's."""
    package, _, name = class_name.rpartition(".")
    return name if package.partition(".")[0] == "sentence_transformers" else class_name


def _inside(home: Path, name: str) -> Path:
    if not _OF_MODULES.fullmatch(f"{name}/{_CONFIG}"):
        raise ValueError(f"{name!r} is no folder of a module")
    if not (home / name / _CONFIG).is_file():
        raise ValueError(f"{name}/{_CONFIG} is missing")
    return home / name / _CONFIG


def _pooling_of(facts: Mapping[str, Any], kinds: list[str]) -> Pooling:
    from .pooling import MODES, Pooling

    listed = facts.get("pooling_mode") or [mode for mode in MODES if facts.get(_KEYS[mode])]
    modes = (listed,) if isinstance(listed, str) else tuple(listed)
    return Pooling(modes or ("mean",), "Normalize" in kinds, facts.get("include_prompt", True))


def _read(path: Path | None) -> Mapping[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path and path.is_file() else {}
