"""Video processors that know the graph: what the plain one makes of a clip's frames, in the graph's shape."""

import copy
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL.Image
import pytest
import torch
import transformers

from optimum_fixedshape.errors import InvalidInputError, MissingExtraError, ProcessorError, ShapeMismatchError
from optimum_fixedshape.processors.clips import sample_clip
from optimum_fixedshape.processors.video import FixedShapeVideoProcessor, fix_video_processor

from .sounds import clip, ladder_of, served, spec, tone, waves, write_clip, write_sound

VIDEOMAE = getattr(transformers, "VideoMAEImageProcessorPil", transformers.VideoMAEImageProcessor)
VIVIT = transformers.VivitImageProcessor
FRAMES = 8
CLIP = clip(FRAMES)
LONG = clip(21, seed=1)
EVENLY = np.linspace(0, 20, FRAMES, dtype=np.int64)


def load_clip(item):
    """All frames of a clip."""
    return sample_clip(item, lambda frames, rate: range(frames))


def clips_ladder(size=224, *, frames=FRAMES, rows=1, dtype="float32", name="pixel_values", order=None):
    sizes = {"num_frames": frames, "num_channels": 3, "height": size, "width": size}
    roles = {role: sizes[role] for role in order or sizes}
    return ladder_of([spec(name, dtype, batch_size=rows, **roles)])


EVERY = {
    "videomae": VIDEOMAE,
    "timesformer": lambda: VIDEOMAE(image_mean=[0.45, 0.45, 0.45], image_std=[0.225, 0.225, 0.225]),
    "vivit": VIVIT,
}


@pytest.fixture(params=EVERY)
def plain(request):
    return EVERY[request.param]()


def own_call(plain, frames):
    return plain(list(frames), return_tensors="np")["pixel_values"]


def test_a_clip_of_the_graphs_frames_is_the_plain_one(plain):
    fixed = fix_video_processor(plain, clips_ladder())
    wanted = own_call(plain, CLIP)
    items = [
        CLIP,
        CLIP.transpose(0, 3, 1, 2),
        torch.from_numpy(CLIP),
        list(CLIP),
        [PIL.Image.fromarray(f) for f in CLIP],
    ]
    for item in items:
        got = fixed(item, return_tensors="np")
        assert isinstance(got, transformers.BatchFeature)
        assert set(got) == {"pixel_values"}
        assert got["pixel_values"].dtype == np.float32
        np.testing.assert_array_equal(got["pixel_values"], wanted)


def test_longer_clips_are_sampled_evenly(plain):
    fixed = fix_video_processor(plain, clips_ladder())
    got = fixed([LONG, CLIP], return_tensors="pt")["pixel_values"]
    assert isinstance(got, torch.Tensor)
    np.testing.assert_array_equal(got[0], own_call(plain, LONG[EVENLY])[0])
    np.testing.assert_array_equal(got[1], own_call(plain, CLIP)[0])
    assert [row.shape for row in fixed([LONG])["pixel_values"]] == [(FRAMES, 3, 224, 224)]


def test_frames_of_the_graphs_size():
    wanted = own_call(VIDEOMAE(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}), CLIP)
    fixed = fix_video_processor(VIDEOMAE(), clips_ladder(32))
    np.testing.assert_array_equal(fixed(CLIP, return_tensors="np")["pixel_values"], wanted)
    assert fix_video_processor(VIVIT(), clips_ladder(32))(CLIP, return_tensors="np")["pixel_values"].shape[-2:] == (
        32,
        32,
    )


@pytest.mark.parametrize(
    "order",
    [("num_channels", "num_frames", "height", "width"), ("num_frames", "height", "width", "num_channels")],
)
def test_layouts_names_and_dtypes_are_the_graphs_own(plain, order):
    wanted = own_call(plain, CLIP)[0]
    layout = ("num_frames", "num_channels", "height", "width")
    turned = wanted.transpose([layout.index(role) for role in order]).astype(np.float16)
    ladder = clips_ladder(order=order, dtype="float16", name="pixel_values_videos")
    got = fix_video_processor(plain, ladder)(CLIP, return_tensors="np")
    assert set(got) == {"pixel_values_videos"}
    np.testing.assert_array_equal(got["pixel_values_videos"][0], turned)


