"""The page of troubleshooting has every message of the package, and quotes those of others as they are really said."""

from __future__ import annotations

import importlib
import json
import logging
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import PIL.Image
import pytest
import torch
import transformers
from onnx import TensorProto, helper

from optimum_fixedshape import (
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoTokenizer,
    Batcher,
    ORTModelForImageClassification,
    ORTModelForSequenceClassification,
    errors,
    export_model,
    pin_shapes,
    pipeline,
    read_contract,
    suggest_ladder,
    write_config,
)
from optimum_fixedshape._compat import has_optimum_onnx
from optimum_fixedshape.errors import FixedShapeError

from . import tiny
from .messages import all_messages, plain

PAGE = (Path(__file__).parents[1] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
TEXT = plain(PAGE)
QUOTED = [plain(text) for _, text in re.findall(r"(?<!`)(`{1,2})(?!`)(.+?)(?<!`)\1(?!`)", PAGE, re.S) if " " in text]
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n"

on_5, on_4 = (pytest.mark.skipif(has_optimum_onnx() is is_4, reason="the other stack") for is_4 in (True, False))


def is_quoted(message: object) -> bool:
    """Whether the page quotes a message in code, with `…` for what is filled in."""
    said = plain(str(message))
    return any(re.search(".*".join(map(re.escape, quote.split("…"))), said) for quote in QUOTED)


def test_every_message_is_on_the_page():
    messages = list(all_messages())
    missing = [f"{each.place} says {stem!r}" for each in messages for stem in each.stems if stem not in TEXT]
    assert len(messages) > 200
    assert not missing, "docs/troubleshooting.md has no entry for:\n" + "\n".join(missing)


def test_every_class_is_on_the_page():
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, (errors.FixedShapeError, errors.FixedShapeWarning)):
            assert f" {name}" in TEXT, name


def test_what_nobody_says_is_not_quoted():
    assert not is_quoted("The moon is full, and nothing can be exported.")


# of this package


@pytest.fixture
def bert(exported):
    return exported("text-classification").folder


def copy_of(graph: Path, folder: Path) -> Path:
    folder.mkdir()
    return Path(shutil.copy(graph, folder / "model.onnx"))


def two_graphs(bert: Path, folder: Path) -> Path:
    for name in ("one.onnx", "two.onnx"):
        (folder / name).write_bytes((bert / "model.onnx").read_bytes())
    return folder


def load(where: object, **options: object) -> object:
    return ORTModelForSequenceClassification.from_pretrained(where, **options)


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


