"""What a fixed tokenizer is: the user's own class, with a state of its own that saves as if nothing had happened."""

import copy

import pytest
import tokenizers
import transformers

from optimum_fixedshape.processors.text import FixedShapeTokenizer, fix_tokenizer

from . import words
from .equality import assert_same

KINDS = words.FAST + words.SLOW
GROWING = [kind for kind in KINDS if kind != "characters"]  # which lists all of Unicode for every token that is added
CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
MESSAGES = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "good day"}]
LONG = " ".join("abcdefghijklmnopqrstuvwxyz")


@pytest.fixture(scope="module")
def ladder(tmp_path_factory):
    return words.ladder_of(tmp_path_factory.mktemp("ladder"))


def state_of(tokenizer):
    """All that a tokenizer is, as plain types."""
    state = {name: _plainly(value) for name, value in tokenizer.__dict__.items() if name != "_tokenizer"}
    rust = tokenizer.__dict__.get("_tokenizer")
    return {**state, "rust": rust and rust.to_str(), "class": type(tokenizer).__name__}


def _plainly(value):
    """transformers' own objects have no equality: their attributes have."""
    if type(value).__module__.startswith("transformers"):
        return {name: _plainly(each) for name, each in vars(value).items()}
    return value if isinstance(value, set) else repr(value)


@pytest.mark.parametrize("kind", KINDS)
def test_the_class_is_the_users_own(ladder, kind):
    plain = words.plain(kind)
    fixed = words.fixed(kind, ladder)
    assert isinstance(fixed, type(plain))
    assert isinstance(fixed, FixedShapeTokenizer)
    assert type(fixed) is not type(plain)
    for name in ("__name__", "__module__", "__doc__", "vocab_files_names"):
        assert getattr(type(fixed), name) == getattr(type(plain), name)
    assert type(fixed) is type(words.fixed(kind, ladder, overflow="truncate"))
    assert hasattr(fixed, "backend_tokenizer") is hasattr(plain, "backend_tokenizer") is fixed.is_fast
    assert repr(fixed).split("(")[0] == repr(plain).split("(")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_every_other_method_is_the_plain_one(ladder, kind):
    plain, fixed = words.plain(kind), words.fixed(kind, ladder)
    ids = plain.encode(LONG)
    calls = {
        "encode": [
            (("hello you",), {}),
            ((LONG,), {"verbose": False}),
            ((LONG, "b"), {"truncation": True, "max_length": 9}),
        ],
        "tokenize": [(("hello you",), {})],
        "decode": [((ids,), {}), ((ids,), {"skip_special_tokens": True})],
        "batch_decode": [(([ids, ids[:4]],), {"skip_special_tokens": True})],
        "convert_ids_to_tokens": [((ids,), {}), ((ids[1],), {}), ((ids,), {"skip_special_tokens": True})],
        "convert_tokens_to_ids": [((plain.tokenize("hello you"),), {})],
        "convert_tokens_to_string": [((plain.tokenize("hello you"),), {})],
        "get_vocab": [((), {})] if kind != "characters" else [],  # all of Unicode
        "get_added_vocab": [((), {})],
        "num_special_tokens_to_add": [((), {}), ((True,), {})],
        "get_special_tokens_mask": [((ids,), {"already_has_special_tokens": True})],
        "apply_chat_template": [
            ((MESSAGES,), {"chat_template": CHAT, "tokenize": False}),
            ((MESSAGES[:1],), {"chat_template": CHAT, "return_dict": True}),
        ],
    }
    if not words.ON_5:
        calls["encode_plus"] = [(("hello you",), {}), ((LONG, "b"), {"truncation": True, "max_length": 9})]
        calls["batch_encode_plus"] = [((["hello", "you"],), {}), (([("a", "b")],), {"return_tensors": "np"})]
    for name, several in calls.items():
        for args, kwargs in several:
            if name == "apply_chat_template" and kwargs.get("return_dict"):
                kwargs = {**kwargs, "truncation": True, "max_length": 16}
            ours, theirs = getattr(fixed, name)(*args, **kwargs), getattr(plain, name)(*args, **kwargs)
            assert ours == theirs if name == "get_vocab" else assert_same(ours, theirs, tolerance=0) is None
    for name in ("vocab_size", "is_fast", "all_special_ids", "special_tokens_map", "padding_side", "name_or_path"):
        assert getattr(fixed, name) == getattr(plain, name)
    assert len(fixed) == len(plain)
    assert fixed.model_max_length == 16
    assert fixed.encode(LONG, truncation=True) == plain.encode(LONG, truncation=True, max_length=16)


def test_a_chat_is_padded_when_asked_to(ladder):
    fixed, plain = words.fixed("wordpiece", ladder), words.plain("wordpiece")
    kwargs = {"chat_template": CHAT, "return_dict": True}
    theirs = plain.apply_chat_template(MESSAGES, padding="max_length", max_length=8, **kwargs)
    assert_same(fixed.apply_chat_template(MESSAGES, padding=True, **kwargs), theirs)


