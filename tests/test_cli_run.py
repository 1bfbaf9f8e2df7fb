"""`run` and `export`: what goes in and comes out, item by item, and what becomes of errors."""

from __future__ import annotations

import io
import itertools
import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image

from optimum_fixedshape import pipeline
from optimum_fixedshape.cli.commands import NAME
from optimum_fixedshape.cli.items import Item, call_of, read_items
from optimum_fixedshape.cli.run import answers
from optimum_fixedshape.config import FixedShapeConfig
from optimum_fixedshape.errors import InvalidInputError, InvalidModelError
from optimum_fixedshape.tasks import find_task

from . import pictures, tiny, zoo
from .shell import run_here, started

LONG = " ".join(["harbour"] * 40)


@pytest.fixture(scope="module")
def folder(exported):
    return exported("text-classification").folder


def lines_of(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def write_stdin(monkeypatch):
    """Puts text on the stdin of this process."""

    def write(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    return write


# run


def test_each_line_of_a_file_has_its_answer_in_order(folder, tmp_path, capfd):
    texts = [" ".join(["harbour"] * (1 + 5 * index % 13)) for index in range(70)]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n\n", encoding="utf-8")
    done = run_here(capfd, "run", folder, tmp_path / "texts.txt")
    assert (done.code, done.err) == (0, "")
    found = lines_of(done.out)
    assert [each["input"] for each in found] == texts
    expected = pipeline(model=folder)(texts)
    assert [each["output"]["label"] for each in found] == [each["label"] for each in expected]
    np.testing.assert_allclose([e["output"]["score"] for e in found], [e["score"] for e in expected], rtol=1e-6)


def test_objects_on_stdin_are_pairs_and_arguments(folder, write_stdin, capfd):
    items = [{"text": "One.", "text_pair": "Two."}, {"text": "One.", "top_k": 3}]
    write_stdin("A text.\r\n" + "\n".join(map(json.dumps, items)) + "\n{no object")
    done = run_here(capfd, "run", folder)
    assert (done.code, done.err) == (0, "")
    found = lines_of(done.out)
    assert [each["input"] for each in found] == ["A text.", *items, "{no object"]
    assert len(found[2]["output"]) == 3
    pair = pipeline(model=folder)(items[0])
    assert found[1]["output"]["score"] == pytest.approx(pair["score"], rel=1e-6)


def test_questions_with_their_contexts_come_as_json_lines(exported, tmp_path, capfd):
    asked = [{"question": "Who counts?", "context": text} for text in tiny.SENTENCES[:3]]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, asked)))
    folder = exported("question-answering").folder
    done = run_here(capfd, "run", folder, tmp_path / "asked.jsonl", "--set", "top_k=2")
    assert (done.code, done.err) == (0, "")
    found = lines_of(done.out)
    assert [len(each["output"]) for each in found] == [2, 2, 2]
    assert all(part["answer"] in each["input"]["context"] for each in found for part in each["output"])


def test_an_item_that_fails_is_named_and_stops_the_run_behind_what_is_done(folder, tmp_path, capfd):
    (tmp_path / "texts.txt").write_text(f"First.\n\n{LONG}\nLast.\n")
    done = run_here(capfd, "run", folder, tmp_path / "texts.txt")
    assert done.code == 1
    assert [each["input"] for each in lines_of(done.out)] == ["First."]
    assert done.err.startswith(f"error: {tmp_path / 'texts.txt'}, line 3: The item has sequence_length ")
    assert len(done.err.splitlines()) == 1


def test_an_item_that_fails_may_be_skipped(folder, tmp_path, capfd):
    broken = [b'"First."', b'"' + LONG.encode() + b'"', b"{", b"\xff", b'{"question": "Who?"}', b'"Last."']
    (tmp_path / "texts.jsonl").write_bytes(b"\n".join(broken))
    done = run_here(capfd, "run", folder, tmp_path / "texts.jsonl", "--on-error", "skip")
    assert done.code == 1
    assert [each["input"] for each in lines_of(done.out)] == ["First.", "Last."]
    errors = done.err.splitlines()
    assert [error.partition("line ")[2].partition(":")[0] for error in errors] == ["2", "3", "4", "5"]
    assert "Expected JSON" in errors[1]
    assert "UTF-8" in errors[2]
    assert "holds text and text_pair; this one has 'question'" in errors[3]


