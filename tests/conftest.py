"""Fixtures that every test shares: originals and what was exported from them, made once for the whole run."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for the Hub; tests/hub.py speaks its protocol instead
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OPTIMUM_FIXEDSHAPE_CACHE", "0")  # tests leave nothing behind; those of the cache set a folder

import torch
from filelock import FileLock

from optimum_fixedshape import export_model
from optimum_fixedshape.models.loading import LoadingMixin
from optimum_fixedshape.pipelines.base import FixedShapePipeline, _Call
from optimum_fixedshape.pipelines.lean.path import PLAIN
from optimum_fixedshape.sessions import CPU

from . import onnx_models, tiny, zoo
from .equality import assert_same

LADDER = {"batch_size": 2, "sequence_length": [8, 16]}

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--provider", default=CPU, help="Where models run of which a test does not say it: see Makefile.")


@pytest.fixture(scope="session", autouse=True)
def provider(request: pytest.FixtureRequest) -> Iterator[str]:
    """Makes the provider that pytest is told the default of `from_pretrained`."""
    told = request.config.getoption("--provider")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LoadingMixin.from_pretrained.__func__.__kwdefaults__, "provider", told)
        yield told


class BothWays:
    """A lean path each of whose answers is compared with the plain way's."""

    def __init__(self, pipe: Any, path: Any) -> None:
        self.pipe, self.path = pipe, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self.path, name)

    def answers(self, items: Any, rows: int, preprocess: Any, postprocess: Any) -> Any:
        answers = self.path.answers(items, rows, preprocess, postprocess)
        counts = copy.deepcopy(self.pipe.model.runtime._counts)
        for item, ours in zip(items, answers, strict=True):
            if ours is not PLAIN:
                theirs = next(self.pipe._plain_answers([(0, item)], _Call(rows, preprocess, {}, postprocess)))
                assert_same(ours, theirs, tolerance=1e-5, where=f"lean answer to {item!r}")
        self.pipe.model.runtime._counts = counts
        return answers


path_of = FixedShapePipeline.path


@pytest.fixture(autouse=True)
def both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers both ways whatever a test asks a pipeline: the lean path must give what transformers' class gives."""

    def path(pipe: Any) -> Any:
        lean = path_of.fget(pipe)
        return lean and BothWays(pipe, lean)

    monkeypatch.setattr(FixedShapePipeline, "path", property(path))


Exported = Callable[..., tiny.Pair]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Exported:
    """Returns ``exported(task, architecture="bert", shapes=LADDER) -> Pair``; each is exported once for all workers."""
    root = _shared(tmp_path_factory, worker_id)

    def export(task: str, architecture: str = "bert", shapes: Mapping[str, Any] = LADDER) -> tiny.Pair:
        words = tiny.tokenizer(tiny.kind_of_tokenizer(architecture))
        return _exported_once(root, architecture, tiny.original(architecture, task), task, shapes, words)

    return export


@pytest.fixture(scope="session")
def specimen(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[[str], tiny.Pair]:
    """Returns ``specimen(name) -> Pair`` for a model of `zoo.ZOO`; each is exported once for all workers."""
    root = _shared(tmp_path_factory, worker_id)

    def export(name: str) -> tiny.Pair:
        kind = zoo.ZOO[name]
        return _exported_once(root, name, zoo.original(name), kind.task, kind.shapes, zoo.processor(name))

    return export


def _shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    base = tmp_path_factory.getbasetemp()
    return (base if worker_id == "master" else base.parent) / "exported"


def _exported_once(
    root: Path, name: str, original: Any, task: str, shapes: Mapping[str, Any], processor: Any
) -> tiny.Pair:
    key = hashlib.sha256(json.dumps([task, name, shapes]).encode()).hexdigest()[:12]
    folder = root / f"{name}-{task}-{key}"
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "fixedshape_config.json").is_file():
            export_model(original, folder, task=task, shapes=shapes, processor=processor, progress=False)
    return tiny.Pair(original, processor, folder, task)


@pytest.fixture(scope="session")
def dynamic(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> tiny.Pair:
    """Returns a BERT encoder whose graph leaves rows and tokens open, and gives every layer."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "dynamic"
    original = copy.deepcopy(tiny.original("bert", "feature-extraction"))
    original.config.output_hidden_states = True
    original.config.architectures = [type(original).__name__]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "config.json").is_file():
            outputs = ["last_hidden_state", "pooler_output", *(f"hidden_states.{i}" for i in range(3))]
            onnx_models.export_dynamic(original, folder / "model.onnx", inputs=onnx_models.ALL_INPUTS, outputs=outputs)
            tiny.tokenizer("wordpiece").save_pretrained(folder)
            original.config.save_pretrained(folder)
    return tiny.Pair(original, tiny.tokenizer("wordpiece"), folder, "feature-extraction")
