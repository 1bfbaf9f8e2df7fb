"""Models on a Hub: loaded, looked into and pushed by real clients, each in a process of its own."""

from __future__ import annotations

import json
import shutil

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
    return hub.run(PRELUDE + "".join(line.removeprefix("        ") + "\n" for line in code.splitlines()), **env)


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


def test_pushing(hub, root):
    """Both forms of `push_to_hub`, and `save_pretrained`'s, each loaded back."""
    client(
        hub,
        """
        model = Model.from_pretrained("acme/fixed")
        before = model(IDS).logits
        model.save_pretrained("here")
        AutoTokenizer.from_model(model).save_pretrained("here")
        url = model.push_to_hub("here", "new/one", private=True)
        assert "/new/one/" in url, url
        assert "/new/two/" in model.push_to_hub("new/two", commit_message="Two")
        assert "/new/three/" in model.push_to_hub(repo_id="new/three")
        model.save_pretrained("folder", push_to_hub=True, repository_id="new/four")
        model.save_pretrained("named", push_to_hub=True)
        for repo in ("new/one", "new/two", "new/three", "new/four", "tester/named"):
            again = Model.from_pretrained(repo)
            assert len(again.ladder) == 2
            assert np.array_equal(again(IDS).logits, before)
        assert pipeline("text-classification", model="new/one")("No.")[0]["label"]
        """,
        HF_TOKEN=hub.token,
    )
    assert "new/one" in hub.private
    assert {path.name for path in (root / "new" / "two").iterdir()} == {
        *("config.json", "fixedshape_config.json", "model.onnx", "model.onnx_data", "model_2x8.onnx"),
    }


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