def test_an_overflow_policy_is_a_setting(folder, tmp_path, capfd):
    (tmp_path / "texts.txt").write_text(LONG)
    done = run_here(capfd, "run", folder, tmp_path / "texts.txt", "--set", "overflow=truncate")
    assert (done.code, len(lines_of(done.out))) == (0, 1)


def test_lines_may_go_to_a_file(folder, tmp_path, capfd):
    (tmp_path / "texts.txt").write_text("First.\nSecond.\n")
    done = run_here(capfd, "run", folder, tmp_path / "texts.txt", "--output", tmp_path / "answers.jsonl")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert [each["input"] for each in lines_of((tmp_path / "answers.jsonl").read_text())] == ["First.", "Second."]


def test_images_are_items_and_a_text_file_lists_them(specimen, tmp_path, capfd):
    folder = specimen("vit").folder
    files = [tmp_path / f"{size}.png" for size in (40, 50)]
    for size, file in zip((40, 50), files, strict=True):
        pictures.picture(size, 30).save(file)
    (tmp_path / "list.txt").write_text(str(files[1]))
    (tmp_path / "broken.png").write_text("no image")
    inputs = [files[0], tmp_path / "list.txt", tmp_path / "broken.png"]
    done = run_here(capfd, "run", folder, *inputs, "--set", "top_k=1", "--on-error", "skip")
    assert done.code == 1
    assert [each["input"] for each in lines_of(done.out)] == list(map(str, files))
    expected = pipeline(model=folder)(list(map(str, files)), top_k=1)
    assert [each["output"][0]["label"] for each in lines_of(done.out)] == [each[0]["label"] for each in expected]
    assert "broken.png" in done.err


def test_masks_are_saved_or_described(specimen, tmp_path, capfd):
    folder, file = specimen("dpt").folder, tmp_path / "picture.png"
    pictures.picture(40, 30).save(file)
    described = lines_of(run_here(capfd, "run", folder, file).out)[0]["output"]
    assert described["depth"] == {"kind": "image", "size": [40, 30], "mode": "L"}
    assert described["predicted_depth"]["kind"] == "array"
    saved = lines_of(run_here(capfd, "run", folder, file, "--output-dir", tmp_path / "out").out)[0]["output"]
    with Image.open(saved["depth"]) as image:
        assert image.size == (40, 30)
    assert list(np.load(saved["predicted_depth"]).shape) == described["predicted_depth"]["shape"]


def test_labels_to_choose_from_are_a_setting_or_part_of_the_object(specimen, tmp_path, capfd):
    folder, file = specimen("clip").folder, tmp_path / "picture.png"
    pictures.picture(40, 30).save(file)
    (tmp_path / "items.jsonl").write_text(
        json.dumps({"image": str(file)}) + "\n" + json.dumps({"image": str(file), "candidate_labels": ["a fox"]})
    )
    labels = 'candidate_labels=["a cat", "a dog"]'
    done = run_here(capfd, "run", folder, tmp_path / "items.jsonl", "--set", labels)
    assert [{part["label"] for part in each["output"]} for each in lines_of(done.out)] == [
        {"a cat", "a dog"},
        {"a fox"},
    ]


def test_a_stream_is_read_as_it_is_answered(folder):
    read = itertools.count()
    items = (Item(f"Text {next(read)}.", "here") for _ in itertools.count())
    pipe = pipeline(model=folder)
    for _ in range(3):
        chunk = list(itertools.islice(items, 4))
        assert [item for item, _ in answers(pipe, chunk, find_task("text-classification"))] == chunk
    assert next(read) == 12


def test_lines_are_read_when_they_are_asked_for(monkeypatch):
    endless = (b"line %d\n" % number for number in itertools.count())
    monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": endless}))
    found = itertools.islice(read_items(["-"], find_task("fill-mask")), 2)
    assert [item.where for item in found] == ["stdin, line 1", "stdin, line 2"]