WRONG_PLACES = {
    "no folder": lambda bert, to: load(None),
    "empty text": lambda bert, to: load(""),
    "number": lambda bert, to: read_contract(3),
    "no output": lambda bert, to: pin_shapes(bert, None, {}),
    "empty output": lambda bert, to: export_model(tiny.original("bert", "fill-mask"), ""),
    "no model": lambda bert, to: export_model(None, to / "out"),
    "no graph": lambda bert, to: load(to),
    "several graphs": lambda bert, to: load(two_graphs(bert, to)),
    "no such graph": lambda bert, to: load(bert, file_name="other.onnx"),
    "no repo": lambda bert, to: load("my-org/nothing"),
    "a folder": lambda bert, to: read_contract(bert),
    "not for from_model": lambda bert, to: AutoTokenizer.from_model(None),
    "git lfs": lambda bert, to: read_contract(written(to / "model.onnx", LFS)),
    "cut short": lambda bert, to: read_contract(written(to / "m.onnx", (bert / "model.onnx").read_bytes()[:2000])),
    "no weights": lambda bert, to: load(copy_of(bert / "model.onnx", to / "alone")),
    "bad config": lambda bert, to: load(written(to / "fixedshape_config.json", '{"graphs": 3}').parent),
}
WRONG_ARGUMENTS = {
    "shapes": lambda bert, to: load(bert, shapes=3),
    "size": lambda bert, to: load(bert, shapes={"batch_size": 0}),
    "baked": lambda bert, to: load(bert, shapes={"sequence_length": 12}),
    "no axis": lambda bert, to: load(bert, shapes={"height": 12}),
    "roles": lambda bert, to: load(bert, roles={"nothing": [None]}),
    "names": lambda bert, to: load(bert, input_names={"nothing": "input_ids"}),
    "provider": lambda bert, to: load(bert, provider="NoProvider"),
    "no provider": lambda bert, to: load(bert, provider=None)(input_ids=[[101, 102]]),
    "max_open": lambda bert, to: load(bert, max_open=0),
    "overflow": lambda bert, to: AutoTokenizer.from_model(bert, overflow="cut"),
    "device": lambda bert, to: load(bert).to("nowhere"),
    "labels": lambda bert, to: write_config(bert / "model.onnx", output=to / "out", labels=["a"]),
    "own folder": lambda bert, to: pin_shapes(bert, bert, {"batch_size": 2}),
    "dtype": lambda bert, to: export_model(tiny.original("bert", "fill-mask"), to / "out", dtype="fp8"),
    "no lengths": lambda bert, to: suggest_ladder([]),
}
WRONG_INPUTS = {
    "task": lambda bert, to: pipeline("text-clasification", model=bert),
    "task of another type": lambda bert, to: pipeline(3, model=bert),
    "model": lambda bert, to: pipeline("fill-mask", model=3),
    "PyTorch": lambda bert, to: pipeline("fill-mask", model=tiny.original("bert", "fill-mask")),
    "another task": lambda bert, to: pipeline("fill-mask", model=load(bert)),
    "another input": lambda bert, to: pipeline("image-classification", model=bert),
    "no sounds": lambda bert, to: AutoFeatureExtractor.from_model(bert),
    "no images": lambda bert, to: AutoImageProcessor.from_model(bert),
    "too long": lambda bert, to: pipeline(model=bert)(["word " * 30]),
    "array too long": lambda bert, to: load(bert)(input_ids=np.ones((1, 30), np.int64)),
    "another name": lambda bert, to: load(bert)(words=[[101, 102]]),
    "floats": lambda bert, to: load(bert)(input_ids=[[0.5]]),
    "no rows": lambda bert, to: load(bert)(input_ids=[[1, 2]], attention_mask=[[1]]),
    "closed": lambda bert, to: closed_batcher()("item"),
}


def closed_batcher() -> Batcher:
    with Batcher(lambda items: items, batch_size=2) as batcher:
        return batcher


CASES = {**WRONG_PLACES, **WRONG_ARGUMENTS, **WRONG_INPUTS}


@pytest.mark.parametrize("what", CASES)
def test_our_own_errors_are_quoted(what, bert, tmp_path):
    with pytest.raises(FixedShapeError) as caught:
        CASES[what](bert, tmp_path)
    assert is_quoted(caught.value), caught.value


def test_our_own_errors_of_python_are_quoted(bert):
    for call in (lambda: load(bert, shape=3), lambda: load(bert)(*[[[1]]] * 9), lambda: errors.nothing):
        with pytest.raises((TypeError, AttributeError)) as caught:
            call()
        assert is_quoted(str(caught.value).replace("optimum_fixedshape.errors", "optimum_fixedshape")), caught.value


def test_an_image_without_pixels_is_quoted(specimen):
    with pytest.raises(errors.InvalidInputError) as caught:
        pipeline(model=specimen("vit").folder)(PIL.Image.new("RGB", (0, 7)))
    assert is_quoted(caught.value)


# of onnxruntime


@pytest.fixture(scope="module")
def session(exported):
    return ort.InferenceSession(exported("text-classification").folder / "model.onnx")


