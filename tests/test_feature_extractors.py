"""Feature extractors that know the graph: what the plain one makes of each sound, in the graph's shape."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

from optimum_fixedshape.errors import InputTooLongError, InvalidInputError, ProcessorError, ShapeMismatchError
from optimum_fixedshape.padding import audio_padding_matters
from optimum_fixedshape.processors.audio import (
    FixedShapeFeatureExtractor,
    default_feature_extractor,
    fix_feature_extractor,
)
from optimum_fixedshape.processors.sounds import load_sound

from .sounds import RATE, ladder_of, spec, tone, waves, write_sound

pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")  # AST's own filters

SHORT, LONG = tone(3000), tone(7000, pitch=300, seed=1)
WAVE2VEC = transformers.Wav2Vec2FeatureExtractor


def whisper_ladder(frames, bins=80, rows=1):
    return ladder_of([spec("input_features", "float32", batch_size=rows, feature_size=bins, nb_max_frames=frames)])


def ast_ladder(frames=128, bins=128):
    return ladder_of([spec("input_values", "float32", batch_size=1, nb_max_frames=frames, feature_size=bins)])


def clap_ladder(frames=1001, channels=1, *, longer=True):
    sound = spec("input_features", "float32", audio_batch_size=1, _=channels, nb_max_frames=frames, feature_size=64)
    return ladder_of([sound, *([spec("is_longer", "bool", audio_batch_size=1, _=1)] if longer else [])])


def bert_ladder(frames=40, bins=160):
    return ladder_of(
        [
            spec("input_features", "float32", batch_size=1, nb_max_frames=frames, feature_size=bins),
            spec("attention_mask", "int64", batch_size=1, nb_max_frames=frames),
        ]
    )


EVERY = {
    "wav2vec2": (WAVE2VEC, waves(4000, 8000, mask=True)),
    "hubert": (lambda: WAVE2VEC(do_normalize=False, return_attention_mask=False), waves(4000, 8000)),
    "whisper": (transformers.WhisperFeatureExtractor, whisper_ladder(100)),
    "whisper with other filters": (transformers.WhisperFeatureExtractor, whisper_ladder(100, bins=128)),
    "ast": (transformers.ASTFeatureExtractor, ast_ladder()),
    "ast with other filters": (transformers.ASTFeatureExtractor, ast_ladder(bins=64)),
    "clap": (lambda: transformers.ClapFeatureExtractor(truncation="rand_trunc"), clap_ladder(51)),
    "wav2vec2-bert": (transformers.SeamlessM4TFeatureExtractor, bert_ladder()),
}


@pytest.fixture(params=EVERY)
def pair(request):
    make, ladder = EVERY[request.param]
    plain = make()
    return plain, fix_feature_extractor(plain, ladder), ladder


def own_call(plain, sound, **settings):
    return plain(sound, sampling_rate=plain.sampling_rate, return_tensors="np", **settings)


def same_state(one, other):
    assert type(one) is type(other)
    assert vars(one).keys() == vars(other).keys()
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)


@pytest.mark.parametrize("normalizes", [True, False])
@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_waveform_is_the_plain_one_padded_to_the_smallest_rung(normalizes, mask, side):
    plain = WAVE2VEC(do_normalize=normalizes, return_attention_mask=mask, padding_side=side, padding_value=0.5)
    fixed = fix_feature_extractor(plain, waves(4000, 8000, mask=mask))
    for sounds, size in (([SHORT], 4000), ([SHORT, LONG], 8000), ([tone(8000)], 8000)):
        got = fixed(sounds, return_tensors="np")
        assert isinstance(got, transformers.BatchFeature)
        assert set(got) == ({"input_values", "attention_mask"} if mask else {"input_values"})
        assert got["input_values"].shape == (len(sounds), size)
        assert got["input_values"].dtype == np.float32
        for i, sound in enumerate(sounds):
            real = slice(0, len(sound)) if side == "right" else slice(size - len(sound), size)
            np.testing.assert_array_equal(got["input_values"][i, real], own_call(plain, sound)["input_values"][0])
            rest = np.delete(got["input_values"][i], np.arange(size)[real])
            assert (rest == 0.5).all()
            if mask:
                assert got["attention_mask"].dtype == np.int64
                assert got["attention_mask"][i, real].all()
                assert got["attention_mask"][i].sum() == len(sound)


def test_exact_lengths_come_back_as_they_are():
    plain = WAVE2VEC()
    fixed = fix_feature_extractor(plain, waves(4000, mask=True), exact_length=True, overflow="window")
    got = fixed(LONG, sampling_rate=RATE, return_tensors="pt")
    assert isinstance(got["input_values"], torch.Tensor)
    np.testing.assert_array_equal(got["input_values"], own_call(plain, LONG)["input_values"])
    assert got["attention_mask"].shape == (1, 7000)
    assert [len(row) for row in fixed([SHORT, LONG])["input_values"]] == [3000, 7000]
    assert fixed(SHORT, padding=True, return_tensors="np")["input_values"].shape == (1, 4000)


def test_padding_that_the_call_asks_for():
    fixed = fix_feature_extractor(WAVE2VEC(), waves(4000, 8000))
    lengths = {False: 3000, "do_not_pad": 3000, True: 4000, "longest": 4000, "max_length": 8000}
    for padding, length in lengths.items():
        got = fixed(SHORT, padding=padding, max_length=5000 if padding == "max_length" else None, return_tensors="np")
        assert got["input_values"].shape == (1, length)


@pytest.mark.parametrize("overflow", ["error", "window"])
def test_too_long_a_waveform(overflow):
    fixed = fix_feature_extractor(WAVE2VEC(), waves(4000), overflow=overflow)
    with pytest.raises(InputTooLongError, match="Sound 1 has audio_sequence_length 7000, and the largest rung") as info:
        fixed([SHORT, LONG])
    facts = info.value
    assert (facts.index, facts.size, facts.limit, facts.axis) == (1, 7000, 4000, "audio_sequence_length")
    assert fixed(SHORT, return_tensors="np")["input_values"].shape == (1, 4000)


def test_a_cut_comes_before_the_normalization():
    plain = WAVE2VEC()
    wanted = own_call(plain, LONG[:4000])["input_values"]
    for fixed, settings in (
        (fix_feature_extractor(plain, waves(4000), overflow="truncate"), {}),
        (fix_feature_extractor(plain, waves(4000)), {"truncation": True}),
    ):
        np.testing.assert_array_equal(fixed(LONG, return_tensors="np", **settings)["input_values"], wanted)
    cut = fixed(LONG, truncation=True, max_length=2000, return_tensors="np")["input_values"]
    np.testing.assert_array_equal(cut[:, :2000], own_call(plain, LONG[:2000])["input_values"])
    with pytest.raises(InputTooLongError, match="7000"):
        fix_feature_extractor(plain, waves(4000), overflow="truncate")(LONG, truncation=False)


@pytest.mark.parametrize(("frames", "chunk"), [(3000, 30), (1000, 10)])
def test_whisper(frames, chunk):
    plain = transformers.WhisperFeatureExtractor(chunk_length=chunk)
    fixed = fix_feature_extractor(transformers.WhisperFeatureExtractor(), whisper_ladder(frames))
    assert (fixed.nb_max_frames, fixed.n_samples, fixed.chunk_length) == (frames, chunk * RATE, chunk)
    got = fixed([SHORT, LONG], return_tensors="np")["input_features"]
    for row, sound in zip(got, (SHORT, LONG), strict=True):
        np.testing.assert_array_equal(row, own_call(plain, sound)["input_features"][0])


def test_errors_of_transformers_pass():
    fixed = fix_feature_extractor(transformers.WhisperFeatureExtractor(), whisper_ladder(1000))
    with pytest.raises(ValueError, match=r"nonsense'? is not a valid PaddingStrategy"):
        fixed(SHORT, padding="nonsense", return_tensors="np")


def test_whisper_cuts_as_its_own_extractor_does_and_no_more():
    plain, sound = transformers.WhisperFeatureExtractor(), tone(31 * RATE)
    got = fix_feature_extractor(plain, whisper_ladder(3000))(sound, return_tensors="np")["input_features"]
    np.testing.assert_array_equal(got, own_call(plain, sound)["input_features"])
    with pytest.raises(InputTooLongError, match="nb_max_frames 3000, and the largest rung holds 1000"):
        fix_feature_extractor(plain, whisper_ladder(1000))(sound)
    short = fix_feature_extractor(plain, whisper_ladder(1000), overflow="truncate")(sound, return_tensors="np")
    wanted = own_call(transformers.WhisperFeatureExtractor(chunk_length=10), sound)
    np.testing.assert_array_equal(short["input_features"], wanted["input_features"])


def test_the_mask_of_a_spectrogram_counts_its_frames():
    sizes = {"batch_size": 1, "nb_max_frames": 100}
    sound = whisper_ladder(100).largest.inputs[0]
    fixed = fix_feature_extractor(
        transformers.WhisperFeatureExtractor(), ladder_of([sound, spec("attention_mask", "int64", **sizes)])
    )
    plain = transformers.WhisperFeatureExtractor(chunk_length=1)
    wanted = own_call(plain, SHORT, return_attention_mask=True)["attention_mask"]
    np.testing.assert_array_equal(fixed(SHORT, return_tensors="np")["attention_mask"], wanted)
    mask = ladder_of([*ast_ladder().largest.inputs, spec("attention_mask", "int64", batch_size=1, nb_max_frames=128)])
    got = fix_feature_extractor(transformers.ASTFeatureExtractor(), mask)(SHORT, return_tensors="np")
    np.testing.assert_array_equal(got["attention_mask"], np.ones((1, 128)))


def test_filters_are_made_again_where_the_graph_takes_others():
    wanted = transformers.WhisperFeatureExtractor(feature_size=128, chunk_length=1)
    fixed = fix_feature_extractor(transformers.WhisperFeatureExtractor(), whisper_ladder(100, bins=128))
    got = fixed(SHORT, return_tensors="np")["input_features"]
    np.testing.assert_array_equal(got, own_call(wanted, SHORT)["input_features"])


@pytest.mark.parametrize("bins", [128, 64])
def test_ast(bins):
    plain = transformers.ASTFeatureExtractor(max_length=128, num_mel_bins=bins)
    fixed = fix_feature_extractor(transformers.ASTFeatureExtractor(), ast_ladder(bins=bins))
    got = fixed([SHORT, LONG], return_tensors="np")["input_values"]
    for row, sound in zip(got, (SHORT, LONG), strict=True):
        np.testing.assert_array_equal(row, own_call(plain, sound)["input_values"][0])
    with pytest.raises(InputTooLongError, match="nb_max_frames 1024"):
        fixed(tone(20 * RATE))
    own = transformers.ASTFeatureExtractor()
    whole = fix_feature_extractor(own, ast_ladder(1024))(tone(20 * RATE), return_tensors="np")["input_values"]
    np.testing.assert_array_equal(whole, own_call(own, tone(20 * RATE))["input_values"])


@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
@pytest.mark.parametrize("padding", ["repeatpad", "repeat", "pad"])
def test_clap(truncation, padding):
    plain = transformers.ClapFeatureExtractor(truncation=truncation, padding=padding)
    fixed = fix_feature_extractor(plain, clap_ladder(channels=4 if truncation == "fusion" else 1))
    for sound in (tone(50000), tone(480000), tone(500000)):
        np.random.seed(0)  # the plain extractor draws from it
        wanted = own_call(plain, sound)
        np.random.seed(0)
        got = fixed(sound, return_tensors="np")
        np.testing.assert_array_equal(got["input_features"], wanted["input_features"].astype(np.float32))
        np.testing.assert_array_equal(got["is_longer"], wanted["is_longer"])


def test_clap_in_other_sizes():
    own = transformers.ClapFeatureExtractor(truncation="rand_trunc")
    fixed = fix_feature_extractor(own, clap_ladder(501, longer=False))
    wanted = own_call(transformers.ClapFeatureExtractor(truncation="rand_trunc", max_length_s=5), tone(50000))
    got = fixed(tone(50000), return_tensors="np")
    assert set(got) == {"input_features"}
    np.testing.assert_array_equal(got["input_features"], wanted["input_features"].astype(np.float32))
    assert fixed(tone(50000), padding="pad", return_tensors="np")["input_features"].shape == (1, 1, 501, 64)
    with pytest.raises(InputTooLongError, match="nb_max_frames 1001"):
        fixed(tone(500000))
    assert fixed(tone(500000), truncation=True, return_tensors="np")["input_features"].shape == (1, 1, 501, 64)
    with pytest.raises(ShapeMismatchError, match="does not belong to this graph"):
        fix_feature_extractor(transformers.ClapFeatureExtractor(), clap_ladder(501))(tone(50000))


def test_frames_as_many_as_the_sound_has():
    plain = transformers.SeamlessM4TFeatureExtractor(padding_value=0.25)
    fixed = fix_feature_extractor(plain, bert_ladder(), exact_length=True)
    for sound in (SHORT, tone(5000)):
        wanted, got = own_call(plain, sound), fixed(sound, return_tensors="np")
        real = wanted["input_features"].shape[1]
        np.testing.assert_array_equal(got["input_features"][:, :real], wanted["input_features"])
        np.testing.assert_array_equal(got["attention_mask"][:, :real], wanted["attention_mask"])
        assert got["input_features"].shape == (1, 40, 160)
        assert (got["input_features"][:, real:] == 0.25).all()
        assert not got["attention_mask"][:, real:].any()
    with pytest.raises(InputTooLongError, match="nb_max_frames 62, and the largest rung holds 40"):
        fixed(tone(20000))
    cut = fixed(tone(20000), truncation=True, return_tensors="np")["input_features"]
    np.testing.assert_array_equal(cut, own_call(plain, tone(20000))["input_features"][:, :40])


def test_dtypes_and_names_are_the_graphs_own():
    plain = WAVE2VEC()
    fixed = fix_feature_extractor(plain, waves(3000, dtype="float16", name="input.1"))
    for tensors in ("np", "pt"):
        got = fixed(SHORT, return_tensors=tensors)["input.1"]
        assert str(got.dtype).endswith("float16")
        np.testing.assert_array_equal(got, own_call(plain, SHORT)["input_values"].astype(np.float16))


def test_a_spectrogram_that_lies_the_other_way_round():
    frames_first = ladder_of([spec("input_features", "float32", batch_size=1, nb_max_frames=100, feature_size=80)])
    got = fix_feature_extractor(transformers.WhisperFeatureExtractor(), frames_first)(SHORT, return_tensors="np")
    wanted = own_call(transformers.WhisperFeatureExtractor(chunk_length=1), SHORT)["input_features"]
    np.testing.assert_array_equal(got["input_features"], wanted.swapaxes(1, 2))


def test_roles_guessed_the_wrong_way_round():
    guessed = ladder_of([spec("input_features", "float32", batch_size=1, nb_max_frames=80, feature_size=50)])
    fixed = fix_feature_extractor(transformers.WhisperFeatureExtractor(), guessed)
    assert fixed(SHORT, return_tensors="np")["input_features"].shape == (1, 80, 50)


def test_a_free_graph_takes_any_length():
    fixed = fix_feature_extractor(WAVE2VEC(), waves(None, rows=None, mask=True))
    got = fixed([SHORT, LONG], return_tensors="np")
    assert got["input_values"].shape == (2, 7000)
    assert got["attention_mask"].sum(-1).tolist() == [3000, 7000]


def test_no_sounds_give_no_rows(pair):
    _, fixed, ladder = pair
    sound = next(iter(fixed([], return_tensors="np").values()))
    assert sound.shape[0] == 0
    assert sound.shape[2:] == tuple(axis.size for axis in ladder.largest.inputs[0].axes[2:])


def test_feeds_are_exact(pair):
    _, fixed, ladder = pair
    feeds = list(fixed.feeds(tone(length, seed=length) for length in (3000, 3500, 3200)))
    assert len(feeds) == 3
    for feed, length in zip(feeds, (3000, 3500, 3200), strict=True):
        assert not ladder.rungs[0].mismatches(feed.arrays)
        wanted = fixed(tone(length, seed=length), return_tensors="np")
        for name, array in feed.arrays.items():
            np.testing.assert_array_equal(array, wanted[name])


def test_feeds_fill_the_batch():
    fixed = fix_feature_extractor(WAVE2VEC(), waves(4000, rows=2, mask=True), exact_length=True)
    feeds = list(fixed.feeds([SHORT, SHORT, SHORT]))
    assert [feed.rows for feed in feeds] == [2, 1]
    assert all(not fixed.ladder.largest.mismatches(feed.arrays) for feed in feeds)
    with pytest.raises(InputTooLongError, match="Sound 3 has"):
        list(fixed.feeds([SHORT, SHORT, SHORT, LONG]))


def test_it_is_of_the_users_class_and_plain_again(pair, tmp_path):
    plain, fixed, ladder = pair
    assert isinstance(fixed, (type(plain), FixedShapeFeatureExtractor))
    assert isinstance(fixed, type(plain))
    assert type(fixed).__name__ == type(plain).__name__
    same_state(fixed.plain(), plain)
    same_state(fix_feature_extractor(fixed, ladder, overflow="truncate").plain(), plain)
    assert repr(fixed) == repr(plain)
    fixed.save_pretrained(tmp_path / "fixed")
    plain.save_pretrained(tmp_path / "plain")
    name = "preprocessor_config.json"
    assert (tmp_path / "fixed" / name).read_text() == (tmp_path / "plain" / name).read_text()
    same_state(type(fixed).from_pretrained(tmp_path / "fixed"), type(plain).from_pretrained(tmp_path / "plain"))


def test_copies_and_threads_agree(pair):
    _, fixed, _ = pair
    wanted = fixed(SHORT, return_tensors="np")
    with ThreadPoolExecutor(4) as pool:
        in_threads = list(pool.map(lambda _: fixed(SHORT, return_tensors="np"), range(8)))
    copies = [copy.deepcopy(fixed), pickle.loads(pickle.dumps(fixed)), copy.copy(fixed)]
    for got in [*in_threads, *(each(SHORT, return_tensors="np") for each in copies)]:
        assert got.keys() == wanted.keys()
        for name in wanted:
            np.testing.assert_array_equal(got[name], wanted[name])
    assert copies[1].ladder == fixed.ladder


def test_what_is_no_match():
    with pytest.raises(ProcessorError, match="A feature extractor of transformers is needed, got str"):
        fix_feature_extractor("facebook/wav2vec2-base", waves(4000))
    with pytest.raises(ProcessorError, match="makes input_values with 1 features, but the graph takes"):
        fix_feature_extractor(WAVE2VEC(), whisper_ladder(100))
    with pytest.raises(ProcessorError, match="WhisperFeatureExtractor makes input_features"):
        fix_feature_extractor(transformers.WhisperFeatureExtractor(), waves(4000))
    with pytest.raises(ProcessorError, match="with 160 features, but the graph takes"):
        fix_feature_extractor(transformers.SeamlessM4TFeatureExtractor(), bert_ladder(bins=80))
    with pytest.raises(ProcessorError, match="This graph takes no sound"):
        fix_feature_extractor(WAVE2VEC(), ladder_of([spec("input_ids", "int64", batch_size=1, sequence_length=8)]))
    with pytest.raises(ValueError, match="overflow must be 'error', 'truncate' or 'window', got 'cut'"):
        fix_feature_extractor(WAVE2VEC(), waves(4000), overflow="cut")


def test_the_default_for_a_bare_graph():
    with pytest.warns(UserWarning, match=r"without a feature extractor: using Wav2Vec2FeatureExtractor\(sampling_rate"):
        fixed = default_feature_extractor(waves(4000))
    got = fixed(SHORT, return_tensors="np")["input_values"]
    np.testing.assert_array_equal(got[:, :3000], own_call(WAVE2VEC(), SHORT)["input_values"])
    with pytest.raises(ProcessorError, match="Pass feature_extractor="):
        default_feature_extractor(whisper_ladder(100))


def test_when_padding_matters():
    group, layer = SimpleNamespace(feat_extract_norm="group"), SimpleNamespace(feat_extract_norm="layer")
    assert "normalizes over the whole" in audio_padding_matters(waves(4000, mask=True), group)
    assert "takes no attention_mask" in audio_padding_matters(waves(4000), layer)
    assert audio_padding_matters(waves(4000, mask=True), layer) is None
    assert audio_padding_matters(waves(4000, mask=True), None) is None
    assert audio_padding_matters(waves(None), group) is None
    assert audio_padding_matters(whisper_ladder(100), None) is None


def test_a_call_takes_files_and_arrays_at_another_rate(tmp_path):
    fixed = fix_feature_extractor(WAVE2VEC(), waves(4000))
    low = tone(1500, rate=8000)
    path = write_sound(tmp_path / "low.wav", low, 8000, subtype="FLOAT")
    wanted = fixed(load_sound({"array": low, "sampling_rate": 8000}, RATE), return_tensors="np")["input_values"]
    for sounds, settings in (
        (low, {"sampling_rate": 8000}),
        ([low], {"sampling_rate": 8000}),
        (low[None], {"sampling_rate": 8000}),
        (low.tolist(), {"sampling_rate": 8000}),
        (torch.from_numpy(low), {"sampling_rate": 8000}),
        (str(path), {"sampling_rate": RATE}),
        ([path], {}),
    ):
        got = fixed(sounds, return_tensors="np", **settings)["input_values"]
        assert got.shape == (1, 4000)
        np.testing.assert_array_equal(got, wanted)
    with path.open("rb") as file:
        np.testing.assert_array_equal(fixed(file, return_tensors="np")["input_values"], wanted)
    np.testing.assert_array_equal(fixed(raw_speech=[path], return_tensors="np")["input_values"], wanted)
    np.testing.assert_array_equal(fixed(audio=[path], return_tensors="np")["input_values"], wanted)


def test_columns_of_datasets(tmp_path):
    import datasets

    path = write_sound(tmp_path / "sound.wav", SHORT, subtype="FLOAT")
    column = datasets.Dataset.from_dict({"audio": [str(path), str(path)]}).cast_column(
        "audio", datasets.Audio(decode=False)
    )["audio"]
    fixed = fix_feature_extractor(WAVE2VEC(), waves(4000))
    wanted = fixed([SHORT, SHORT], return_tensors="np")["input_values"]
    for sounds in (column, list(column), iter(column)):
        np.testing.assert_array_equal(fixed(sounds, return_tensors="np")["input_values"], wanted)


def test_a_failed_call_leaves_everything_usable():
    fixed = fix_feature_extractor(WAVE2VEC(), waves(4000))
    with pytest.raises(InvalidInputError, match="samples that are NaN"):
        fixed([SHORT, np.full(10, np.nan, np.float32)])
    assert fixed(SHORT, return_tensors="np")["input_values"].shape == (1, 4000)
