"""`datasets.map`: in processes of its own, and computed once, since the hash of a pipeline is that of what it is."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys

import datasets
import pytest
from datasets.fingerprint import Hasher

from optimum_fixedshape import pipeline

from . import pictures, tiny
from .equality import assert_same

HASH = """
import sys
from datasets.fingerprint import Hasher
from optimum_fixedshape import pipeline

print(Hasher.hash(pipeline("text-classification", model=sys.argv[1])))
"""


@pytest.fixture
def table(tmp_path):
    """Forty texts on disk, so that `datasets` keeps what is computed of them."""
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(f"{text[:14]} {n}" for n in range(7) for text in tiny.SENTENCES[:6]), encoding="utf-8")
    datasets.disable_progress_bars()
    return datasets.Dataset.from_text(str(file), cache_dir=str(tmp_path / "tables"))


def labelled(table, pipe, processes=None):
    def classify(batch):
        answers = pipe(batch["text"])
        return {"label": [answer["label"] for answer in answers], "process": [os.getpid()] * len(answers)}

    return table.map(classify, batched=True, batch_size=4, num_proc=processes)


def test_processes_answer_as_one_does_and_a_second_time_nothing_is_computed(exported, table):
    pipe = pipeline("text-classification", model=exported("text-classification").folder)
    found = labelled(table, pipe, processes=2)
    assert list(found["label"]) == [answer["label"] for answer in pipe(list(table["text"]))]
    assert len(set(found["process"])) == 2
    assert os.getpid() not in found["process"]
    again = labelled(table, pipe, processes=2)
    assert again.cache_files == found.cache_files
    assert list(again["process"]) == list(found["process"])


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "image-classification"])
def test_use_leaves_no_trace_in_the_hash(exported, specimen, task):
    item = pictures.picture() if task.startswith("image") else "Go"
    folder = (specimen("vit") if task.startswith("image") else exported(task)).folder
    pipe = pipeline(task, model=folder)
    fresh = Hasher.hash(pipe)
    answer = pipe([item, item])
    with pipe.stream() as batcher:
        batcher(item)
    pipe.lean = False
    pipe(item)
    del pipe.lean
    copied = pickle.loads(pickle.dumps(pipe))
    assert_same(copied([item, item]), answer, tolerance=1e-6)
    assert {Hasher.hash(pipe), Hasher.hash(copied)} == {fresh}
    pipe.max_delay_items = 3
    assert Hasher.hash(pipe) != fresh


def test_other_processes_hash_alike(exported):
    folder = exported("text-classification").folder
    command = [sys.executable, "-c", HASH, folder]
    settings = {**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=settings).stdout.split()
    assert told == [Hasher.hash(pipeline("text-classification", model=folder))]


@pytest.mark.parametrize("file", ["model.onnx", "model.onnx_data"])
def test_another_graph_at_the_same_path_is_another_hash(exported, tmp_path, file):
    folder = shutil.copytree(exported("text-classification").folder, tmp_path / "graphs")
    before = Hasher.hash(pipeline("text-classification", model=folder))
    assert Hasher.hash(pipeline("text-classification", model=folder)) == before
    told = (folder / file).stat()
    os.utime(folder / file, ns=(told.st_atime_ns, told.st_mtime_ns + 10**9))  # as when it is exported again
    assert Hasher.hash(pipeline("text-classification", model=folder)) != before
