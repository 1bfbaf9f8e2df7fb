"""`AutoTokenizer` and `AutoProcessor`: the tokenizer of a graph is found, told the shapes, or left as it is."""

import json
import shutil
import warnings

import onnx
import onnxruntime as ort
import pytest
import transformers
from onnx import TensorProto, helper

from optimum_fixedshape import (
    AutoFeatureExtractor,
    AutoProcessor,
    AutoTokenizer,
    InvalidModelError,
    ONNXAutoProcessor,
    ORTModelForFeatureExtraction,
    ShapeLadder,
    read_contract,
)
from optimum_fixedshape.contract import BATCH, SAMPLES, Axis, ShapeContract, TensorSpec
from optimum_fixedshape.errors import GraphNotFoundError, ProcessorError
from optimum_fixedshape.processors.text import FixedShapeTokenizer

from . import tiny, words
from .equality import assert_same
from .test_tokenizers_state import state_of

TOKENIZER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def copy_tokenizer(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copy(tiny.MINILM / name, folder)
    return folder


@pytest.fixture
def repo(tmp_path):
    """A folder with a tokenizer and a graph of one rung."""
    words.save_graph(copy_tokenizer(tmp_path / "repo"), length=16)
    return tmp_path / "repo"


@pytest.fixture
def onnx_repo(tmp_path):
    """The tokenizer in the folder above the graph, as optimum and the Hub have it."""
    words.save_graph(copy_tokenizer(tmp_path / "deep"), "onnx/model.onnx", length=16)
    shutil.copy(tiny.MINILM / "config.json", tmp_path / "deep" / "onnx")
    return tmp_path / "deep"


def assert_fixed(tokenizer, length=16, **facts):
    plain = transformers.AutoTokenizer.from_pretrained(tiny.MINILM)
    assert isinstance(tokenizer, type(plain))
    assert isinstance(tokenizer, FixedShapeTokenizer)
    assert tokenizer.limit == length
    assert tokenizer.overflow == facts.get("overflow", "error")
    assert_same(tokenizer(["a tram", "b"]), plain(["a tram", "b"], padding="max_length", max_length=length))


@pytest.mark.parametrize("auto", [AutoTokenizer, AutoProcessor])
def test_from_a_file_a_folder_a_session_and_a_contract(repo, auto):
    graph = repo / "model.onnx"
    contract = read_contract(graph)
    for model in (
        graph,
        str(graph),
        repo,
        str(repo),
        contract,
        ShapeLadder((contract,)),
        ort.InferenceSession(str(graph)),
    ):
        assert_fixed(auto.from_model(model))
        assert_fixed(auto.from_model(model, overflow="truncate"), overflow="truncate")


@pytest.mark.parametrize("auto", [AutoTokenizer, AutoProcessor])
def test_from_a_graph_below_the_tokenizer(onnx_repo, auto):
    graph = onnx_repo / "onnx" / "model.onnx"
    for model in (onnx_repo, onnx_repo / "onnx", graph, read_contract(graph), ort.InferenceSession(str(graph))):
        assert_fixed(auto.from_model(model))
    assert_fixed(auto.from_model(onnx_repo, subfolder="onnx"))
    assert_fixed(auto.from_pretrained(onnx_repo))


def test_from_a_tokenizer_in_a_folder_of_its_own(tmp_path):
    words.save_graph(tmp_path, length=16)
    copy_tokenizer(tmp_path / "tokenizer")
    assert_fixed(AutoTokenizer.from_pretrained(tmp_path, subfolder="tokenizer"))
    assert_fixed(AutoTokenizer.from_model(tmp_path, tokenizer=tmp_path / "tokenizer"))


def test_from_one_of_our_models(exported):
    pair = exported("feature-extraction")
    model = ORTModelForFeatureExtraction.from_pretrained(pair.folder)
    for tokenizer in (AutoTokenizer.from_model(model), AutoProcessor.from_model(pair.folder)):
        assert tokenizer.ladder == model.ladder
        for text, length in (("a tram", 8), ("a tram in the market was late, twice", 16)):
            theirs = pair.tokenizer(text, padding="max_length", max_length=length, return_tensors="pt")
            assert_same(tokenizer(text, return_tensors="pt"), theirs, tolerance=0)


@pytest.mark.parametrize("auto", [AutoTokenizer, AutoProcessor])
def test_a_tokenizer_can_be_given(repo, tmp_path, auto):
    plain = transformers.AutoTokenizer.from_pretrained(tiny.MINILM)
    before = state_of(plain)
    graph = words.save_graph(tmp_path / "bare", length=16)
    for model in (graph, read_contract(graph), onnx.load(graph).SerializeToString()):
        session = ort.InferenceSession(model) if isinstance(model, bytes) else model
        for tokenizer in (plain, repo, str(repo), auto.from_model(repo, overflow="truncate")):
            assert_fixed(auto.from_model(session, tokenizer=tokenizer))
    assert state_of(plain) == before


def test_arguments_reach_transformers(repo):
    tokenizer = AutoTokenizer.from_model(repo, padding_side="left", model_max_length=12)
    assert (tokenizer.padding_side, tokenizer.model_max_length) == ("left", 12)
    tokenizer = AutoTokenizer.from_pretrained(repo, padding_side="left", model_max_length=12, overflow="truncate")
    assert (tokenizer.padding_side, tokenizer.model_max_length, tokenizer.overflow) == ("left", 12, "truncate")
    slow = AutoTokenizer.from_model(repo, use_fast=False)
    assert slow.is_fast is words.ON_5
    assert_fixed(slow) if words.ON_5 else assert_same(
        slow("a")["input_ids"], AutoTokenizer.from_model(repo)("a")["input_ids"]
    )


@pytest.mark.parametrize("auto", [AutoTokenizer, AutoProcessor])
@pytest.mark.parametrize("graphs", ["none", "dynamic", "several"])
def test_from_pretrained_gives_what_transformers_gives(tmp_path, auto, graphs):
    copy_tokenizer(tmp_path)
    if graphs == "dynamic":
        words.save_graph(tmp_path, batch="batch", length="sequence")
    if graphs == "several":
        for name in ("a.onnx", "b.onnx"):
            words.save_graph(tmp_path, name)
    ours = auto.from_pretrained(tmp_path, padding_side="left", overflow="truncate")
    theirs = getattr(transformers, auto.__name__).from_pretrained(tmp_path, padding_side="left")
    assert type(ours) is type(theirs)
    assert state_of(ours) == state_of(theirs)
    assert_same(ours(["a tram", "b"]), theirs(["a tram", "b"]))


@pytest.mark.parametrize("auto", [AutoTokenizer, AutoProcessor])
def test_from_pretrained_knows_the_graph(repo, auto):
    assert_fixed(auto.from_pretrained(repo))
    assert_fixed(auto.from_pretrained(str(repo), overflow="truncate"), overflow="truncate")


@pytest.mark.parametrize("auto", [AutoTokenizer, AutoProcessor])
def test_a_broken_graph_is_an_error(repo, auto):
    (repo / "model.onnx").write_bytes(b"no graph at all")
    with pytest.raises(InvalidModelError):
        auto.from_pretrained(repo)
    with pytest.raises(InvalidModelError):
        auto.from_model(repo)


def test_errors_of_transformers_pass(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises((OSError, ValueError)) as theirs:
            transformers.AutoTokenizer.from_pretrained(path)
        with pytest.raises(type(theirs.value)) as ours:
            AutoTokenizer.from_pretrained(path)
        assert str(ours.value) == str(theirs.value)


def test_another_kind_of_processor_is_left_alone(tmp_path):
    transformers.EncodecFeatureExtractor().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "encodec"}))
    words.save_graph(tmp_path, length=16)
    ours, theirs = (auto.from_pretrained(tmp_path) for auto in (AutoProcessor, transformers.AutoProcessor))
    assert type(ours) is type(theirs) is transformers.EncodecFeatureExtractor
    assert ours.to_dict() == theirs.to_dict()


