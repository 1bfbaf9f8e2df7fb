"""Pushing: one commit, large files through LFS, and a model card whose code runs."""

from __future__ import annotations

import json
import re
import shutil
import textwrap

import onnx
import pytest
import yaml

from optimum_fixedshape.card import MARK, model_card
from optimum_fixedshape.models.pushing import _report_on
from optimum_fixedshape.sessions import CPU
from optimum_fixedshape.tasks import TASKS, find_task

from . import pictures
from .hub import LocalHub

LFS = ["*.onnx", "*.onnx_data"]
PRELUDE = """
import shutil, warnings
from pathlib import Path
from huggingface_hub import HfApi, hf_hub_download
from optimum_fixedshape import AutoTokenizer, ORTModelForSequenceClassification as Model, pipeline

def card_of(repo, **options):
    return Path(hf_hub_download(repo, "README.md", **options)).read_text()
"""


@pytest.fixture
def hub(exported, tmp_path):
    """A Hub with a repo of graphs, and the repo that they came from."""
    root = tmp_path / "hub"
    shutil.copytree(exported("text-classification").folder, root / "acme" / "fixed")
    saved = json.loads((root / "acme" / "fixed" / "fixedshape_config.json").read_text())
    (root / "acme" / "fixed" / "fixedshape_config.json").write_text(json.dumps({**saved, "original": "acme/torch"}))
    (root / "acme" / "torch").mkdir()
    (root / "acme" / "torch" / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: en\n---\n# Torch\n")
    with LocalHub(root, lfs=LFS) as hub:
        yield hub


def client(hub, code):
    return hub.run(PRELUDE + textwrap.dedent(code), HF_TOKEN=hub.token)


def front_matter(card):
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card, re.S)[1])


def code_of(card):
    return "\n".join(re.findall(r"^```python\n(.*?)^```", card, re.M | re.S))


def commits(hub, repo):
    return [each.path for each in hub.requests if each.path.startswith(f"/api/models/{repo}/commit/")]


def test_a_push_is_one_commit_with_a_card_whose_code_runs(hub):
    client(
        hub,
        """
        model = Model.from_pretrained("acme/fixed")
        model.save_pretrained("here")
        AutoTokenizer.from_model(model).save_pretrained("here")
        url = model.push_to_hub("here", "new/one", commit_message="First", tags=["boats"])
        assert url.endswith("/new/one/commit/" + HfApi().model_info("new/one").sha), url
        """,
    )
    assert len(commits(hub, "new/one")) == 1
    uploaded = [each for each in hub.requests if each.method == "PUT"]
    assert len(uploaded) == 3  # two graphs and their weights: by LFS
    card = (hub.root / "new" / "one" / "README.md").read_text()
    facts = front_matter(card)
    assert facts.pop("tags") == ["onnx", "fixed-shape", "optimum-fixedshape", "boats"]
    assert facts == {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "base_model": "acme/torch",
        "license": "apache-2.0",
    }
    assert MARK in card
    assert "| `model.onnx` | batch_size 2<br>sequence_length 16 | `input_ids: int64[2, 16]`" in card
    assert "| `model_2x8.onnx` | batch_size 2<br>sequence_length 8 |" in card
    assert re.search(r"Largest difference from the original, measured on random inputs: \d\.\de-0\d", card)
    assert "Weights: those of the original. Outputs: float32." in card
    assert re.search(r"`check_model` on CPUExecutionProvider: \*\*(pass|warning)\*\*", card), card
    assert "| slots | pass |" in card
    # The code of the card, ours and transformers', as it stands.
    printed = client(hub, f"import torch\n{code_of(card)}\nprint(pipe('Any text that the largest graph holds.'))")
    ours, theirs = printed.splitlines()[-2:]
    assert ours == theirs
    assert "label" in ours


def test_a_second_push_writes_the_card_anew_and_loads_no_file_up_twice(hub):
    client(
        hub,
        """
        model = Model.from_pretrained("acme/fixed")
        model.push_to_hub("new/one", check=False)
        before = card_of("new/one")
        assert "Not checked." in before
        first = HfApi().model_info("new/one").sha
        model.save_pretrained("here")
        model.push_to_hub("here", "new/one", tags=["more"], check=False)
        assert "- more" in card_of("new/one") and HfApi().model_info("new/one").sha != first
        """,
    )
    assert len([each for each in hub.requests if each.method == "PUT"]) == 3


