"""Graphs from PyTorch, run in real sessions beside the models they came from."""

import logging
import subprocess
import sys
import warnings
from dataclasses import dataclass
from functools import cache, cached_property
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import transformers

from optimum_fixedshape.errors import ExportError
from optimum_fixedshape.export.torch_export import OPSET, TRACED_ATTENTION, export_rung

# transformers 4 warns while it imports DeBERTa and ModernBERT.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")

BATCH, SEQUENCE, CHOICES, VOCABULARY = 2, 16, 3, 99
TOLERANCE = 1e-5
ROW_LENGTHS = [(16, 7), (3, 16), (1, 2), (9, 5)]

TWO_INPUTS = ("input_ids", "attention_mask")
THREE_INPUTS = (*TWO_INPUTS, "token_type_ids")
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 80,
    "pad_token_id": 0,
}
DISTILBERT_SIZES = {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 37}
RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "norm_rel_ebd": "layer_norm"}
DEBERTA_SIZES = {**SIZES, **RELATIVE, "position_buckets": 8, "share_att_key": True, "type_vocab_size": 2}
MODERNBERT_SIZES = {
    **SIZES,
    **{"local_attention": 6, "global_attn_every_n_layers": 2},
    **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1),
}


@dataclass(frozen=True)
class Case:
    model: str
    config: str
    sizes: dict
    inputs: tuple = THREE_INPUTS
    outputs: tuple = ("logits",)

    def build(self):
        torch.manual_seed(0)
        config = getattr(transformers, self.config)(**self.sizes)
        model = getattr(transformers, self.model)(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():  # fresh weights are so small that a lost mask would go unnoticed
                parameter.add_(torch.randn_like(parameter) * 0.2)
        return model

    @property
    def shape(self):
        return (BATCH, CHOICES, SEQUENCE) if self.model.endswith("MultipleChoice") else (BATCH, SEQUENCE)

    def feeds(self, lengths, *, seed=0):
        numbers = np.random.default_rng(seed)
        mask = np.zeros(self.shape, dtype=np.int64)
        for row, length in enumerate(lengths):
            mask[row, ..., :length] = 1
        arrays = {
            "input_ids": np.where(mask, numbers.integers(5, VOCABULARY, self.shape), 0),
            "attention_mask": mask,
            "token_type_ids": mask * numbers.integers(0, 2, self.shape),
        }
        return {name: arrays[name] for name in self.inputs}


CASES = {
    "bert": Case("BertModel", "BertConfig", SIZES, outputs=("last_hidden_state", "pooler_output")),
    "bert-sequence": Case("BertForSequenceClassification", "BertConfig", SIZES),
    "bert-token": Case("BertForTokenClassification", "BertConfig", SIZES),
    "bert-question": Case("BertForQuestionAnswering", "BertConfig", SIZES, outputs=("start_logits", "end_logits")),
    "bert-mask": Case("BertForMaskedLM", "BertConfig", SIZES),
    "bert-choice": Case("BertForMultipleChoice", "BertConfig", SIZES),
    "distilbert": Case("DistilBertForTokenClassification", "DistilBertConfig", DISTILBERT_SIZES, TWO_INPUTS),
    "roberta": Case("RobertaForTokenClassification", "RobertaConfig", {**SIZES, "pad_token_id": 1}, TWO_INPUTS),
    "xlm-roberta": Case("XLMRobertaForSequenceClassification", "XLMRobertaConfig", SIZES, TWO_INPUTS),
    "deberta-v2": Case("DebertaV2ForTokenClassification", "DebertaV2Config", DEBERTA_SIZES),
    "deberta-v2-conv": Case(
        "DebertaV2ForSequenceClassification", "DebertaV2Config", {**DEBERTA_SIZES, "conv_kernel_size": 3}
    ),
    "albert": Case("AlbertForTokenClassification", "AlbertConfig", {**SIZES, "embedding_size": 16}),
    "mpnet": Case("MPNetForTokenClassification", "MPNetConfig", SIZES, TWO_INPUTS),
    "modernbert": Case("ModernBertForTokenClassification", "ModernBertConfig", MODERNBERT_SIZES, TWO_INPUTS),
    "electra": Case("ElectraForTokenClassification", "ElectraConfig", {**SIZES, "embedding_size": 16}),
}


def tensors(feeds):
    return {name: torch.from_numpy(array) for name, array in feeds.items()}


class Exported:
    def __init__(self, case):
        self.case = case
        self.model = case.build()
        self.graph = export_rung(self.model, tensors(case.feeds((16, 5))), case.outputs)

    @cached_property
    def session(self):
        return ort.InferenceSession(self.graph.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(self, feeds):
        return dict(zip(self.case.outputs, self.session.run(list(self.case.outputs), feeds), strict=True))

    def reference(self, feeds):
        with torch.no_grad():
            outputs = self.model(**tensors(feeds))
        return {name: outputs[name].numpy() for name in self.case.outputs}


@cache
def exported(name):
    return Exported(CASES[name])


def real_values(array, feeds):
    mask = feeds["attention_mask"]
    return array[mask == 1] if array.shape[: mask.ndim] == mask.shape else array


def farthest(got, expected, feeds):
    return max(np.abs(real_values(got[name] - expected[name], feeds)).max() for name in expected)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("lengths", ROW_LENGTHS, ids=str)
def test_the_graph_answers_as_pytorch_does(name, lengths):
    pair, feeds = exported(name), CASES[name].feeds(lengths, seed=1)
    got, expected = pair.run(feeds), pair.reference(feeds)
    assert min(np.ptp(array) for array in expected.values()) > 0.1
    assert farthest(got, expected, feeds) < TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_the_graph_reads_every_input(name):
    pair, feeds = exported(name), CASES[name].feeds((16, 16))
    answer = pair.run(feeds)
    changed = {
        "input_ids": {**feeds, "input_ids": feeds["input_ids"][..., ::-1].copy()},
        "attention_mask": {**feeds, "attention_mask": CASES[name].feeds((9, 9))["attention_mask"]},
        "token_type_ids": {**feeds, "token_type_ids": 1 - feeds.get("token_type_ids", 0)},
    }
    for name_of_input in CASES[name].inputs:
        assert farthest(pair.run(changed[name_of_input]), answer, changed["attention_mask"]) > 1e-3, name_of_input


@pytest.mark.parametrize("name", CASES)
def test_padding_does_not_reach_real_tokens(name):
    feeds = CASES[name].feeds((7, 4))
    noise = np.where(feeds["attention_mask"], feeds["input_ids"], 7)
    pair = exported(name)
    assert farthest(pair.run({**feeds, "input_ids": noise}), pair.run(feeds), feeds) < TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_every_dimension_is_a_number(name):
    session, case = exported(name).session, CASES[name]
    assert [(value.name, tuple(value.shape)) for value in session.get_inputs()] == [
        (name_of_input, case.shape) for name_of_input in case.inputs
    ]
    assert tuple(value.name for value in session.get_outputs()) == case.outputs
    assert all(isinstance(dim, int) and dim > 0 for value in session.get_outputs() for dim in value.shape)


@pytest.mark.parametrize("name", CASES)
def test_the_graph_is_valid_and_carries_no_noise(name):
    graph = exported(name).graph
    onnx.checker.check_model(graph, full_check=True)
    parts = [graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.graph.input, *graph.graph.output]
    assert not any(part.metadata_props or part.doc_string for part in parts)
    assert graph.producer_name == "optimum-fixedshape"
    assert {entry.key: entry.value for entry in graph.metadata_props}["architecture"] == CASES[name].model
    assert {entry.domain: entry.version for entry in graph.opset_import} == {"": OPSET}


@pytest.mark.parametrize("name", ["bert", "roberta", "deberta-v2", "mpnet", "modernbert"])
def test_values_of_the_example_do_not_reach_the_graph(name):
    case = CASES[name]
    ones = {name_of_input: torch.ones(case.shape, dtype=torch.int64) for name_of_input in case.inputs}
    again = export_rung(case.build(), ones, case.outputs)
    assert again.SerializeToString() == exported(name).graph.SerializeToString()


def test_a_window_of_padding_alone_makes_no_nan():
    case, lengths = CASES["modernbert"], (2, 16)
    pair, feeds = exported("modernbert"), case.feeds(lengths)
    assert case.sizes["local_attention"] // 2 < SEQUENCE - lengths[0]
    assert all(np.isfinite(array).all() for array in pair.run(feeds).values())


def test_an_older_opset_can_be_asked_for():
    case = CASES["bert"]
    graph = export_rung(case.build(), tensors(case.feeds((16, 5))), case.outputs, opset=18)
    assert graph.opset_import[0].version == 18
    feeds, pair = case.feeds((4, 16)), exported("bert")
    got = ort.InferenceSession(graph.SerializeToString()).run(list(case.outputs), feeds)
    assert farthest(dict(zip(case.outputs, got, strict=True)), pair.reference(feeds), feeds) < TOLERANCE


def test_the_model_comes_back_as_it_was():
    case = CASES["bert"]
    model = case.build().train()
    model.encoder.layer[0].eval()
    before = {name: module.training for name, module in model.named_modules()}
    attention = model.config._attn_implementation
    assert attention != TRACED_ATTENTION
    feeds = tensors(case.feeds((16, 5)))
    export_rung(model, feeds, case.outputs)
    with pytest.raises(ExportError):
        export_rung(model, feeds, ["nothing"])
    assert {name: module.training for name, module in model.named_modules()} == before
    assert model.config._attn_implementation == attention


class Stub(torch.nn.Module):
    outputs: ClassVar = {}

    def forward(self, input_ids, *, return_dict):
        return {"logits": self.answer(input_ids)}


class Branching(Stub):
    def answer(self, input_ids):
        return input_ids + 1 if bool((input_ids > 0).all()) else input_ids


class Counting(Stub):
    def answer(self, input_ids):
        return input_ids.nonzero()


class Decomposing(Stub):
    def answer(self, input_ids):
        return torch.linalg.eigvals(input_ids.float())


@pytest.mark.parametrize(
    ("model", "cause"), [(Branching, "data-dependent"), (Counting, "size of logits depends on the values")]
)
def test_a_model_that_depends_on_values_is_refused(model, cause):
    with pytest.raises(ExportError, match=cause) as caught:
        export_rung(model(), {"input_ids": torch.ones(2, 3, dtype=torch.int64)}, ["logits"])
    assert str(caught.value).startswith(f"{model.__name__} cannot be exported at input_ids [2, 3]: ")
    assert (caught.value.architecture, caught.value.shapes) == (model.__name__, {"input_ids": (2, 3)})


def test_an_operator_that_onnx_lacks_is_named():
    with pytest.raises(ExportError, match=r"DispatchError: No ONNX function found for .*linalg_eig"):
        export_rung(Decomposing(), {"input_ids": torch.ones(2, 2, dtype=torch.int64)}, ["logits"])


def test_an_output_that_the_model_lacks_is_named():
    case = CASES["bert"]
    with pytest.raises(ExportError, match="the model gives last_hidden_state, pooler_output, and no logits") as caught:
        export_rung(case.build(), tensors(case.feeds((16, 5))), ["logits"])
    assert isinstance(caught.value.__cause__, LookupError)


def test_loggers_and_warnings_are_as_before():
    logger = logging.getLogger("torch.onnx")
    level, filters = logger.level, list(warnings.filters)
    case = CASES["bert"]
    export_rung(case.build(), tensors(case.feeds((16, 5))), case.outputs)
    assert (logger.level, warnings.filters) == (level, filters)


def test_a_missing_extra_names_the_command():
    code = """
import sys
sys.modules["onnxscript"] = None
from optimum_fixedshape.errors import MissingExtraError
try:
    import optimum_fixedshape.export.torch_export
except MissingExtraError as error:
    print(error, error.extra)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = 'Exporting needs onnxscript, which is not installed: pip install "optimum-fixedshape[export]" export'
    assert done.stdout.strip() == expected


def test_an_export_says_nothing_even_where_it_fails():
    code = """
import torch, transformers
from optimum_fixedshape.export.torch_export import export_rung
config = transformers.DebertaV2Config(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
    intermediate_size=8, relative_attention=True, norm_rel_ebd="layer_norm", position_buckets=4)
ids = torch.ones(1, 4, dtype=torch.int64)
export_rung(transformers.DebertaV2Model(config), {"input_ids": ids}, ["last_hidden_state"])
class Branching(torch.nn.Module):
    def forward(self, input_ids, *, return_dict):
        return {"logits": input_ids if input_ids.all() else -input_ids}
try:
    export_rung(Branching(), {"input_ids": ids}, ["logits"])
except RuntimeError:
    pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
