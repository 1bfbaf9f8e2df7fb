"""Beside optimum and transformers: the same surface and classes, folders that load on both sides, the same scripts."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import logging
import textwrap

import numpy as np
import pytest
import torch
import transformers

import optimum_fixedshape
from optimum_fixedshape import ORTModelForSequenceClassification, export_model
from optimum_fixedshape.tasks import TASKS

from . import tiny
from .equality import assert_same

HAS_OPTIMUM_ONNX = importlib.util.find_spec("optimum.onnxruntime") is not None
needs_optimum_onnx = pytest.mark.skipif(not HAS_OPTIMUM_ONNX, reason="needs optimum-onnx")

CLASSES = sorted({task.model for task in TASKS} | {"ORTModelForCustomTasks"})

# Public names of optimum-onnx 0.1's ORTModel, of the class and of its instances.
SURFACE = sorted(
    {
        *("auto_model_class", "base_model_prefix", "can_generate", "config", "config_class", "config_name", "device"),
        *("dtype", "forward", "from_pretrained", "git_config_username_and_email", "initialize_ort_attributes"),
        *("input_dtypes", "input_names", "input_shapes", "model", "model_name", "model_path", "model_save_dir"),
        *("model_type", "output_dtypes", "output_names", "output_shapes", "path", "preprocessors", "provider"),
        *("provider_option", "provider_options", "providers", "push_to_hub", "raise_on_numpy_input_io_binding"),
        *("save_pretrained", "save_session", "session", "to", "use_io_binding"),
    }
)
# Arguments of its from_pretrained, with what they are by default.
ARGUMENTS = {
    "config": None,
    "export": False,
    "subfolder": "",
    "force_download": False,
    "local_files_only": False,
    "trust_remote_code": False,
    "token": None,
    "provider": "CPUExecutionProvider",
    "providers": None,
    "provider_options": None,
    "session_options": None,
    "use_io_binding": None,
}
OURS = {
    "revision": None,
    "cache_dir": None,
    "file_name": None,
    "shapes": None,
    "roles": None,
    "input_names": None,
    "output_names": None,
    "variant": None,
    "max_open": None,
}  # None: the Hub's default

SENTENCES = ["The tram was late.", "Her grandmother's recipe calls for patience and pears.", "No."]


@pytest.fixture(scope="module")
def model(exported):
    return ORTModelForSequenceClassification.from_pretrained(exported("text-classification").folder)


def test_everything_that_optimums_models_have(model):
    missing = [name for name in SURFACE if not hasattr(model, name)]
    assert not missing
    parameters = inspect.signature(ORTModelForSequenceClassification.from_pretrained).parameters
    assert {name: p.default for name, p in parameters.items() if p.default is not p.empty} == ARGUMENTS | OURS
    assert model.auto_model_class is transformers.AutoModelForSequenceClassification
    assert model.input_names == {"input_ids": 0, "attention_mask": 1, "token_type_ids": 2}
    assert (model.output_names, model.output_shapes) == ({"logits": 0}, {"logits": [2, 3]})
    assert model.input_shapes["input_ids"] == [2, 16]
    assert (model.input_dtypes["input_ids"], model.output_dtypes["logits"]) == ("tensor(int64)", "tensor(float)")
    assert (model.can_generate(), model.provider_option, model.preprocessors) == (False, {}, [])


@needs_optimum_onnx
def test_the_list_of_names_is_complete(exported):
    import optimum.onnxruntime

    folder = exported("text-classification").folder
    stock = optimum.onnxruntime.ORTModelForSequenceClassification.from_pretrained(folder)
    assert sorted(name for name in dir(stock) if not name.startswith("_")) == SURFACE
    parameters = inspect.signature(type(stock).from_pretrained).parameters
    assert {name for name, p in parameters.items() if p.default is not p.empty} - OURS.keys() == ARGUMENTS.keys()
    ours = ORTModelForSequenceClassification.from_pretrained(folder)
    for name in ("path", "device", "dtype", "providers", "provider", "input_names", "output_names", "input_dtypes"):
        assert getattr(ours, name) == getattr(stock, name), name
    for name in ("output_dtypes", "input_shapes", "output_shapes", "use_io_binding", "model_save_dir", "model_type"):
        assert getattr(ours, name) == getattr(stock, name), name


@pytest.mark.parametrize("name", CLASSES)
def test_classes(name):
    ours = getattr(optimum_fixedshape, name)
    if HAS_OPTIMUM_ONNX:
        import optimum.onnxruntime

        assert issubclass(ours, getattr(optimum.onnxruntime, name, optimum.onnxruntime.ORTModel))
        assert issubclass(ours, optimum.onnxruntime.ORTModel)
    from optimum.modeling_base import OptimizedModel

    assert issubclass(ours, OptimizedModel)
    own = type("MyOwn", (ours,), {})
    assert (own.task, own.auto_model_class) == (ours.task, ours.auto_model_class)


@needs_optimum_onnx
@pytest.mark.parametrize("name", ["ORTModelForSequenceClassification", "ORTModelForCustomTasks"])
def test_stock_optimum_loads_what_is_written_here(exported, tmp_path, name):
    import optimum.onnxruntime

    pair = exported("text-classification")
    feeds = dict(
        pair.tokenizer(SENTENCES[:2], padding="max_length", max_length=16, truncation=True, return_tensors="pt")
    )
    with torch.no_grad():
        theirs = pair.original(**feeds).logits
    ORTModelForSequenceClassification.from_pretrained(pair.folder).save_pretrained(tmp_path)
    for folder in (pair.folder, tmp_path):
        stock = getattr(optimum.onnxruntime, name).from_pretrained(folder)
        assert stock.input_shapes["input_ids"] == [2, 16]
        assert_same(stock(**feeds).logits, theirs)


@needs_optimum_onnx
@pytest.mark.filterwarnings("ignore")  # of an exporter that is not ours
def test_what_optimum_exports_loads_here(tmp_path):
    """Its graphs are dynamic: as they are, and pinned at load, and saved pinned, which stock optimum still loads."""
    import optimum.onnxruntime
    from optimum.exporters.onnx import main_export

    original, words = tiny.original("roberta", "token-classification"), tiny.tokenizer("bpe")
    original.save_pretrained(tmp_path / "torch")
    words.save_pretrained(tmp_path / "torch")
    main_export(
        tmp_path / "torch",
        tmp_path / "onnx",
        task="token-classification",
        library_name="transformers",
        do_validation=False,
    )
    feeds = dict(words(SENTENCES, padding=True, return_tensors="pt"))
    with torch.no_grad():
        theirs = original(**feeds).logits
    load = optimum_fixedshape.ORTModelForTokenClassification.from_pretrained
    assert_same(load(tmp_path / "onnx")(**feeds).logits, theirs)
    pinned = load(tmp_path / "onnx", shapes={"batch_size": 2, "sequence_length": [16, 128]})
    assert [rung.sizes for rung in pinned.ladder.rungs] == [
        {"batch_size": 2, "sequence_length": 16},
        {"batch_size": 2, "sequence_length": 128},
    ]
    assert_same(pinned(**feeds).logits, theirs)
    pinned.save_pretrained(tmp_path / "pinned")
    stock = optimum.onnxruntime.ORTModelForTokenClassification.from_pretrained(tmp_path / "pinned")
    assert_same(stock(**feeds).logits, theirs)


# A plain script of transformers, of which only the import changes.

MODEL_SCRIPT = """
    import torch
    from {package} import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForSequenceClassification.from_pretrained(source)
    model.eval()
    model.to("cpu")
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(model.device)
    with torch.no_grad():
        outputs = model(**inputs)
    best = outputs.logits.argmax(dim=-1).tolist()
    result = outputs.logits, [model.config.id2label[index] for index in best], outputs[0].shape, model.dtype