def test_a_card_that_a_person_wrote_stays(hub):
    client(
        hub,
        """
        model = Model.from_pretrained("acme/fixed")
        api = HfApi()
        api.create_repo("new/mine")
        api.upload_file(
            repo_id="new/mine", path_or_fileobj=b"---\\nlicense: mit\\n---\\nMine.", path_in_repo="README.md"
        )
        model.push_to_hub("new/mine", check=False)
        assert card_of("new/mine").endswith("Mine.")
        model.save_pretrained("ours")
        model.push_to_hub("ours", "new/ours", check=False)
        model.push_to_hub("ours", "new/mine", check=False, ignore_patterns="*.txt")
        assert card_of("new/mine").endswith("Mine.") and "new/ours" in Path("ours/README.md").read_text()

        model.save_pretrained("theirs")
        Path("theirs/README.md").write_text("---\\nlicense: mit\\n---\\nMine, in the folder.")
        model.push_to_hub("theirs", "new/theirs", check=False)
        assert card_of("new/theirs").endswith("Mine, in the folder.")

        # What transformers writes for a tokenizer is nobody's own.
        AutoTokenizer.from_pretrained("acme/fixed").push_to_hub("new/words")
        assert "model_2x8.onnx" not in card_of("new/words")
        model.push_to_hub("new/words", check=False)
        assert "model_2x8.onnx" in card_of("new/words")
        AutoTokenizer.from_pretrained("acme/fixed").push_to_hub("new/words")
        assert "model_2x8.onnx" in card_of("new/words")
        assert pipeline("text-classification", model="new/words")("No.")[0]["label"]
        """,
    )


def test_arguments_of_transformers(hub):
    client(
        hub,
        """
        model = Model.from_pretrained("acme/fixed")
        names = {"max_shard_size": "5GB", "safe_serialization": True, "use_temp_dir": True, "check": False}
        model.save_pretrained("here", push_to_hub=True, repo_id="new/two", private=True, token="hf_write", **names)
        model.save_pretrained("here", push_to_hub=True, repo_id="new/two", revision="v2", commit_message="V", **names)
        model.save_pretrained("named", push_to_hub=True, check=False)
        model.save_pretrained("folder", push_to_hub=True, repository_id="new/four", check=False)
        for repo, branch in (("new/two", None), ("new/two", "v2"), ("tester/named", None), ("new/four", None)):
            assert len(Model.from_pretrained(repo, revision=branch).ladder) == 2
        assert "new/two" in card_of("new/two", revision="v2")
        url = model.push_to_hub("new/three", create_pr=True, commit_description="Why", **names)
        assert HfApi().list_repo_files("new/three", revision="refs/pr/1")
        assert HfApi().list_repo_files("new/three") == []
        pipe = pipeline("text-classification", model="acme/fixed")
        pipe.save_pretrained("whole", push_to_hub=True, repo_id="new/whole", check=False)
        pipe.push_to_hub("new/pushed")
        for repo in ("new/whole", "new/pushed"):
            assert pipeline(model=repo)("No.") == pipe("No.")
        """,
    )
    assert "new/two" in hub.private


def test_graphs_that_are_not_safe_are_uploaded_with_a_warning(hub):
    path = hub.root / "acme" / "fixed" / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    reader = next(node for node in model.graph.node if "attention_mask" in node.input)
    reader.input[list(reader.input).index("attention_mask")] = "ones"  # padding is read like words
    model.graph.initializer.append(onnx.helper.make_tensor("ones", onnx.TensorProto.INT64, [2, 16], [1] * 32))
    onnx.save(model, path)
    client(
        hub,
        """
        model = Model.from_pretrained("acme/fixed")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            model.push_to_hub("new/broken")
        (told,) = [str(each.message) for each in said if "check_model" in str(each.message)]
        assert "not safe to use" in told and "new/broken" not in told, told
        assert "**fail**" in card_of("new/broken")
        """,
    )


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.name}-{task.model}")
def test_the_code_of_every_card_is_code(task, exported):
    card = model_card(exported("text-classification").folder, "acme/some", task=task)
    compile(code_of(card), "card", "exec")
    assert (task.model if "Seq2SeqLM" in task.model else "acme/some") in code_of(card)


def test_the_code_of_a_card_for_images_runs(specimen, tmp_path):
    folder = tmp_path / "hub" / "acme" / "vit"
    shutil.copytree(specimen("vit").folder, folder)
    card = model_card(folder, "acme/vit", task=find_task("image-classification"), report="Not checked.")
    with LocalHub(tmp_path / "hub") as hub:
        picture = f"from PIL import Image\nImage.open({str(tmp_path / 'picture.png')!r}).save('picture.png')\n"
        pictures.picture().save(tmp_path / "picture.png")
        assert "label" in hub.run(picture + code_of(card))


def test_names_of_tensors_stay_in_their_cells(tmp_path):
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["a|b\n# `c`<br>"], ["y"])],
            "g",
            [onnx.helper.make_tensor_value_info("a|b\n# `c`<br>", onnx.TensorProto.FLOAT, [1, 4])],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4])],
        )
    )
    onnx.save(model, tmp_path / "model.onnx")
    card = model_card(tmp_path, "acme/odd", task=None)
    assert "`a\\|b # 'c'&lt;br>: float32[1, 4]`" in card
    assert front_matter(card)["library_name"] == "optimum-fixedshape"


def test_graphs_that_cannot_be_checked_are_uploaded_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="The graphs are uploaded unchecked: "):
        assert _report_on(tmp_path, CPU).startswith("The check could not run: ")