def change_everything(tokenizer):
    tokenizer.add_tokens(["hello you"])
    tokenizer.add_special_tokens({"cls_token": "<new>"})
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    tokenizer.model_max_length = 7
    tokenizer.model_input_names.append("new")
    tokenizer.init_kwargs["new"] = 1
    tokenizer.chat_template = CHAT
    if tokenizer.is_fast:
        rust = tokenizer.backend_tokenizer
        rust.enable_truncation(3)
        rust.enable_padding(length=5)
        rust.decoder = tokenizers.decoders.Fuse()
        if getattr(rust.normalizer, "lowercase", None):
            rust.normalizer.lowercase = False
        rust.normalizer = tokenizers.normalizers.Strip()


@pytest.mark.parametrize("kind", GROWING)
def test_neither_changes_the_other(ladder, kind):
    plain = copy.deepcopy(words.plain(kind))
    before = state_of(plain)
    fixed = words.fix_quietly(plain, ladder)
    own = state_of(fixed)
    fixed(["a", LONG], truncation=True, padding_side="left", return_tensors="np")
    fixed.pad({"input_ids": [[1], [1, 2]]})
    plain_calls = plain("a b", truncation=True, max_length=3)
    plain = copy.deepcopy(words.plain(kind))
    fixed = words.fix_quietly(plain, ladder)
    change_everything(fixed)
    assert state_of(plain) == before
    assert_same(plain("a b", truncation=True, max_length=3), plain_calls)

    plain = copy.deepcopy(words.plain(kind))
    fixed = words.fix_quietly(plain, ladder)
    change_everything(plain)
    assert {**state_of(fixed), "_backends": ""} == {**own, "_backends": ""}
    assert_same(fixed("hello you"), words.fixed(kind, ladder)("hello you"))


@pytest.mark.parametrize("kind", GROWING)
def test_added_tokens_count_at_once(ladder, kind):
    fixed, plain = words.fixed(kind, ladder), copy.deepcopy(words.reference(kind))
    how = {"truncation": True, "max_length": 16}
    texts = ["hello you <end> hello", LONG]
    fixed(texts, truncation=True)  # fills the cache of Rust tokenizers
    for tokenizer in (fixed, plain):
        assert tokenizer.add_tokens(["hello you"]) == 1
    assert_same(fixed(texts, truncation=True), plain(texts, padding="max_length", **how))
    for tokenizer in (fixed, plain):
        tokenizer.add_special_tokens({"additional_special_tokens": ["<end>"]})
    assert_same(fixed(texts, truncation=True), plain(texts, padding="max_length", **how))
    assert fixed.convert_tokens_to_ids("<end>") in fixed(texts[0])["input_ids"]
    assert fixed.encode(texts[0]) == plain.encode(texts[0])


def test_changes_of_the_rust_tokenizer_count_at_once(ladder):
    fixed, plain = words.fixed("wordpiece", ladder), words.fixed("wordpiece", ladder).plain()
    fixed("One two", truncation=True)
    template = tokenizers.processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 101)])
    for tokenizer in (fixed, plain):
        tokenizer._tokenizer.post_processor = template
    assert_same(fixed("One two", truncation=True), plain("One two", padding="max_length", max_length=8))
    for tokenizer in (fixed, plain):
        tokenizer.backend_tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=False)
    assert_same(fixed("One two", truncation=True), plain("One two", padding="max_length", max_length=8))
    assert fixed.unk_token_id in fixed("One two")["input_ids"]


def test_special_tokens_can_be_split(ladder):
    fixed, plain = words.fixed("wordpiece", ladder), words.fixed("wordpiece", ladder).plain()
    for split in (True, False, True):
        for truncation in (True, False):
            ours = fixed("a [SEP] b", split_special_tokens=split, truncation=truncation)
            assert_same(
                ours,
                plain("a [SEP] b", split_special_tokens=split, padding="max_length", max_length=8),
            )
    fixed.split_special_tokens = plain.split_special_tokens = True
    assert_same(fixed("a [SEP]"), plain("a [SEP]", padding="max_length", max_length=8))


class Bilingual(transformers.PreTrainedTokenizerFast):
    """As mBART and NLLB do it: a template for each language, set in every call."""

    def _template(self, end):
        token = (end, self.convert_tokens_to_ids(end))
        self._tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"$A {end}", special_tokens=[token]
        )

    def _switch_to_input_mode(self):
        self._template("<mask>")

    def _switch_to_target_mode(self):
        self._template("</s>")


def test_templates_that_change_in_every_call(ladder):
    plain = Bilingual(tokenizer_object=words.plain("bpe")._tokenizer, pad_token="<pad>", model_max_length=64)
    plain.model_input_names = ["input_ids", "attention_mask"]
    fixed = fix_tokenizer(plain, ladder)
    for truncation in (False, True, False):
        ours = fixed(["a", "b c"], text_target=["c", "d"], truncation=truncation)
        assert_same(ours, plain(["a", "b c"], text_target=["c", "d"], padding="max_length", max_length=8))
        assert ours["input_ids"][0][1] == plain.convert_tokens_to_ids("<mask>")
        assert ours["labels"][0][1] == plain.convert_tokens_to_ids("</s>")
