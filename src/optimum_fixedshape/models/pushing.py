"""Pushing: a saved folder goes to the Hub in one commit, with a model card that says what was checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optimum_fixedshape._compat import repo_errors
from optimum_fixedshape.card import CARD_NAME, Origin, is_replaceable, model_card
from optimum_fixedshape.config import FixedShapeConfig
from optimum_fixedshape.errors import FixedShapeError, warn
from optimum_fixedshape.hub import is_repo_id, license_of
from optimum_fixedshape.sessions import CPU
from optimum_fixedshape.tasks import Task

_OF_TORCH_ALONE = ("max_shard_size", "safe_serialization", "use_temp_dir")


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    task: Task | None,
    provider: str = CPU,
    provider_options: Mapping[str, Any] | None = None,
    private: bool | None = None,
    token: bool | str | None = None,
    revision: str | None = None,
    check: bool = True,
    tags: list[str] | None = None,
    **kwargs: Any,
) -> str:
    """Returns the address of the commit that brought a saved folder to the Hub.

    ``README.md`` is written into the folder, unless there is one that a person wrote, here or in the repo.

    Args:
        folder: The folder.
        repo_id: The repo, which is created if need be.
        task: The row of the task table.
        provider: The execution provider to check the graphs on.
        provider_options: Its options.
        private: Create the repo as a private one.
        token: Whose account to use; None takes the saved login.
        revision: The branch, which is created if need be.
        check: Whether to run `check_model` on the folder first, for the model card. One that fails is a warning.
        tags: More tags for the model card.
        **kwargs: Arguments of `HfApi.upload_folder`. Those of transformers that have no meaning for graphs are ignored.
    """
    from huggingface_hub import HfApi

    for name in _OF_TORCH_ALONE:
        kwargs.pop(name, None)
    report = _report_on(Path(folder), provider, provider_options) if check else "Not checked."
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if revision is not None and not revision.startswith("refs/"):
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    card = Path(folder) / CARD_NAME
    if not card.is_file() or is_replaceable(card.read_text(encoding="utf-8")):
        if kwargs.get("path_in_repo") in (None, "", ".") and _has_no_card(repo_id, revision, token):
            origin = _origin_of(folder, token)
            text = model_card(folder, repo_id, task=task, origin=origin, report=report, tags=tags or ())
            card.write_text(text, encoding="utf-8")
        else:
            kwargs["ignore_patterns"] = [*_patterns(kwargs.get("ignore_patterns")), CARD_NAME]
    commit: Any = api.upload_folder(repo_id=repo_id, folder_path=str(folder), revision=revision, **kwargs)
    return str(commit.commit_url)


def _report_on(folder: Path, provider: str, provider_options: Mapping[str, Any] | None = None) -> Any:
    """What `check_model` says, or why it says nothing."""
    from optimum_fixedshape.checking.check import check_model

    try:
        report = check_model(folder, provider, provider_options=provider_options)
    except FixedShapeError as error:
        warn(f"The graphs are uploaded unchecked: {error}")
        return f"The check could not run: {error}"
    if not report.ok:
        failed = ", ".join(line.name for line in report.lines if line.verdict == "fail")
        warn(
            f"The graphs are uploaded, but check_model and so their model card say that they are not safe to use: "
            f"{failed}. print(check_model({str(folder)!r})) has the evidence."
        )
    return report


def _patterns(given: list[str] | str | None) -> list[str]:
    return [given] if isinstance(given, str) else list(given or ())


def _has_no_card(repo_id: str, revision: str | None, token: bool | str | None) -> bool:
    """Whether a repo has no model card that a person wrote."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        there = hf_hub_download(repo_id, CARD_NAME, revision=revision, token=token)
    except (EntryNotFoundError, *repo_errors()):  # nothing there, or as in an empty repo no revision yet
        return True
    return is_replaceable(Path(there).read_text(encoding="utf-8"))


def _origin_of(folder: str | Path, token: bool | str | None) -> Origin:
    saved = FixedShapeConfig.from_folder(folder)
    original = saved.original if saved else None
    if not original or not is_repo_id(original):
        return Origin()
    return Origin(original, license_of(original, token=token))