FEED = {name: np.ones((2, 16), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
FEEDS = {
    "sizes": {name: np.ones((1, 7), np.int64) for name in FEED},
    "rank": FEED | {"input_ids": np.ones(16, np.int64)},
    "type": FEED | {"input_ids": np.ones((2, 16), np.int32)},
    "too few": {"input_ids": FEED["input_ids"]},
    "too many": FEED | {"position_ids": FEED["input_ids"]},
    "torch": FEED | {"input_ids": torch.ones(2, 16, dtype=torch.int64)},
    "no such token": FEED | {"input_ids": 10**6 * FEED["input_ids"]},
}


@pytest.mark.parametrize("what", FEEDS)
def test_what_a_session_says_of_a_feed(what, session):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - onnxruntime's errors share no base class
        session.run(None, FEEDS[what])
    assert is_quoted(caught.value), caught.value


def bound(session: ort.InferenceSession, feed: dict[str, np.ndarray]) -> None:
    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_cpu_input(name, array)
    binding.bind_output("logits")
    session.run_with_iobinding(binding)


def test_what_a_session_says_of_bound_inputs_of_names_and_of_copies(session):
    for call in (
        lambda: bound(session, {"input_ids": FEED["input_ids"]}),
        lambda: bound(session, FEED | {"position_ids": FEED["input_ids"]}),
        lambda: session.run(["nothing"], FEED),
        lambda: pickle.dumps(session),
    ):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            call()
        assert is_quoted(caught.value), caught.value


def relu(op: str = "Relu", domain: str = "", opset: int = 17, ir_version: int = 8) -> bytes:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], domain=domain)], "g", tensors[:1], tensors[1:])
    versions = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=versions, ir_version=ir_version)
    return model.SerializeToString()


def with_weights(bert: Path, folder: Path, size: int | None, *, link: bool = False) -> Path:
    path = copy_of(bert / "model.onnx", folder)
    if link:
        (folder / "model.onnx_data").symlink_to(bert / "model.onnx_data")
    elif size is not None:
        (folder / "model.onnx_data").write_bytes((bert / "model.onnx_data").read_bytes()[:size])
    return path


FILES = {
    "no model": lambda bert, to: written(to / "m.onnx", b"this is no model" * 9),
    "git lfs": lambda bert, to: written(to / "m.onnx", LFS),
    "empty": lambda bert, to: written(to / "m.onnx", b""),
    "nowhere": lambda bert, to: to / "nowhere.onnx",
    "weights missing": lambda bert, to: with_weights(bert, to / "f", None),
    "weights cut": lambda bert, to: with_weights(bert, to / "f", 1000),
    "weights linked": lambda bert, to: with_weights(bert, to / "f", None, link=True),
    "weights of bytes": lambda bert, to: (bert / "model.onnx").read_bytes(),
    "version": lambda bert, to: relu(ir_version=99),
    "opset": lambda bert, to: relu(opset=99),
    "operator": lambda bert, to: relu("Nothing"),
    "operator of others": lambda bert, to: relu("Nothing", domain="my.ops"),
}


