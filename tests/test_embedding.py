"""`embed`: the vectors of sentence-transformers, by its own formulas in PyTorch, with what a repo states."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
import torch

from optimum_fixedshape import pipeline
from optimum_fixedshape.errors import InputTooLongError, InvalidArgumentError, InvalidModelError, UnsupportedTaskError
from optimum_fixedshape.pooling import MODES, Pooling
from optimum_fixedshape.sentence_config import SentenceConfig, copy_sentence_config

from . import tiny
from .equality import assert_close
from .hub import LocalHub
from .pipes import text_of

PROMPTS = {"prompts": {"query": "the tide: ", "plain": ""}, "default_prompt_name": None}
TEXTS = [*tiny.SENTENCES[:2], "Rain.", ""]


def state(folder, *, modules=("Transformer", "Pooling", "Normalize"), pooling=None, tokens=None, prompts=None):
    """Writes what sentence-transformers writes beside a model."""
    listed = [
        {"idx": index, "path": f"{index}_{name}" if index else "", "type": f"sentence_transformers.models.{name}"}
        for index, name in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling or {"pooling_mode_mean_tokens": True}))
    (folder / "sentence_bert_config.json").write_text(json.dumps(tokens or {"max_seq_length": 12}))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts or PROMPTS))


@pytest.fixture(scope="module")
def pair(exported):
    return exported("feature-extraction")


@pytest.fixture
def stated(pair, tmp_path):
    """Returns ``stated(**facts) -> folder``: the graphs, and what the repo says."""

    def make(**facts):
        folder = tmp_path / "model"
        shutil.copytree(pair.folder, folder, dirs_exist_ok=True)
        state(folder, **facts)
        return folder

    return make


def reference(pair, text, mode="mean", *, skip=0, most=512):
    """The vector of one text, from the features of PyTorch: as the page of sentence-transformers' Pooling says it."""
    encoded = pair.tokenizer(text, return_tensors="pt", truncation=True, max_length=most)
    with torch.no_grad():
        tokens = pair.original(**encoded).last_hidden_state[0]
    weights = torch.arange(1, len(tokens) + 1)[skip:, None].float()
    tokens = tokens[skip:]
    return {
        "cls": lambda: tokens[0],
        "max": lambda: tokens.amax(0),
        "mean": lambda: tokens.mean(0),
        "mean_sqrt_len_tokens": lambda: tokens.sum(0) / len(tokens) ** 0.5,
        "weightedmean": lambda: (tokens * weights).sum(0) / weights.sum(),
        "lasttoken": lambda: tokens[-1],
    }[mode]()


def unit(vector):
    return torch.nn.functional.normalize(vector, dim=-1)


def assert_vectors(ours, theirs, where="vectors"):
    assert ours.dtype == np.float32
    assert ours.shape == (len(theirs), *theirs[0].shape)
    assert_close(ours, torch.stack(theirs).numpy(), tolerance=1e-5, where=where)


def test_vectors_at_every_length_in_every_slot(pair, stated):
    pipe = pipeline("feature-extraction", model=stated())
    texts = [text_of(length, pair.tokenizer) for length in (2, 7, 8, 9, 15, 16, 3, 8)]
    theirs = [unit(reference(pair, text)) for text in texts]
    assert_vectors(pickle.loads(pickle.dumps(pipe)).embed(texts), theirs)
    assert_vectors(pipe.embed(texts), theirs)
    assert_vectors(pipe.embed(text for text in texts), theirs)
    assert_vectors(pipe.embed(texts * 100), theirs * 100)  # more than are run at once
    assert_vectors(pipe.embed(texts[1])[None], theirs[1:2])
    assert pipe.embed([]).shape == (0, 32)
    pipe.lean = False
    assert_vectors(pipe.embed(texts), theirs)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode(pair, stated, mode):
    pipe = pipeline(
        "feature-extraction", model=stated(modules=("Transformer", "Pooling"), pooling={"pooling_mode": mode})
    )
    theirs = [reference(pair, text, mode) for text in TEXTS]
    assert_vectors(pipe.embed(TEXTS), theirs, mode)
    assert_vectors(pipe.embed(TEXTS, normalize=True), list(map(unit, theirs)), mode)
    switched = {"pooling_mode_mean_tokens": False, key_of(mode): True}
    again = pipeline("feature-extraction", model=stated(modules=("Transformer", "Pooling"), pooling=switched))
    assert_vectors(again.embed(TEXTS), theirs, mode)


def key_of(mode):
    return f"pooling_mode_{mode}" + (
        "" if mode.endswith(("_tokens", "lasttoken")) else "_token" if mode == "cls" else "_tokens"
    )


def test_several_modes_stand_side_by_side(pair, stated):
    switches = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}
    pipe = pipeline("feature-extraction", model=stated(pooling=switches))
    theirs = [unit(torch.cat([reference(pair, text, mode) for mode in ("cls", "mean")])) for text in TEXTS]
    assert_vectors(pipe.embed(TEXTS), theirs)
    assert pipe.embed([]).shape == (0, 64)
    assert_vectors(pipe.embed(TEXTS, pooling=["cls", "mean"]), theirs)


