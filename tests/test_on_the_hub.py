"""Models on a Hub: loaded, looked into and pushed by real clients, each in a process of its own."""

from __future__ import annotations

import json
import shutil
import textwrap

import numpy as np
import onnx
import pytest
import torch

from . import onnx_models, stock
from .hub import LocalHub

UNREACHABLE = "http://127.0.0.1:9"  # nobody listens to the discard port
BIG = 20_000_000

# What every client starts with; `error` gives the error that a call raises.
PRELUDE = """
import numpy as np
from optimum_fixedshape import AutoTokenizer, ORTModelForSequenceClassification as Model, pipeline
from optimum_fixedshape.errors import GraphNotFoundError

IDS = np.arange(5, 15).reshape(2, 5)

def error(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except GraphNotFoundError as error:
        return str(error)
"""


def client(hub, code, **env):
    return hub.run(PRELUDE + textwrap.dedent(code), **env)


@pytest.fixture(scope="module")
def root(exported, tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    pair = exported("text-classification")
    for name in ("acme/fixed", "acme/secret"):
        shutil.copytree(pair.folder, root / name)
    for saved in (pair.original, pair.tokenizer):
        saved.save_pretrained(root / "acme" / "torch")
    pair.tokenizer.save_pretrained(root / "acme" / "plain")
    shutil.copytree(root / "acme" / "plain", root / "acme" / "big")
    pair.original.config.save_pretrained(root / "acme" / "big")
    (root / "acme" / "big" / "onnx").mkdir()
    onnx.save(big_graph(), root / "acme" / "big" / "onnx" / "model.onnx")
    return root


def big_graph() -> onnx.ModelProto:
    """Some hundred nodes, and 20 MB of weights inside, as exporters write models of this size."""
    graph = onnx_models.embedder(2, 16)
    chain = [onnx.helper.make_node("Identity", [f"n{i}"], [f"n{i + 1}"], doc_string="x" * 300) for i in range(300)]
    graph.graph.node.extend([onnx.helper.make_node("Identity", ["input_ids"], ["n0"]), *chain])
    weights = (np.full((BIG // 40,), i, np.float32) for i in range(10))
    graph.graph.initializer.extend(onnx.numpy_helper.from_array(array, f"w{i}") for i, array in enumerate(weights))
    return graph


@pytest.fixture
def hub(root):
    with LocalHub(root, private=["acme/secret"]) as hub:
        yield hub


@pytest.fixture(scope="module")
def logits(exported):
    import torch

    original = exported("text-classification").original
    with torch.no_grad():
        return original(torch.arange(5, 15).reshape(2, 5)).logits.numpy().round(3).tolist()


def test_by_repo_id(hub, logits):
    """Model, tokenizer and pipeline; and all of it again from the cache, while the Hub may not or cannot be asked."""
    code = """
        import json
        from optimum_fixedshape.repo import peek_ladder

        model = Model.from_pretrained("acme/fixed")
        assert len(model.ladder) == len(peek_ladder("acme/fixed")) == 2
        print(json.dumps(model(IDS).logits.round(3).tolist()))
        for source in ("acme/fixed", model):
            assert len(AutoTokenizer.from_model(source)("A boat.")["input_ids"]) == 8
        assert len(AutoTokenizer.from_pretrained("acme/fixed")("A boat.")["input_ids"]) == 8
        pipe = pipeline("text-classification", model="acme/fixed")
        assert [answer["label"] in model.config.label2id for answer in pipe(["A boat.", "No."])] == [True, True]
    """
    assert json.loads(client(hub, code)) == logits
    wanted = {request.path.split("/", 5)[-1] for request in hub.requests if "/resolve/" in request.path}
    assert {"model.onnx", "model_2x8.onnx", "model.onnx_data", "config.json", "tokenizer.json"} <= wanted

    hub.reset()
    assert json.loads(client(hub, code, HF_HUB_OFFLINE="1")) == logits
    assert hub.requests == []

    # Nobody answers, and what was never in the cache says why it cannot be had.
    printed = client(
        hub,
        """
        import json, socket
        from optimum_fixedshape.repo import peek_ladder

        model = Model.from_pretrained("acme/fixed")
        assert len(peek_ladder("acme/fixed")) == 2
        assert len(AutoTokenizer.from_model(model)("A boat.")["input_ids"]) == 8
        assert pipeline("text-classification", model="acme/fixed")("No.")[0]["label"]
        said = error(Model.from_pretrained, "acme/torch")
        assert "refused" in said or "Connection" in said, said

        def refuse(*args):
            raise AssertionError("somebody asked")

        socket.socket.connect = refuse
        Model.from_pretrained("acme/fixed", local_files_only=True)
        assert len(AutoTokenizer.from_pretrained("acme/fixed", local_files_only=True)("A boat.")["input_ids"]) == 8
        assert len(AutoTokenizer.from_model("acme/fixed", local_files_only=True)("A boat.")["input_ids"]) == 8
        pipeline("text-classification", model="acme/fixed", model_kwargs={"local_files_only": True})
        print(json.dumps(model(IDS).logits.round(3).tolist()))
        """,
        HF_ENDPOINT=UNREACHABLE,
    )
    assert json.loads(printed) == logits


def test_only_headers_are_read(hub, root, tmp_path):
    """And read anew where the file has changed, in the same process: nothing remembers its size."""
    shutil.copytree(root / "acme" / "big", root / "acme" / "changing")
    changing = root / "acme" / "changing" / "onnx" / "model.onnx"
    onnx.save(onnx_models.embedder(2, 8), tmp_path / "next.onnx")
    client(
        hub,
        f"""
        import shutil
        from optimum_fixedshape.repo import peek_ladder

        for load in (AutoTokenizer.from_pretrained, AutoTokenizer.from_model):
            tokenizer = load("acme/big")
            assert tokenizer("A boat.", return_tensors="np")["input_ids"].shape == (1, 16)
        plain = AutoTokenizer.from_pretrained("acme/plain")
        assert "FixedShape" not in str(type(plain).__mro__)
        assert len(plain("A boat.")["input_ids"]) == 5

        assert peek_ladder("acme/changing").largest.sizes == {{"batch_size": 2, "sequence_length": 16}}
        shutil.copyfile({str(tmp_path / "next.onnx")!r}, {str(changing)!r})
        assert peek_ladder("acme/changing").largest.sequence_length == 8
        Model.from_pretrained("acme/fixed", file_name="model_2x8.onnx")(IDS)
        """,
    )
    reads = [request for request in hub.requests if request.method == "GET" and request.path.startswith("/acme/big/re")]
    reads = [request for request in reads if request.path.endswith("model.onnx")]
    # Each of the two times 100 kB of nodes, and a jump over each of ten weights.
    assert hub.sent("onnx/model.onnx") < 3 * 1_000_000 < BIG
    assert len(reads) < 2 * 16
    assert all(request.range for request in reads)
    assert not [r for r in hub.requests if r.path.startswith("/acme/fixed/") and r.path.endswith("/model.onnx")]


def test_private_repos_and_revisions(hub):
    client(
        hub,
        """
        from huggingface_hub import HfApi

        model = Model.from_pretrained("acme/secret", token="hf_read")
        assert model(IDS).logits.shape == (2, 3)
        assert len(AutoTokenizer.from_model(model)("A boat.")["input_ids"]) == 8, "needs no token of its own"
        assert len(AutoTokenizer.from_pretrained("acme/secret", token="hf_read")("A boat.")["input_ids"]) == 8
        assert pipeline("text-classification", model="acme/secret", token="hf_read")("No.")[0]["label"]
        sha = HfApi().model_info("acme/fixed").sha
        assert sha in str(Model.from_pretrained("acme/fixed", revision=sha).path)

        for repo, options in (
            ("acme/secret", {"cache_dir": "elsewhere"}),
            ("acme/missing", {}),
            ("acme/fixed", {"revision": "v2"}),
            ("acme/fixed", {"token": "hf_wrong", "cache_dir": "elsewhere"}),
            ("not a repo id", {}),
            ("acme/missing", {"local_files_only": True}),
        ):
            said = error(Model.from_pretrained, repo, **options)
            assert said, repo
            assert said.startswith(f"{repo!r} is neither a file, nor a folder, nor a Hub repo that can be "), said
            assert "had. The Hub's client says: " in said
        said = error(Model.from_pretrained, "acme/plain")
        assert said == "acme/plain holds no graph called model.onnx. Graphs there: none.", said
        """,
    )


def test_weights_of_pytorch_are_exported_on_the_fly(hub):
    printed = client(
        hub,
        """
        import logging, sys
        logging.basicConfig(stream=sys.stdout, format="%(message)s")
        import transformers

        model = Model.from_pretrained("acme/torch", shapes={"sequence_length": 16})
        theirs = transformers.AutoModelForSequenceClassification.from_pretrained("acme/torch")
        import torch
        with torch.no_grad():
            assert np.allclose(model(IDS).logits, theirs(torch.from_numpy(IDS)).logits, atol=1e-4)
        assert len(AutoTokenizer.from_model(model)("A boat.")["input_ids"]) == 16
        """,
    )
    assert printed.count("Exporting acme/torch on the fly, for sequence_length 16.") == 1


@pytest.fixture(scope="module")
def variants(root):
    """Repos that keep several kinds of a graph: beside the plain one, alone, and one alone; a rung of each size."""
    lengths = {"model": 16, "model_quantized": 12, "model_fp16": 8}
    for name, stems in (("acme/all", lengths), ("acme/two", [*lengths][1:]), ("acme/one", [*lengths][2:])):
        shutil.copytree(root / "acme" / "plain", root / name)
        shutil.copy(root / "acme" / "big" / "config.json", root / name)
        (root / name / "onnx").mkdir()
        for stem in stems:
            graph = onnx_models.embedder(2, lengths[stem], width=64)
            external = {"save_as_external_data": True, "size_threshold": 100, "location": f"{stem}.onnx_data"}
            onnx.save(graph, root / name / "onnx" / f"{stem}.onnx", **external)
    return root


def test_variants(variants):
    """The plain graph unless another is asked for; of each only its own files come."""
    with LocalHub(variants) as hub:
        client(
            hub,
            """
            from optimum_fixedshape import AutoModelForONNX, ORTModelForFeatureExtraction as Encoder
            from optimum_fixedshape.repo import peek_ladder

            def lengths(**options):
                model = Encoder.from_pretrained("acme/all", **options)
                tokens = AutoTokenizer.from_model("acme/all", **options)("A boat.")["input_ids"]
                again = AutoTokenizer.from_pretrained("acme/all", **options)("A boat.")["input_ids"]
                assert model(IDS).token_embeddings.shape[:2] == IDS.shape
                return {model.contract.sequence_length, len(tokens), len(again)}

            assert lengths(variant="quantized") == {12}
            """,
        )
        asked = {request.path.rpartition("/")[2] for request in hub.requests if "/resolve/" in request.path}
        assert {"model_quantized.onnx", "model_quantized.onnx_data", "config.json", "tokenizer.json"} <= asked
        assert not asked & {"model.onnx", "model.onnx_data", "model_fp16.onnx", "model_fp16.onnx_data"}
        client(
            hub,
            """
            from optimum_fixedshape import AutoModelForONNX, ORTModelForFeatureExtraction as Encoder

            for options, length in (
                ({}, 16),
                ({"file_name": "onnx/model_quantized.onnx"}, 12),
                ({"file_name": "model_fp16.onnx"}, 8),
                ({"subfolder": "onnx", "file_name": "model_quantized.onnx"}, 12),
                ({"subfolder": "onnx", "variant": "fp16"}, 8),
            ):
                assert Encoder.from_pretrained("acme/all", **options).contract.sequence_length == length
                assert len(AutoTokenizer.from_model("acme/all", **options)("A boat.")["input_ids"]) == length
                pipe = pipeline("feature-extraction", model="acme/all", **options)
                assert pipe.model.contract.sequence_length == length
                assert len(pipe("A boat.")[0]) == 5
            pipe = pipeline("feature-extraction", model="acme/all", model_kwargs={"variant": "fp16"})
            assert pipe.model.contract.sequence_length == 8
            assert AutoModelForONNX.from_pretrained("acme/all", variant="fp16").contract.sequence_length == 8
            assert Encoder.from_pretrained("acme/one").contract.sequence_length == 8

            way_out = "choose one with variant= (fp16, quantized), file_name= or subfolder="
            for load in (Encoder.from_pretrained, AutoTokenizer.from_model):
                said = error(load, "acme/two")
                assert said.startswith(f"acme/two holds several graphs; {way_out}. Graphs there: onnx/model_fp16"), said
                said = error(load, "acme/two", variant="int8")
                assert said.startswith(f"acme/two holds no graph called model_int8.onnx; {way_out}. Graphs "), said
            """,
        )


def test_what_the_cache_lacks_is_said(variants):
    with LocalHub(variants) as hub:
        client(hub, "Model.from_pretrained('acme/fixed', file_name='model_2x8.onnx')")
        client(
            hub,
            """
            from huggingface_hub import constants
            from pathlib import Path

            note = "The Hub was not asked: this is what its cache on this machine holds."
            said = error(Model.from_pretrained, "acme/fixed")
            assert "lists model.onnx, which is not there. " + note in said, said
            Model.from_pretrained("acme/fixed", file_name="model_2x8.onnx")(IDS)
            (data,) = Path(constants.HF_HUB_CACHE).glob("models--acme--fixed/snapshots/*/model.onnx_data")
            data.unlink()
            said = error(Model.from_pretrained, "acme/fixed", file_name="model_2x8.onnx")
            assert "model.onnx_data" in said, said  # the client of the Hub itself may find it missing
            said = error(Model.from_pretrained, "acme/all")
            assert "nor a Hub repo that can be had" in said, said
            """,
            HF_HUB_OFFLINE="1",
        )


def test_a_graph_that_was_fetched_without_its_weights(root):
    with LocalHub(root) as hub:
        client(
            hub,
            """
            from huggingface_hub import hf_hub_download

            for name in ("config.json", "model_2x8.onnx"):
                hf_hub_download("acme/fixed", name)
            """,
        )
        client(
            hub,
            """
            said = error(Model.from_pretrained, "acme/fixed", file_name="model_2x8.onnx")
            assert said.startswith("The weights in model.onnx_data are not there. The Hub was not asked"), said
            """,
            HF_HUB_OFFLINE="1",
        )


def test_a_hub_that_is_busy_or_interrupted(root, logits):
    """What the client of the Hub gives up on is tried once more; what a cut download has left is kept."""
    with LocalHub(root, lfs=["*.onnx", "*.onnx_data"]) as hub:
        hub.fail("/api/models/acme/fixed", 429)
        hub.fail("/model.onnx", 503, 503)
        hub.fail("/model.onnx_data", "cut")
        hub.fail("/model_2x8.onnx", "cut")
        code = """
            import json, logging

            print(json.dumps(Model.from_pretrained("acme/fixed").run({"input_ids": IDS})["logits"].round(3).tolist()))
        """
        assert json.loads(client(hub, code)) == logits
        assert not any(hub.faults.values())


def test_a_hub_that_lists_a_repo_and_then_is_busy(root, logits):
    """Of a repo that is not in the cache, the client then says that it is not there: it is asked once more."""
    with LocalHub(root) as hub:
        hub.fail("acme/fixed/revision/main", 503)
        code = """
            import json

            print(json.dumps(Model.from_pretrained("acme/fixed").run({"input_ids": IDS})["logits"].round(3).tolist()))
        """
        assert json.loads(client(hub, code)) == logits
        assert not any(hub.faults["acme/fixed/revision/main"])


def test_a_hub_that_goes_silent_half_way(root):
    """The client of the Hub is then content with the part of a repo that is in its cache: it is asked once more."""
    with LocalHub(root) as hub:
        hub.fail("acme/fixed/revision/main", 503)
        hub.fail("acme/big/revision/main", *[503] * 4)
        hub.fail("acme/big/resolve/main/onnx/model.onnx", 400)
        client(
            hub,
            """
            from huggingface_hub import hf_hub_download
            from optimum_fixedshape.hub import license_of
            from optimum_fixedshape.repo import peek_ladder

            said = error(peek_ladder, "acme/big")
            assert "nor a Hub repo that can be had" in said, said
            for repo in ("acme/fixed", "acme/big"):
                hf_hub_download(repo, "config.json")
            assert Model.from_pretrained("acme/fixed")(IDS).logits.shape == (2, 3)
            said = error(Model.from_pretrained, "acme/big")
            assert "config.json, onnx/model.onnx" in said or "did not arrive" in said, said
            assert license_of("acme/fixed") == {}
            """,
        )
        assert not any(hub.faults["acme/fixed/revision/main"])


def test_names_in_a_listing_cannot_leave_the_repo(root, tmp_path):
    outside = tmp_path / "outside.json"
    outside.write_text("{}")
    names = ["../../../outside.json", "/tmp/outside.json", "..\\outside.json", "onnx/../../outside.onnx", "*.json"]
    shutil.copytree(root / "acme" / "fixed", tmp_path / "hub" / "acme" / "evil")
    with LocalHub(tmp_path / "hub", foreign={"acme/evil": dict.fromkeys(names, outside)}) as hub:
        client(hub, "assert Model.from_pretrained('acme/evil')(IDS).logits.shape == (2, 3)")
        asked = {request.path for request in hub.requests if "outside" in request.path}
        assert not asked
        home = tmp_path / "home"
        client(hub, "Model.from_pretrained('acme/evil')", HF_HOME=str(home))
        assert not [path for path in tmp_path.rglob("outside*") if path != outside]


def test_gated_repos_say_so(root):
    with LocalHub(root, gated=["acme/fixed"]) as hub:
        client(
            hub,
            """
            for load in (Model.from_pretrained, AutoTokenizer.from_model):
                for token in (None, "hf_read"):
                    said = error(load, "acme/fixed", token=token)
                    assert said and "Access to model acme/fixed is restricted" in said, said
            assert Model.from_pretrained("acme/fixed", token="hf_write")(IDS).logits.shape == (2, 3)
            """,
        )


def test_models_that_write(tmp_path):
    """A stock repo of an encoder and decoders: what is needed comes, and all of it again from the cache."""
    home = tmp_path / "acme" / "bart"
    shutil.copytree(stock.graphs("bart"), home / "onnx")
    for file in [file for file in (home / "onnx").iterdir() if file.suffix != ".onnx"]:
        file.rename(home / file.name)
    code = """
        import json, torch
        from optimum_fixedshape import ORTModelForSeq2SeqLM

        model = ORTModelForSeq2SeqLM.from_pretrained("acme/bart", shapes={"context_length": 12, "sequence_length": 8})
        written = model.generate(torch.arange(5, 12)[None], max_new_tokens=7, do_sample=False)
        assert AutoTokenizer.from_model("acme/bart")("A boat.")["input_ids"]
        print(json.dumps(written.tolist()))
    """
    expected = stock.original("bart").generate(torch.arange(5, 12)[None], max_new_tokens=7, do_sample=False).tolist()
    with LocalHub(tmp_path) as hub:
        assert json.loads(client(hub, code)) == expected
        wanted = {request.path.split("/")[-1] for request in hub.requests if "/resolve/" in request.path}
        assert {"encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx"} <= wanted
        assert "decoder_model_merged.onnx" not in wanted
        hub.reset()
        assert json.loads(client(hub, code, HF_HUB_OFFLINE="1")) == expected
        assert hub.requests == []
    for stem in ("encoder_model", "decoder_model_merged", "decoder_with_past_model", "decoder_model"):
        shutil.copy(home / "onnx" / f"{stem}.onnx", home / "onnx" / f"{stem}_q4.onnx")
    with LocalHub(tmp_path) as hub:
        assert json.loads(client(hub, code.replace('"acme/bart"', '"acme/bart", variant="q4"'))) == expected
        graphs = {request.path.rpartition("/")[2] for request in hub.requests if request.path.endswith(".onnx")}
        assert graphs == {"encoder_model_q4.onnx", "decoder_model_q4.onnx", "decoder_with_past_model_q4.onnx"}
