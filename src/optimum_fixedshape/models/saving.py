"""Saving: to a folder that loads here and in stock optimum, and to the Hub."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from optimum_fixedshape.choosing import MAIN_GRAPH
from optimum_fixedshape.config import FixedShapeConfig, made_folder
from optimum_fixedshape.contract import ShapeContract
from optimum_fixedshape.runtime import Runtime
from optimum_fixedshape.sentence_config import copy_sentence_config
from optimum_fixedshape.sessions import check_files
from optimum_fixedshape.tasks import Task, tasks_called

from .pushing import push_folder
from .remote_code import write_remote_code


class SavingMixin:
    """`save_pretrained` and `push_to_hub`, with the arguments of optimum's models and of transformers'."""

    task: ClassVar[Task | None]
    runtime: Runtime
    config: Any
    preprocessors: Sequence[Any]
    fixed_shape_config: FixedShapeConfig

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Writes graphs, weights, config, what a text's vector is made with, and what is known of shapes to a folder.

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
        this: Any = self
        copy_sentence_config(this.home, folder)
        if row := self._row():
            write_remote_code(folder, row)
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
        weights = sorted({(path.parent / name, name) for path in rungs for name in check_files(path)})
        for source, name in (*zip(rungs, names, strict=True), *weights):
            _copy(source, folder / name)
        replace(self.fixed_shape_config, graphs=tuple(names)).save_pretrained(folder)

    _save_pretrained = save_session

    def _row(self) -> Task | None:
        """The row of the task that was saved with the graphs, where this class serves it, else the class's own."""
        if self.task is None:
            return None
        rows = tasks_called(self.fixed_shape_config.task)
        return next((row for row in rows if row.model == self.task.model), self.task)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoModel") -> None:
        """Does nothing: transformers says by it that a repo's code named the class, which saving says anyway."""

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
        check: bool = True,
        **kwargs: Any,
    ) -> str:
        """Uploads the model in one commit, with a model card, and returns the address of the commit.

        The model card states shapes, numbers, what `check_model` says of the graphs, and how to use them. One that a
        person wrote, in the folder or the repo, stays as it is.

        Args:
            save_directory: The folder that was saved before; or, as in transformers, the repo id alone, and the model
                is saved on the way.
            repository_id: The repo id; the repo is created if need be.
            private: Create it as a private one.
            token: Whose account to use; None takes the saved login.
            repo_id: The same as `repository_id`, under transformers' name for it.
            check: Whether to run `check_model` first, on the provider that the model was loaded for. Graphs that fail
                are uploaded, and a warning and the model card say so.
            **kwargs: Arguments of transformers' `push_to_hub` and of `HfApi.upload_folder`, such as ``create_pr=``,
                ``commit_message=``, ``tags=`` or ``revision=`` (a branch, which is created if need be).

        Raises:
            ValueError: There is no repo id.
        """
        repo_id = repo_id or repository_id
        if repo_id is None:
            repo_id, save_directory = str(save_directory or ""), None
        if save_directory is None:
            with TemporaryDirectory() as folder:
                self.save_pretrained(folder)
                return self.push_to_hub(folder, repo_id, private, token, check=check, **kwargs)
        pool = self.runtime.pool
        where: dict[str, Any] = {"provider": pool.providers[0], "provider_options": pool.provider_options[0]}
        known: dict[str, Any] = {"private": private, "token": token, "check": check, **where}
        return push_folder(save_directory, repo_id, task=self._row(), **known, **kwargs)


def _copy(source: Path, target: Path) -> None:
    if source.resolve() != target.resolve():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