@pytest.mark.parametrize(
    ("task", "value", "item", "arguments"),
    [
        ("fill-mask", "a", "a", {}),
        ("fill-mask", {"text": "a", "top_k": 2}, "a", {"top_k": 2}),
        ("text-classification", {"text": "a"}, {"text": "a"}, {}),
        ("document-question-answering", {"image": "a", "question": "b"}, {"image": "a", "question": "b"}, {}),
        ("zero-shot-image-classification", {"image": "a", "candidate_labels": ["b"]}, "a", {"candidate_labels": ["b"]}),
        ("automatic-speech-recognition", {"audio": "a"}, "a", {}),
    ],
)
def test_what_an_object_means_depends_on_the_task(task, value, item, arguments):
    assert call_of(Item(value, "here"), find_task(task)) == (item, arguments)
    with pytest.raises(InvalidInputError, match="this one has 'nothing'"):
        call_of(Item({"nothing": 1}, "here"), find_task(task))


def heed_interrupts():
    """What a shell starts in the background, such as a CI job, ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupted_run_has_written_what_it_answered(folder):
    process = started(NAME, "run", folder, preexec_fn=heed_interrupts)
    for _ in range(64):
        process.stdin.write("A text.\n")
    process.stdin.flush()
    answered = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert json.loads(answered)["input"] == "A text."


# export


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    for part in (tiny.original("bert", "text-classification"), tiny.tokenizer("wordpiece")):
        part.save_pretrained(folder)
    return folder


SHAPES = ["--shape", "batch_size=2", "--shape", "sequence_length=8"]


def test_export_with_inference_saves_what_a_pipeline_does_by_default(original, tmp_path, capfd):
    settings = ["--with-inference", "--set", "top_k=2", "--set", "overflow=truncate"]
    done = run_here(capfd, "export", original, tmp_path / "out", *SHAPES, *settings, "--json")
    assert done.code == 0
    facts = json.loads(done.out)
    assert facts["task"] == "text-classification"
    assert [each["sizes"] for each in facts["graphs"]] == [{"batch_size": 2, "sequence_length": 8}]
    assert facts["graphs"][0]["difference"] < 1e-4
    assert facts["pipeline"] == {"top_k": 2, "overflow": "truncate"}
    pipe = pipeline(model=tmp_path / "out")
    assert pipe.overflow == "truncate"
    assert len(pipe([LONG])[0]) == 2
    assert len(pipe([LONG], top_k=3)[0]) == 3
    assert pipeline(model=tmp_path / "out", overflow="window").overflow == "window"
    pipe.model.save_pretrained(tmp_path / "again")
    assert FixedShapeConfig.from_folder(tmp_path / "again").pipeline == facts["pipeline"]


def test_export_without_a_tokenizer_has_no_inference(tmp_path, capfd):
    tiny.original("bert", "text-classification").save_pretrained(tmp_path / "bare")
    done = run_here(capfd, "export", tmp_path / "bare", tmp_path / "out", *SHAPES, "--with-inference")
    assert (done.code, done.out) == (3, "")
    assert "tokenizer" in done.err


def test_export_shows_each_graph_with_its_difference(tmp_path, capfd):
    zoo.original("vit").save_pretrained(tmp_path / "vit")
    zoo.processor("vit").save_pretrained(tmp_path / "vit")
    done = run_here(capfd, "export", tmp_path / "vit", tmp_path / "out", "--shape", "batch_size=2")
    assert done.code == 0
    for text in ("image-classification", "model.onnx", "batch_size 2, num_channels 3, height 32", "e-0"):
        assert text in done.out


def test_a_file_cannot_choose_what_a_pipeline_is_made_of(exported, tmp_path):
    pair = exported("text-classification")
    pipeline(model=pair.folder).save_pretrained(tmp_path)
    saved = FixedShapeConfig.from_folder(tmp_path)
    for name in ("tokenizer", "device", "model"):
        FixedShapeConfig(saved.graphs, task=saved.task, pipeline={name: "elsewhere"}).save_pretrained(tmp_path)
        with pytest.raises(InvalidModelError, match=f"sets {name} of the pipeline"):
            pipeline(model=tmp_path)
    FixedShapeConfig(saved.graphs, task="fill-mask", pipeline={"top_k": 2}).save_pretrained(tmp_path)
    assert isinstance(pipeline("text-classification", model=tmp_path), transformers.TextClassificationPipeline)