@pytest.mark.parametrize("what", FILES)
def test_what_a_session_says_of_a_file(what, bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where weights of a graph that is opened from bytes are looked for
    with pytest.raises(Exception) as caught:  # noqa: PT011
        ort.InferenceSession(FILES[what](bert, tmp_path))
    assert is_quoted(caught.value), caught.value


def test_what_a_session_says_of_a_provider():
    with pytest.warns(UserWarning, match="Specified provider") as caught:
        ort.InferenceSession(relu(), providers=["CUDAExecutionProvider"])
    assert is_quoted(caught[0].message)


# of transformers, tokenizers and optimum


@pytest.fixture
def logged(caplog, monkeypatch):
    """What libraries log, once: transformers passes its own on only where the variable CI is set."""
    for name in ("transformers", "optimum"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    return caplog


def without_pad(texts: list[str]) -> object:
    words = transformers.AutoTokenizer.from_pretrained(tiny.MINILM)
    words.pad_token = None
    return words(texts, padding=True)


def folder_with(folder: Path, config: str | None) -> Path:
    if config is not None:
        (folder / "config.json").write_text(config)
    return folder


MODEL = transformers.AutoModelForSequenceClassification
STOCK = {
    "unequal rows": lambda bert, to: tiny.tokenizer("wordpiece")(["a", "a b c"], return_tensors="pt"),
    "no pad token": lambda bert, to: without_pad(["a", "a b"]),
    "no tokenizer": lambda bert, to: transformers.AutoTokenizer.from_pretrained(to),
    "no config": lambda bert, to: transformers.AutoConfig.from_pretrained(to),
    "no type": lambda bert, to: transformers.AutoConfig.from_pretrained(folder_with(to, "{}")),
    "new type": lambda bert, to: transformers.AutoConfig.from_pretrained(folder_with(to, '{"model_type": "new"}')),
    "no weights": lambda bert, to: MODEL.from_pretrained(bert),
    "no Hub": lambda bert, to: transformers.AutoConfig.from_pretrained("my-org/nothing"),
    "no folder": lambda bert, to: transformers.AutoConfig.from_pretrained("/nowhere/at/all"),
    "no words": lambda bert, to: transformers.pipeline("text-classification", model=load(bert)),
    "no clips": lambda bert, to: transformers.AutoVideoProcessor.from_pretrained(bert),
}


@pytest.mark.parametrize("what", STOCK)
def test_what_transformers_says(what, bert, tmp_path):
    if what == "no clips" and importlib.util.find_spec("torchvision"):
        pytest.skip("there is torchvision")
    with pytest.raises(Exception) as caught:  # noqa: PT011 - it raises bare ones
        STOCK[what](bert, tmp_path)
    assert is_quoted(caught.value), caught.value


def test_what_transformers_logs(specimen, logged):
    words = transformers.AutoTokenizer.from_pretrained(tiny.MINILM, model_max_length=8)
    words("word " * 30)
    vit = specimen("vit")
    transformers.pipeline(
        "object-detection",
        model=ORTModelForImageClassification.from_pretrained(vit.folder),
        image_processor=vit.tokenizer,
    )
    said = [record.getMessage() for record in logged.records if record.levelno >= logging.WARNING]
    for start in ("Token indices", "The model 'ORTModelForImageClassification' is not supported"):
        assert [is_quoted(line) for line in said if line.startswith(start)] == [True], said


@on_4
def test_what_transformers_4_says_of_tokenizers_of_5(tmp_path):
    folder_with(tmp_path, '{"model_type": "bert"}')
    tiny.tokenizer("wordpiece").save_pretrained(tmp_path)
    facts = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**facts, "tokenizer_class": "TokenizersBackend"}))
    with pytest.raises(ValueError, match="TokenizersBackend") as caught:
        transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert is_quoted(caught.value)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**facts, "tokenizer_class": "PreTrainedTokenizerFast"}))
    assert transformers.AutoTokenizer.from_pretrained(tmp_path)("a b").input_ids


@on_5
@pytest.mark.parametrize("name", ["AutoModelForVision2Seq", "TFAutoModel", "SummarizationPipeline"])
def test_what_transformers_5_has_dropped(name):
    with pytest.raises(ImportError) as caught:
        exec(f"from transformers import {name}")
    assert plain(str(caught.value)).startswith(f"cannot import name '{name}' from 'transformers'")
    assert name in TEXT


@on_5
def test_what_optimum_says_without_its_onnxruntime(bert):
    for module in ("optimum.onnxruntime", "optimum.exporters.onnx", "transformers.onnx"):
        with pytest.raises(ModuleNotFoundError) as caught:
            importlib.import_module(module)
        assert is_quoted(caught.value)
    with pytest.raises(KeyError) as caught:
        transformers.pipeline("summarization", model=str(bert))
    assert is_quoted(caught.value)


@on_4
def test_what_optimum_says_with_its_onnxruntime(bert):
    stock = importlib.import_module("optimum.onnxruntime").ORTModelForSequenceClassification
    with pytest.raises(ValueError, match="Asked to use CUDAExecutionProvider") as caught:
        stock.from_pretrained(bert, file_name="model.onnx", provider="CUDAExecutionProvider")
    assert is_quoted(caught.value)
