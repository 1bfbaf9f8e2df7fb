"""A Hub repo: which files it has, its files on this machine, and the headers of those that stay there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from ._compat import outage_errors, repo_errors
from .contract import ShapeContract
from .errors import GraphNotFoundError
from .graph.reader import read_contract

# A header is read from front to back, with a jump over each weight that is kept inside. BERT-base, 436 MB: 76 requests
# for 5.5 MB. Nothing ahead would be 125 requests for 1 MB; fsspec's own 5 MiB ahead, 38 for 194 MB.
_BLOCK_BYTES = 64 * 1024


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
    """

    revision: str | None = None
    token: bool | str | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    force_download: bool = False
    subfolder: str = ""

    def for_transformers(self) -> dict[str, Any]:
        """The options under the names that transformers' `from_pretrained` takes."""
        names = ("revision", "token", "cache_dir", "local_files_only", "force_download")
        return {name: value for name in names if (value := getattr(self, name)) not in (None, False)}


class HubRepo:
    """A repo as the Hub has it now, or as its cache has it where the Hub may not or cannot be asked.

    Attributes:
        names: The files, relative to the repo.

    Raises:
        GraphNotFoundError: The Hub knows no such repo, or nobody can ask it and the cache has none of it.
    """

    def __init__(self, repo_id: str, options: HubOptions) -> None:
        self.repo_id = repo_id
        self._options = options
        self._outage: Exception | None = None
        self.names = self._listed()

    def _listed(self) -> tuple[str, ...]:
        from huggingface_hub import HfApi, constants

        if not self._options.local_files_only and not constants.HF_HUB_OFFLINE:
            try:
                # Not list_repo_files, which tries for 23 seconds where nobody answers.
                info = HfApi(token=self._options.token).model_info(self.repo_id, revision=self._options.revision)
                return tuple(sibling.rfilename for sibling in info.siblings or ())
            except repo_errors() as error:
                raise self._unknown(error) from error
            except outage_errors() as error:
                self._outage = error
        self._options = replace(self._options, local_files_only=True, force_download=False)
        folder = self.fetch([])
        return tuple(path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())

    def fetch(self, names: Iterable[str]) -> Path:
        """Downloads the files called `names` where need be, and returns the folder of the cache that holds them."""
        from huggingface_hub import snapshot_download

        try:
            options = self._options.for_transformers()
            return Path(snapshot_download(self.repo_id, allow_patterns=list(names), **options))
        except repo_errors() as error:
            raise self._unknown(self._outage or error) from error

    def contract(self, name: str, roles: Mapping[str, Sequence[str | None]]) -> ShapeContract:
        """Returns the contract of the graph called `name`, of which no more than the header is downloaded."""
        from huggingface_hub import HfFileSystem

        if self._options.local_files_only:
            return read_contract(self.fetch([name]) / name, roles=roles)
        # An instance of its own: shared ones remember the sizes of files that have changed since.
        files = HfFileSystem(token=self._options.token, skip_instance_cache=True)
        revision = self._options.revision
        with files.open(f"{self.repo_id}/{name}", "rb", revision=revision, block_size=_BLOCK_BYTES) as stream:
            return read_contract(cast(BinaryIO, stream), roles=roles)

    def _unknown(self, error: Exception) -> GraphNotFoundError:
        return GraphNotFoundError(
            f"{self.repo_id!r} is neither a file, nor a folder, nor a Hub repo that can be had. "
            f"The Hub's client says: {error}",
            source=self.repo_id,
        )
