"""A Hub repo: which files it has, its files on this machine, and the headers of those that stay there."""

from __future__ import annotations

import glob
import logging
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO, cast

from ._compat import outage_errors, repo_errors
from .contract import ShapeContract
from .errors import GraphNotFoundError
from .graph.reader import read_contract

logger = logging.getLogger(__name__)

# A header is read from front to back, with a jump over each weight that is kept inside. BERT-base, 436 MB: 76 requests
# for 5.5 MB. Nothing ahead would be 125 requests for 1 MB; fsspec's own 5 MiB ahead, 38 for 194 MB.
_BLOCK_BYTES = 64 * 1024
_PAUSE = 1.0  # seconds, before the Hub is asked again


@dataclass(frozen=True)
class HubOptions:
    """How the Hub is asked; the names are transformers' own.

    Attributes:
        revision: Branch, tag or commit.
        token: For private repos; None takes the saved login.
        cache_dir: Where downloads are kept; None takes the Hub's default.
        local_files_only: Never ask the Hub, only its cache.
        force_download: Download again what is in the cache.
        subfolder: Folder of the repo that holds the graphs.
        variant: Which graphs, of a repo that keeps several kinds: ``"quantized"`` takes ``model_quantized.onnx``, or
            ``decoder_model_quantized.onnx`` and all other parts with that ending.
    """

    revision: str | None = None
    token: bool | str | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    force_download: bool = False
    subfolder: str = ""
    variant: str | None = None

    def for_transformers(self) -> dict[str, Any]:
        """The options under the names that transformers' `from_pretrained` takes."""
        names = ("revision", "token", "cache_dir", "local_files_only", "force_download")
        return {name: value for name in names if (value := getattr(self, name)) not in (None, False)}


def hub_among(options: Mapping[str, Any]) -> HubOptions:
    """Returns the arguments of a `from_pretrained` that say how to reach the Hub, and which graphs of a repo."""
    given = {field.name: options.get(field.name) for field in fields(HubOptions)}
    return HubOptions(**{name: value for name, value in given.items() if value is not None})


def is_repo_id(name: str) -> bool:
    """Whether a text has the form of a Hub repo id, such as ``org/name``."""
    return re.fullmatch(r"[\w-][\w.-]{0,95}(/[\w-][\w.-]{0,95})?", name, re.ASCII) is not None


def license_of(repo_id: str, *, token: bool | str | None = None) -> dict[str, Any]:
    """Returns the fields of a repo's card that are about its license; none where there is no card to be had."""
    from huggingface_hub import ModelCard

    try:
        card = ModelCard.load(repo_id, token=token, ignore_metadata_errors=True).data.to_dict()
    except Exception as error:  # of the Hub, of YAML, ...: nothing to fail for
        logger.info("The card of %s cannot be read: %s", repo_id, error)
        return {}
    return {name: card[name] for name in ("license", "license_name", "license_link") if card.get(name)}


class HubRepo:
    """A repo as the Hub has it now, or as its cache has it where the Hub may not or cannot be asked.

    Attributes:
        names: The files, relative to the repo.
        note: What an error about a missing file adds: whether the Hub was asked at all.

    Raises:
        GraphNotFoundError: The Hub knows no such repo, or nobody can ask it and the cache has none of it.
    """

    def __init__(self, repo_id: str, options: HubOptions) -> None:
        self.repo_id = repo_id
        self._options = options
        self._outage: Exception | None = None
        self.note = ""
        self.names: tuple[str, ...] = ()
        self.names = tuple(name for name in self._listed() if _stays_inside(name))

    def _listed(self) -> tuple[str, ...]:
        from huggingface_hub import HfApi, constants

        may_ask = not self._options.local_files_only and not constants.HF_HUB_OFFLINE
        for pause in (_PAUSE, 0) if may_ask else ():
            try:
                # Not list_repo_files, which tries for 23 seconds where nobody answers.
                info = HfApi(token=self._options.token).model_info(self.repo_id, revision=self._options.revision)
                return tuple(sibling.rfilename for sibling in info.siblings or ())
            except repo_errors() as error:
                raise self._unknown(error) from error
            except outage_errors() as error:
                self._outage = error
                if not _asks_for_patience(error):
                    break
                time.sleep(pause)
        reason = f"did not answer ({self._outage})" if self._outage else "was not asked"
        self.note = f" The Hub {reason}: this is what its cache on this machine holds."
        self._options = replace(self._options, local_files_only=True, force_download=False)
        folder = self.fetch([])
        return tuple(path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())

    def fetch(self, names: Iterable[str]) -> Path:
        """Downloads the files called `names` where need be, and returns the folder of the cache that holds them.

        Raises:
            GraphNotFoundError: They cannot be had.
        """
        wanted = list(names)
        try:
            return self._downloaded(wanted)
        except repo_errors() as error:
            if self._options.local_files_only or not _is_outage(error):
                raise self._unknown(self._outage or error) from error
        except outage_errors() as error:
            logger.warning("The download of %s was interrupted, and goes on: %s", self.repo_id, error)
        time.sleep(_PAUSE)
        try:
            return self._downloaded(wanted)
        except (*repo_errors(), *outage_errors()) as error:
            raise self._unknown(error) from error

    def _downloaded(self, names: list[str]) -> Path:
        from huggingface_hub import snapshot_download

        options = self._options.for_transformers()
        folder = Path(snapshot_download(self.repo_id, allow_patterns=[glob.escape(name) for name in names], **options))
        # Where the Hub does not answer, the client is content with what is in the cache.
        if missing := [name for name in names if name in self.names and not (folder / name).is_file()]:
            raise ConnectionError(f"{', '.join(missing)} did not arrive.")
        return folder

    def contract(self, name: str, roles: Mapping[str, Sequence[str | None]]) -> ShapeContract:
        """Returns the contract of the graph called `name`, of which no more than the header is downloaded.

        Raises:
            GraphNotFoundError: It cannot be had.
            InvalidModelError: It is broken.
        """
        from huggingface_hub import HfFileSystem

        if self._options.local_files_only:
            return read_contract(self.fetch([name]) / name, roles=roles)
        # An instance of its own: shared ones remember the sizes of files that have changed since.
        files = HfFileSystem(token=self._options.token, skip_instance_cache=True)
        revision = self._options.revision
        try:
            with files.open(f"{self.repo_id}/{name}", "rb", revision=revision, block_size=_BLOCK_BYTES) as stream:
                return read_contract(cast(BinaryIO, stream), roles=roles)
        except (*repo_errors(), *outage_errors()) as error:
            raise self._unknown(error) from error

    def _unknown(self, error: Exception) -> GraphNotFoundError:
        return GraphNotFoundError(
            f"{self.repo_id!r} is neither a file, nor a folder, nor a Hub repo that can be had. "
            f"The Hub's client says: {error}",
            source=self.repo_id,
        )


def _asks_for_patience(error: Exception) -> bool:
    """Whether the Hub answers, and may do so with more next time."""
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return status == 429 or status >= 500


def _is_outage(error: Exception) -> bool:
    """Whether a file is not in the cache because the Hub did not answer, as the client of the Hub tells it."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    return isinstance(error, LocalEntryNotFoundError)


def _stays_inside(name: str) -> bool:
    """Whether a name from the Hub's listing is that of a file in the repo's own folder, on every system."""
    windows = PureWindowsPath(name)
    is_safe = not (windows.drive or windows.root or ".." in windows.parts or ".." in PurePosixPath(name).parts)
    if not is_safe:
        logger.warning("The repo lists %r, which is not in its own folder: it is left alone.", name)
    return is_safe
