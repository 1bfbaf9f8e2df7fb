"""What is made of a fixed tokenizer: files, pickles, copies, tokenizers for other graphs; and what making one takes."""

import copy
import json
import pickle
from pathlib import Path

import pytest
import transformers

from optimum_fixedshape.errors import ProcessorError
from optimum_fixedshape.processors.text import fix_tokenizer

from . import tiny, words
from .equality import assert_same
from .test_tokenizers_state import CHAT, GROWING, KINDS, LONG, state_of


@pytest.fixture(scope="module")
def ladder(tmp_path_factory):
    return words.ladder_of(tmp_path_factory.mktemp("ladder"))


def files_of(tokenizer, folder):
    tokenizer.save_pretrained(folder)
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_what_the_plain_one_saves(ladder, kind, tmp_path):
    plain, fixed = words.plain(kind), words.fixed(kind, ladder)
    fixed(["a", LONG], truncation=True)
    assert type(fixed.plain()) is type(plain)
    assert state_of(fixed.plain()) == state_of(plain)
    assert files_of(fixed, tmp_path / "ours") == files_of(plain, tmp_path / "theirs")
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours", use_fast=fixed.is_fast)
    assert type(loaded).__name__ == type(plain).__name__
    assert loaded.model_max_length == plain.model_max_length == 512
    assert_same(loaded(["a", LONG]), plain(["a", LONG]))


def test_what_the_user_changed_is_saved(ladder, tmp_path):
    fixed = words.fixed("wordpiece", ladder)
    fixed.model_max_length = 11
    fixed.chat_template = CHAT
    fixed.add_tokens(["hello you"])
    fixed.save_pretrained(tmp_path)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.model_max_length, loaded.chat_template) == (11, CHAT)
    assert "hello you" in loaded.get_added_vocab()


def test_settings_in_the_file_are_kept(ladder, tmp_path):
    """The file of MiniLM says that texts are cut at 128 tokens, which `tokenizers` without transformers obeys."""
    fix_tokenizer(transformers.AutoTokenizer.from_pretrained(tiny.MINILM), ladder).save_pretrained(tmp_path)
    saved, original = (json.loads((folder / "tokenizer.json").read_text()) for folder in (tmp_path, tiny.MINILM))
    assert saved["truncation"]["max_length"] == original["truncation"]["max_length"] == 128
    assert saved["padding"] == original["padding"]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
@pytest.mark.parametrize("kind", GROWING)
def test_copies(ladder, kind, copied):
    fixed = words.fixed(kind, ladder, overflow="truncate")
    expected = fixed(["a", LONG])
    twin = copied(fixed)
    assert type(twin) is type(fixed)
    assert_same(twin(["a", LONG]), expected)
    assert (twin.overflow, twin.ladder, twin.exact_length) == (fixed.overflow, fixed.ladder, fixed.exact_length)
    assert state_of(twin.plain()) == state_of(fixed.plain())
    twin.padding_side = "left"
    assert_same(fixed(["a", LONG]), expected)
    twin.add_tokens(["abc def"])
    shared = copied is copy.copy
    assert ("abc def" in fixed.get_added_vocab()) == shared
    assert fixed.encode("abc def", truncation=True) == fixed.encode("abc def")


@pytest.mark.parametrize("kind", ["wordpiece", "bytes"])
def test_the_class_makes_plain_tokenizers(ladder, kind, tmp_path):
    plain, fixed = words.plain(kind), words.fixed(kind, ladder)
    plain.save_pretrained(tmp_path)
    assert type(type(fixed).from_pretrained(tmp_path)) is type(plain)
    assert type(fixed.from_pretrained(tmp_path)) is type(plain)
    if kind == "bytes":
        assert type(type(fixed)(extra_ids=3)) is type(plain)


def test_training_gives_a_plain_tokenizer(ladder):
    trained = words.fixed("wordpiece", ladder).train_new_from_iterator(tiny.SENTENCES, 200, show_progress=False)
    assert type(trained) is type(words.plain("wordpiece"))
    assert trained.model_max_length == 512
    assert len(trained) <= 200


def test_no_pad_token_is_said_once(ladder):
    plain = words.without_pad()
    with pytest.warns(UserWarning, match=r"has no pad token; padding with '<\|endoftext\|>'\.") as said:
        fixed = fix_tokenizer(plain, ladder)
    assert len(said) == 1
    assert fixed(["a", "b c"], return_tensors="np")["input_ids"][0, -1] == plain.eos_token_id
    assert plain.special_tokens_map.get("pad_token") is None
    assert fixed.special_tokens_map.get("pad_token") is None
    fixed.pad_token = "!"
    assert fixed("a")["input_ids"][-1] == fixed.convert_tokens_to_ids("!")


def test_no_pad_and_no_end_token(ladder):
    rust = copy.deepcopy(words.plain("bpe")._tokenizer)
    rust.no_padding()  # which another test may have set, and which transformers would take its pad token from
    plain = transformers.PreTrainedTokenizerFast(tokenizer_object=rust)
    with pytest.warns(UserWarning, match="padding with '<s>'"):
        fixed = fix_tokenizer(plain, ladder)
    assert fixed("a")["input_ids"][-1] == 0


@pytest.mark.parametrize("kind", GROWING)
def test_a_fixed_tokenizer_can_be_told_of_another_graph(ladder, kind, tmp_path):
    fixed = words.fixed(kind, ladder, overflow="truncate")
    other = words.ladder_of(tmp_path, (32,), inputs=("input_ids",))
    again = words.fix_quietly(fixed, other)
    assert (again.model_max_length, again.model_input_names, again.overflow) == (32, ["input_ids"], "error")
    assert words.lengths_of(again("a")) == [32]
    assert words.lengths_of(fixed("a")) == [8]
    assert state_of(again.plain()) == state_of(words.plain(kind))
    again.add_tokens(["hello you"])
    assert "hello you" not in fixed.get_added_vocab()
    same = words.fix_quietly(again, ladder)
    assert "hello you" in same.get_added_vocab()


def test_what_is_refused(ladder):
    with pytest.raises(ProcessorError, match=r"A tokenizer of transformers is needed, got Tokenizer\."):
        fix_tokenizer(words.plain("bpe")._tokenizer, ladder)
    with pytest.raises(ValueError, match="overflow must be 'error', 'truncate' or 'window', got 'cut'"):
        fix_tokenizer(words.plain("bpe"), ladder, overflow="cut")


def test_creation_takes_next_to_no_memory(ladder):
    def resident():
        pages = Path("/proc/self/statm").read_text().split()[1]
        return int(pages) * 4096 / 2**20

    plain = words.plain("wordpiece")
    kept = [fix_tokenizer(plain, ladder)]
    before = resident()
    kept += [fix_tokenizer(plain, ladder) for _ in range(20)]
    for fixed in kept:
        fixed("a", truncation=True)
    assert (resident() - before) / 20 < 0.5  # MB each; the vocabulary alone is 10
