"""Saving: to a folder that loads here and in stock optimum, and to the Hub."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from optimum_fixedshape.config import FixedShapeConfig, made_folder
from optimum_fixedshape.contract import ShapeContract
from optimum_fixedshape.repo import MAIN_GRAPH
from optimum_fixedshape.runtime import Runtime
from optimum_fixedshape.sessions import check_files


class SavingMixin:
    """`save_pretrained` and `push_to_hub`, with the arguments of optimum's models and of transformers'."""

    runtime: Runtime
    config: Any
    preprocessors: Sequence[Any]
    fixed_shape_config: FixedShapeConfig

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Writes the graphs, their weights, the config and what the package knows of the shapes to a folder.

        The folder loads here and in stock ``optimum.onnxruntime``, which takes the first rung, ``model.onnx``.

        Args:
            save_directory: The folder; created if need be.
            push_to_hub: Upload it as well.
            **kwargs: Arguments of `push_to_hub`.

        Raises:
            FileExistsError: `save_directory` is a file.
        """
        folder = made_folder(save_directory)
        for part in (self.config, *self.preprocessors):
            part.save_pretrained(folder)
        self.save_session(folder)
        if push_to_hub:
            kwargs.setdefault("repo_id", kwargs.pop("repository_id", None) or folder.name)
            self.push_to_hub(folder, **kwargs)

    def save_session(self, save_directory: str | Path) -> None:
        """Writes the graphs, their weights and what the package knows of the shapes to a folder.

        Args:
            save_directory: The folder; created if need be. Another model's graphs in it stay there.
        """
        folder = made_folder(save_directory)
        rungs = self.graph_files()
        names = [path.name for path in rungs]
        if MAIN_GRAPH not in names and len(self.runtime.graphs) == len(rungs):
            names[0] = MAIN_GRAPH
        for (path, rung), name in zip(rungs.items(), names, strict=True):
            check_files(path, rung)
            _copy(path, folder / name)
        for data, name in sorted(
            {(path.parent / name, name) for path, rung in rungs.items() for name in rung.external_data}
        ):
            _copy(data, folder / name)
        replace(self.fixed_shape_config, graphs=tuple(names)).save_pretrained(folder)

    _save_pretrained = save_session

    def graph_files(self) -> dict[Path, ShapeContract]:
        """Every graph's file with one of its contracts, that which stock optimum loads first."""
        return dict(zip(self.runtime.graphs, self.runtime.ladder.rungs, strict=True))

    def push_to_hub(
        self,
        save_directory: str | Path | None = None,
        repository_id: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        *,
        repo_id: str | None = None,
        **kwargs: Any,
    ) -> str:
        """Uploads the model and returns the address of the commit.

        Args:
            save_directory: The folder that was saved before; or, as in transformers, the repo id alone, and the model
                is saved on the way.
            repository_id: The repo id; the repo is created if need be.
            private: Create it as a private one.
            token: Whose account to use; None takes the saved login.
            repo_id: The same as `repository_id`, under transformers' name for it.
            **kwargs: Arguments of `HfApi.upload_folder`, such as ``commit_message=`` or ``revision=``.

        Raises:
            ValueError: There is no repo id.
        """
        from huggingface_hub import HfApi

        repo_id = repo_id or repository_id
        if repo_id is None:
            repo_id, save_directory = str(save_directory or ""), None
        if save_directory is None:
            with TemporaryDirectory() as folder:
                self.save_pretrained(folder)
                return self.push_to_hub(folder, repo_id, private, token, **kwargs)
        api = HfApi(token=token)
        repo = api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo.repo_id, folder_path=str(save_directory), **kwargs))


def _copy(source: Path, target: Path) -> None:
    if source.resolve() != target.resolve():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