def test_padding_on_either_side_does_not_count():
    features = np.random.default_rng(0).standard_normal((3, 6, 4)).astype(np.float32)
    for lengths, flip in (([6, 2, 4], False), ([6, 2, 4], True)):
        mask = np.arange(6) < np.array(lengths)[:, None]
        mask = mask[:, ::-1] if flip else mask
        for modes in [*((mode,) for mode in MODES), tuple(MODES)]:
            pool = Pooling(modes, include_prompt=False)
            alone = [
                pool(row[None, real], real[real][None], prompt_tokens=1)
                for row, real in zip(features, mask, strict=True)
            ]
            np.testing.assert_allclose(pool(features, mask, prompt_tokens=1), np.concatenate(alone), atol=1e-6)


def test_prompts(pair, stated):
    folder = stated(prompts={**PROMPTS, "default_prompt_name": "query"})
    pipe = pipeline("feature-extraction", model=folder)
    asked = [unit(reference(pair, "the tide: " + text)) for text in TEXTS[2:]]
    plain = [unit(reference(pair, text)) for text in TEXTS[2:]]
    assert_vectors(pipe.embed(TEXTS[2:]), asked)
    assert_vectors(pipe.embed(TEXTS[2:], prompt_name="query"), asked)
    assert_vectors(pipe.embed(TEXTS[2:], prompt="the tide: "), asked)
    assert_vectors(pipe.embed(TEXTS[2:], prompt_name="plain"), plain)
    assert_vectors(pipe.embed(TEXTS[2:], prompt=""), plain)
    with pytest.raises(InvalidArgumentError, match=r"no prompt called 'passage'\. It has: 'query', 'plain'"):
        pipe.embed("Rain.", prompt_name="passage")


@pytest.mark.parametrize("mode", MODES)
def test_a_prompt_that_does_not_count(pair, stated, mode):
    pipe = pipeline("feature-extraction", model=stated(pooling={"pooling_mode": mode, "include_prompt": False}))
    skip = len(pair.tokenizer("the tide: ")["input_ids"]) - 1
    theirs = [unit(reference(pair, "the tide: " + text, mode, skip=skip)) for text in TEXTS[2:]]
    assert_vectors(pipe.embed(TEXTS[2:], prompt_name="query"), theirs)
    assert_vectors(pipe.embed(TEXTS[2:]), [unit(reference(pair, text, mode)) for text in TEXTS[2:]])


def test_nothing_is_cut_unless_somebody_says_so(pair, stated):
    folder = stated()
    short, middle, long = (text_of(length, pair.tokenizer) for length in (5, 14, 30))
    pipe = pipeline("feature-extraction", model=folder)
    with pytest.raises(InputTooLongError, match="Item 602 has sequence_length 30") as caught:
        pipe.embed([short] * 602 + [long])
    assert caught.value.index == 602
    assert_vectors(pipe.embed([middle]), [unit(reference(pair, middle))])
    cut = pipeline("feature-extraction", model=folder, overflow="truncate")
    texts = [long, short, middle]
    assert_vectors(cut.embed(texts), [unit(reference(pair, text, most=12)) for text in texts])  # max_seq_length
    (folder / "sentence_bert_config.json").unlink()
    cut = pipeline("feature-extraction", model=folder, overflow="truncate")
    assert_vectors(cut.embed(texts), [unit(reference(pair, text, most=16)) for text in texts])  # the largest rung


def test_windows_give_a_vector_of_the_whole_text(pair, stated):
    long = text_of(30, pair.tokenizer)
    pipe = pipeline("feature-extraction", model=stated(), overflow="window")
    features = np.array(pipe(long)[0])
    assert features.shape == (30, 32)
    ours = pipe.embed([long, "Rain."])
    assert_vectors(ours, [unit(torch.tensor(features.mean(0), dtype=torch.float32)), unit(reference(pair, "Rain."))])


def test_texts_in_lower_case(pair, stated):
    pipe = pipeline("feature-extraction", model=stated(tokens={"max_seq_length": 12, "do_lower_case": True}))
    assert_vectors(pipe.embed(["LATE Trams"]), [unit(reference(pair, "late trams"))])


def test_another_model_states_its_own(pair, stated, tmp_path):
    pipe = pipeline("feature-extraction", model=stated(modules=("Transformer", "Pooling")))
    assert_vectors(pipe.embed(TEXTS), [reference(pair, text) for text in TEXTS])
    other = shutil.copytree(stated(modules=("Transformer", "Pooling"), pooling={"pooling_mode": "max"}), tmp_path / "o")
    pipe.model = pipeline("feature-extraction", model=other).model
    assert_vectors(pipe.embed(TEXTS), [reference(pair, text, "max") for text in TEXTS])