def test_arguments_of_the_plain_call(plain):
    fixed = fix_video_processor(plain, clips_ladder())
    wanted = plain(list(CLIP), do_normalize=False, return_tensors="np")["pixel_values"]
    for settings in ({"images": CLIP}, {"videos": CLIP}, {"videos": [CLIP], "num_frames": 3, "do_sample_frames": True}):
        got = fixed(**settings, do_normalize=False, return_tensors="np")
        np.testing.assert_array_equal(got["pixel_values"], wanted)
    np.testing.assert_array_equal(
        fixed.preprocess(CLIP, do_normalize=False, return_tensors="np")["pixel_values"], wanted
    )
    assert fixed([], return_tensors="np")["pixel_values"].shape == (0, FRAMES, 3, 224, 224)


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "mpeg4"), ("mkv", "ffv1"), ("avi", "mpeg4")])
def test_files_from_everywhere_are_one_clip(tmp_path, suffix, codec):
    path = write_clip(tmp_path / f"clip.{suffix}", LONG, codec=codec)
    frames = load_clip(path)
    assert frames.shape == LONG.shape
    assert frames.dtype == np.uint8
    if codec == "ffv1":
        np.testing.assert_array_equal(frames, LONG)
    assert np.abs(frames.astype(int) - LONG).mean() < 8
    fixed = fix_video_processor(VIDEOMAE(), clips_ladder())
    wanted = own_call(VIDEOMAE(), frames[EVENLY])
    with served(tmp_path) as url, path.open("rb") as file:
        for item in (path, str(path), path.read_bytes(), file, f"{url}/{path.name}", [path]):
            np.testing.assert_array_equal(fixed(item, return_tensors="np")["pixel_values"], wanted)
    np.testing.assert_array_equal(sample_clip(path, lambda count, rate: [count - 1] if rate == 10 else []), frames[-1:])


def test_a_list_of_image_files_is_a_clip(tmp_path):
    paths = []
    for index, frame in enumerate(CLIP):
        paths.append(tmp_path / f"{index}.png")
        PIL.Image.fromarray(frame).save(paths[-1])
    fixed = fix_video_processor(VIDEOMAE(), clips_ladder())
    np.testing.assert_array_equal(fixed(paths, return_tensors="np")["pixel_values"], own_call(VIDEOMAE(), CLIP))


def test_feeds_are_exact(plain):
    fixed = fix_video_processor(plain, clips_ladder(rows=2))
    feeds = list(fixed.feeds(each for each in (CLIP, LONG, CLIP)))
    assert [feed.rows for feed in feeds] == [2, 1]
    for feed in feeds:
        assert not fixed.ladder.largest.mismatches(feed.arrays)
    np.testing.assert_array_equal(feeds[0].arrays["pixel_values"][1], own_call(plain, LONG[EVENLY])[0])


def test_it_is_of_the_users_class_and_plain_again(plain, tmp_path):
    ladder = clips_ladder(32)
    fixed = fix_video_processor(plain, ladder)
    assert isinstance(fixed, type(plain))
    assert isinstance(fixed, FixedShapeVideoProcessor)
    assert type(fixed).__name__ == type(plain).__name__
    assert type(fixed.plain()) is type(plain)
    assert fixed.plain().to_dict() == plain.to_dict()
    assert vars(fixed.plain()).keys() == vars(plain).keys()
    assert fix_video_processor(fixed, clips_ladder(48)).plain().to_dict() == plain.to_dict()
    assert repr(fixed) == repr(plain)
    for name, processor in (("fixed", fixed), ("plain", plain)):
        processor.save_pretrained(tmp_path / name)
    name = "preprocessor_config.json"
    assert (tmp_path / "fixed" / name).read_text() == (tmp_path / "plain" / name).read_text()
    assert type(type(fixed).from_pretrained(tmp_path / "fixed")) is type(plain)


