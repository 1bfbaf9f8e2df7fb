"""Sounds from anywhere: files, URLs, bytes and arrays give the same samples, and what is no sound says why."""

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from optimum_fixedshape.errors import InvalidInputError, MissingExtraError
from optimum_fixedshape.processors.sounds import load_sound

from .sounds import RATE, served, tone, write_sound

SHORT = tone(3000)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_files_from_everywhere_are_one_sound(tmp_path, rate, suffix):
    import soundfile
    import soxr

    path = write_sound(tmp_path / f"sound.{suffix}", tone(rate // 4, rate=rate), rate)
    samples, _ = soundfile.read(path, dtype="float32")
    wanted = samples if rate == RATE else soxr.resample(samples, rate, RATE)
    with served(tmp_path) as url, path.open("rb") as file:
        items = [path, str(path), path.read_bytes(), file, f"{url}/{path.name}", {"path": str(path), "bytes": None}]
        items += [{"bytes": path.read_bytes(), "path": None}, {"array": samples, "sampling_rate": rate}]
        items += [{"raw": samples.tolist(), "sampling_rate": rate}, io.BytesIO(path.read_bytes())]
        for item in items:
            got = load_sound(item, RATE)
            assert got.dtype == np.float32
            np.testing.assert_array_equal(got, wanted)


def test_channels_and_types_of_samples(tmp_path):
    left, right = tone(3000), tone(3000, seed=4)
    both = np.stack([left, right])
    mean = both.mean(0, dtype=np.float32)
    path = write_sound(tmp_path / "both.wav", both.T, subtype="FLOAT")
    for item in (both, both.T, path, torch.from_numpy(both), [left, right], {"array": both.T, "sampling_rate": RATE}):
        np.testing.assert_array_equal(load_sound(item, RATE), mean)
    np.testing.assert_array_equal(load_sound(left.astype(np.float64), RATE), left)
    np.testing.assert_array_equal(load_sound(np.array([-32768, 0, 16384], np.int16), RATE), [-1, 0, 0.5])
    np.testing.assert_array_equal(load_sound(np.array([0, 128, 192], np.uint8), RATE), [-1, 0, 0.5])
    decoded = SimpleNamespace(get_all_samples=lambda: SimpleNamespace(data=torch.from_numpy(both), sample_rate=RATE))
    np.testing.assert_array_equal(load_sound(decoded, RATE), mean)


def test_what_is_no_sound(tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    empty = write_sound(tmp_path / "empty.wav", np.zeros(0, np.float32))
    whole = write_sound(tmp_path / "whole.flac", tone(40000)).read_bytes()
    wav = write_sound(tmp_path / "whole.wav", tone(40000)).read_bytes()
    cases = [
        (np.zeros(0, np.float32), "ndarray of shape .0,.: it has no samples"),
        (empty, "empty.wav': it has no samples"),
        (np.array([0, np.nan], np.float32), "samples that are NaN or infinite"),
        ([0.0, float("inf")], "samples that are NaN or infinite"),
        (tmp_path / "text.wav", "text.wav': it cannot be read"),
        (tmp_path / "missing.wav", "missing.wav': it cannot be read"),
        (whole[: len(whole) // 2], "bytes of"),
        (wav[: len(wav) // 2], "it is cut short"),
        (b"", "bytes of 0: it cannot be read"),
        (None, "None: NoneType is neither a file nor samples"),
        ({"words": "none"}, "a dict needs 'array' or 'raw' with 'sampling_rate'"),
        ({"array": SHORT, "sampling_rate": 0}, "sampling_rate must be a whole number of Hz above 0, got 0"),
        ({"array": SHORT, "sampling_rate": "high"}, "sampling_rate must be a whole number of Hz above 0, got 'high'"),
        ({"array": SHORT[:1], "sampling_rate": 192_000}, "its 1 samples at 192000 Hz are none at 16000 Hz"),
        (np.zeros((2, 3, 4), np.float32), "is neither .samples,. nor .channels, samples."),
        (np.array(["a", "b"]), "its samples are <U1, not numbers"),
        ([[0.0, 1.0], [0.0]], "its channels have different lengths"),
        ("http://127.0.0.1:9/none.wav", "none.wav': it cannot be read"),
    ]
    for item, message in cases:
        with pytest.raises(InvalidInputError, match=message) as info:
            load_sound(item, RATE)
        assert isinstance(info.value, ValueError)
        assert info.value.item


@pytest.mark.parametrize(("package", "rate"), [("soundfile", RATE), ("soxr", 8000)])
def test_without_the_extra(tmp_path, monkeypatch, package, rate):
    path = write_sound(tmp_path / "sound.wav", SHORT, rate)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        MissingExtraError, match=r'needs so\w+, which is not installed: pip install "optimum-fixedshape\[audio\]"'
    ) as info:
        load_sound(path, RATE)
    assert info.value.extra == "audio"
    assert len(load_sound(SHORT, RATE)) == 3000