def test_a_graph_of_texts_and_images_needs_a_combination(repo):
    pixels = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, [1, 3, 8, 8])
    model = words.graph(length=16)
    model.graph.input.append(pixels)
    onnx.save(model, repo / "model.onnx")
    with pytest.raises(ProcessorError, match=r"that combines tokenizer and image_processor, such as CLIPProcessor\."):
        AutoProcessor.from_model(repo)
    assert ONNXAutoProcessor is AutoProcessor


def test_what_is_missing_is_named(tmp_path):
    graph = words.save_graph(tmp_path / "bare", length=16)
    with pytest.raises(GraphNotFoundError):
        AutoTokenizer.from_model(copy_tokenizer(tmp_path / "no graph"))
    with pytest.raises(ProcessorError, match=r"from_model takes an .onnx file, a folder, .* got int"):
        AutoTokenizer.from_model(3)
    with pytest.raises(
        ProcessorError, match=r"Nothing says where the tokenizer of this graph is. Pass tokenizer=, an obj"
    ):
        AutoTokenizer.from_model(ort.InferenceSession(onnx.load(graph).SerializeToString()))
    with pytest.raises(ProcessorError, match="A tokenizer of transformers is needed, got int"):
        AutoTokenizer.from_model(graph, tokenizer=3)