def test_copies_and_threads_agree(plain):
    fixed = fix_video_processor(plain, clips_ladder(32))
    wanted = fixed(LONG, return_tensors="np")["pixel_values"]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: fixed(LONG, return_tensors="np"), range(8)))
    for each in (copy.deepcopy(fixed), pickle.loads(pickle.dumps(fixed)), copy.copy(fixed)):
        results.append(each(LONG, return_tensors="np"))
        assert each.ladder == fixed.ladder
    for got in results:
        np.testing.assert_array_equal(got["pixel_values"], wanted)


def test_what_is_no_match():
    with pytest.raises(ProcessorError, match="A video processor, or an image processor that takes clips,"):
        fix_video_processor(transformers.Wav2Vec2FeatureExtractor(), clips_ladder())
    with pytest.raises(ProcessorError, match="This graph takes no clips"):
        fix_video_processor(VIDEOMAE(), waves(4000))


def test_frames_that_are_not_resized_to_the_graph():
    fixed = fix_video_processor(VIDEOMAE(do_resize=False, do_center_crop=False), clips_ladder(32))
    with pytest.raises(ShapeMismatchError, match="does not make frames of the graph's size"):
        fixed(CLIP)


def test_a_graph_of_bytes_gets_bytes():
    fixed = fix_video_processor(VIDEOMAE(), clips_ladder(32, dtype="uint8"))
    pixels = fixed(CLIP, return_tensors="np")["pixel_values"]
    assert (pixels.dtype, pixels.shape) == (np.uint8, (1, FRAMES, 3, 32, 32))
    assert pixels.max() > 1


def test_what_is_no_clip(tmp_path):
    (tmp_path / "text.mp4").write_text("no clip")
    whole = write_clip(tmp_path / "whole.mkv", clip(60)).read_bytes()
    cut = write_clip(tmp_path / "cut.mp4", clip(60)).read_bytes()
    listed = write_clip(tmp_path / "listed.mp4", clip(60), movflags="faststart").read_bytes()
    cases = [
        (cut[: len(cut) // 2], "it cannot be read"),
        (CLIP[:5], "ndarray of shape .5, 48, 64, 3.: it has 5 frames, and the graph takes 8"),
        (list(CLIP[:5]), "list of 5: it has 5 frames, and the graph takes 8"),
        (write_clip(tmp_path / "short.mp4", CLIP[:5]), "short.mp4': it has 5 frames, and the graph takes 8"),
        (CLIP[:0], "it has no frames"),
        (tmp_path / "text.mp4", "text.mp4': it cannot be read"),
        (tmp_path / "missing.mp4", "missing.mp4': it cannot be read"),
        (whole[:200], "bytes of 200: it cannot be read"),
        (np.zeros((8, 5, 5, 5), np.uint8), "has no axis of 1, 3 or 4 channels"),
        ([tmp_path / "none.png"] * 8, "a frame cannot be read"),
        ([np.zeros((48, 64))] * 8, "ndarray of shape .48, 64. is not a frame"),
        (write_sound(tmp_path / "sound.wav", tone(4000)), "sound.wav': it has no pictures"),
        (listed[:-99], "it is cut short: 60 frames are promised, and frame 59 is not there"),
        ("http://127.0.0.1:9/none.mp4", "none.mp4': it cannot be read"),
    ]
    fixed = fix_video_processor(VIDEOMAE(), clips_ladder())
    for item, message in cases:
        with pytest.raises(InvalidInputError, match=message) as info:
            fixed([item])
        assert isinstance(info.value, ValueError)
        assert info.value.item
    for item, message in ((np.zeros((8, 5)), "shape .8, 5. is not that of frames"), (None, "None: it has no frames")):
        with pytest.raises(InvalidInputError, match=message):
            load_clip(item)
    assert fixed(CLIP, return_tensors="np")["pixel_values"].shape == (1, FRAMES, 3, 224, 224)


def test_without_the_extra(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "clip.mp4", CLIP)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        MissingExtraError, match=r'needs av, which is not installed: pip install "optimum-fixedshape\[video\]"'
    ):
        load_clip(path)
    assert load_clip(CLIP) is not None