def test_a_repo_that_says_nothing_needs_a_word(pair):
    pipe = pipeline("feature-extraction", model=pair.folder)
    with pytest.raises(InvalidArgumentError, match=r"no modules.json. Pass pooling= .* or put the original's"):
        pipe.embed(TEXTS)
    assert_vectors(pipe.embed(TEXTS, pooling="cls"), [reference(pair, text, "cls") for text in TEXTS])
    with pytest.raises(InvalidArgumentError, match=r"pooling must be of cls, .*, got 'median'"):
        pipe.embed(TEXTS, pooling="median")
    with pytest.raises(InvalidArgumentError, match="got none"):
        pipe.embed(TEXTS, pooling=[])


@pytest.mark.parametrize(
    ("modules", "named"),
    [
        (("Transformer", "Pooling", "Dense", "Normalize"), "Dense is not computed here"),
        (("Transformer", "Normalize", "Pooling"), "this order is not computed here"),
        (("WordEmbeddings", "Pooling"), "WordEmbeddings is not computed here"),
    ],
)
def test_a_module_that_is_not_computed_is_named(pair, stated, modules, named):
    pipe = pipeline("feature-extraction", model=stated(modules=modules))
    with pytest.raises(UnsupportedTaskError, match=f"{', '.join(modules)}, and {named}"):
        pipe.embed(TEXTS)
    assert_vectors(pipe.embed(TEXTS, pooling="mean"), [reference(pair, text) for text in TEXTS])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("modules.json", "{"),
        ("modules.json", '[{"type": 1}]'),
        ("modules.json", "7"),
        ("1_Pooling/config.json", "[]"),
        ("1_Pooling/config.json", '{"pooling_mode": "median"}'),
        ("sentence_bert_config.json", "[1]"),
        ("config_sentence_transformers.json", '{"prompts": 7}'),
    ],
)
def test_broken_files_are_named(stated, name, content):
    folder = stated()
    (folder / name).write_text(content)
    with pytest.raises(InvalidModelError, match=r"modules.json, or a file that it names"):
        SentenceConfig.from_folder(folder)


def test_a_graph_without_features_is_refused(exported):
    pipe = pipeline("feature-extraction", model=exported("text-classification").folder)
    with pytest.raises(UnsupportedTaskError, match=r"gives no features for each token .* its outputs are logits: "):
        pipe.embed(TEXTS, pooling="mean")


def test_a_missing_part_is_named(stated):
    folder = stated()
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(InvalidModelError, match=r"1_Pooling/config.json is missing"):
        SentenceConfig.from_folder(folder)


def test_nothing_is_read_or_copied_from_outside(stated, tmp_path):
    folder = stated()
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = "../1_Pooling"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InvalidModelError, match="is no folder of a module"):
        SentenceConfig.from_folder(folder)
    (tmp_path / "secret.json").write_text("{}")
    (folder / "1_Pooling" / "config.json").unlink()
    (folder / "1_Pooling" / "config.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(InvalidModelError, match="a link to somewhere else"):
        copy_sentence_config(folder, tmp_path / "copy")


def test_what_a_repo_states_is_saved_with_the_model(pair, stated, tmp_path):
    pipe = pipeline("feature-extraction", model=stated())
    pipe.save_pretrained(tmp_path / "saved")
    again = pipeline("feature-extraction", model=tmp_path / "saved")
    assert again.sentence_config == pipe.sentence_config
    np.testing.assert_array_equal(again.embed(TEXTS), pipe.embed(TEXTS))


def test_the_real_minilm_states_what_it_states(tmp_path):
    copy_sentence_config(tiny.MINILM, tmp_path)
    assert SentenceConfig.from_folder(tmp_path) == SentenceConfig(
        ("Transformer", "Pooling", "Normalize"), Pooling(("mean",), normalize=True), max_tokens=256
    )
    copied = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.json"))
    own = ["config_sentence_transformers.json", "modules.json", "sentence_bert_config.json"]
    assert copied == ["1_Pooling/config.json", *own]


def test_a_repo_on_the_hub(stated, tmp_path):
    repos = tmp_path / "repos"
    shutil.copytree(stated(), repos / "my-org" / "sentences-fixed")
    with LocalHub(repos) as hub:
        hub.run(
            "from pathlib import Path\n"
            "from optimum_fixedshape import pipeline\n"
            "from optimum_fixedshape.sentence_config import SentenceConfig, copy_sentence_config\n"
            "pipe = pipeline('feature-extraction', model='my-org/sentences-fixed')\n"
            "assert pipe.embed(['Rain.', 'Snow.']).shape == (2, 32)\n"
            "Path('copy').mkdir()\n"
            "copy_sentence_config('my-org/sentences-fixed', Path('copy'))\n"
            "assert SentenceConfig.from_folder('copy') == pipe.sentence_config\n",
            HF_TOKEN=hub.token,
        )