"""
PIPELINE_SCRIPT = """
    from {package} import pipeline

    classify = pipeline("text-classification", model=source, top_k=None)
    result = classify(texts), classify(texts[0])
"""
EMBEDDING_SCRIPT = """
    import torch
    from {package} import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(source), AutoModel.from_pretrained(source)
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        tokens = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1)
    result = torch.nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1), dim=-1)
"""


def result_of(script, package, source, texts=SENTENCES):
    names = {"source": str(source), "texts": texts}
    exec(textwrap.dedent(script.format(package=package)), names)
    return names["result"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The same model as PyTorch weights, and as graphs, once for each script."""
    root = tmp_path_factory.mktemp("sources")
    for task in ("text-classification", "feature-extraction"):
        original, words = tiny.original("bert", task), tiny.tokenizer("wordpiece")
        for saved in (original, words):
            saved.save_pretrained(root / task / "torch")
        export_model(original, root / task / "onnx", shapes={"sequence_length": 16}, processor=words, progress=False)
    return root


@pytest.mark.parametrize(
    ("script", "task"),
    [
        (MODEL_SCRIPT, "text-classification"),
        (PIPELINE_SCRIPT, "text-classification"),
        (EMBEDDING_SCRIPT, "feature-extraction"),
    ],
    ids=["model", "pipeline", "embedding"],
)
def test_a_plain_script_runs_by_its_imports_alone(sources, script, task):
    theirs = result_of(script, "transformers", sources / task / "torch")
    assert_same(result_of(script, "optimum_fixedshape", sources / task / "onnx"), theirs)


def test_a_plain_script_runs_where_there_is_no_graph_yet(tmp_path, caplog):
    """It is exported on the fly, which is said once, and holds all the tokens that the original holds."""
    config = copy.deepcopy(tiny.original("bert", "text-classification").config)
    config.max_position_embeddings = 40
    words = transformers.AutoTokenizer.from_pretrained(tiny.MINILM, model_max_length=40)
    for saved in (transformers.BertForSequenceClassification(config), words):
        saved.save_pretrained(tmp_path)
    files = sorted(tmp_path.iterdir())
    texts = [*SENTENCES, "boat " * 50]
    theirs = result_of(MODEL_SCRIPT, "transformers", tmp_path, texts)
    with caplog.at_level(logging.INFO, "optimum_fixedshape"):
        assert_same(result_of(MODEL_SCRIPT, "optimum_fixedshape", tmp_path, texts), theirs)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"Exporting {tmp_path} on the fly, for batch_size 1, sequence_length [16, 40]. "
        "This takes a while: keep the graphs with save_pretrained() to do it once."
    )
    assert sorted(tmp_path.iterdir()) == files, "nothing is written beside the weights"


def test_nothing_of_transformers_is_changed():
    assert transformers.AutoModelForSequenceClassification is not optimum_fixedshape.AutoModelForSequenceClassification
    bert = transformers.AutoModelForSequenceClassification.from_config(transformers.BertConfig(num_hidden_layers=1))
    assert type(bert) is transformers.BertForSequenceClassification
    assert np.isfinite(bert(torch.ones(1, 2, dtype=torch.long)).logits.detach().numpy()).all()