def test_a_graph_that_nobody_knows_has_no_processor(tmp_path):
    sizes = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy"}
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "odd", [sizes["x"]], [sizes["y"]])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "x.onnx")
    with pytest.raises(ProcessorError, match=r"Nobody knows what the inputs of this graph are: x: float32"):
        AutoProcessor.from_model(tmp_path / "x.onnx")


def test_a_graph_of_sounds_that_comes_alone_has_the_usual_feature_extractor():
    sound = ShapeContract((TensorSpec("input_values", "float32", (Axis(1, role=BATCH), Axis(1600, role=SAMPLES))),), ())
    with pytest.warns(UserWarning, match="Wav2Vec2FeatureExtractor"):
        extractor = AutoFeatureExtractor.from_model(sound)
    assert extractor([0.0] * 100, return_tensors="np")["input_values"].shape == (1, 1600)


@pytest.mark.parametrize("kind", ["bert", "roberta", "t5", "deberta-v2", "gpt2", "distilbert", None])
def test_a_folder_without_a_tokenizer_is_an_error(tmp_path, kind):
    """transformers 5 makes a tokenizer that knows no word from nothing but a config."""
    graph = words.save_graph(tmp_path / "graphs", length=16)
    if kind:
        (graph.parent / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(
        ProcessorError, match=r"(?s)No tokenizer could be loaded from .*graphs: .* Pass tokenizer=, an object"
    ):
        AutoTokenizer.from_model(graph)
    assert_fixed(AutoTokenizer.from_model(graph, tokenizer=tiny.MINILM))


@pytest.mark.parametrize("kind", [*words.FAST[1:], *words.SLOW])
def test_every_kind_of_tokenizer_is_loaded(tmp_path, kind):
    words.plain(kind).save_pretrained(tmp_path)
    words.save_graph(tmp_path, length=16)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* has no pad token")
        tokenizer = AutoTokenizer.from_model(tmp_path, use_fast=kind in words.FAST)
    words.assert_padded(tokenizer("a tram"), words.reference(kind), "a tram", rungs=(16,))


@pytest.mark.parametrize("load", [AutoTokenizer.from_model, AutoTokenizer.from_pretrained, AutoProcessor.from_model])
def test_warnings_point_at_the_callers_line(tmp_path, load):
    words.without_pad().save_pretrained(tmp_path)
    words.save_graph(tmp_path, length=16)
    with pytest.warns(UserWarning, match="has no pad token; padding with") as said:
        load(tmp_path)
    assert [warning.filename for warning in said] == [__file__]
