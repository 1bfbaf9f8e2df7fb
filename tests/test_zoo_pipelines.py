"""From the raw image, sound or clip to the pipeline's answer: transformers' own, field by field."""

from __future__ import annotations

import copy
import functools

import av
import numpy as np
import PIL.Image
import pytest
import soundfile
import torch
import transformers
from transformers.modeling_outputs import QuestionAnsweringModelOutput

from optimum_fixedshape import pipeline
from optimum_fixedshape.errors import ProcessorError
from optimum_fixedshape.pipelines.processors import KINDS
from optimum_fixedshape.processors.combined import parts_of
from optimum_fixedshape.tasks import REGISTRY_PREFIX, find_task

from . import zoo
from .equality import assert_same

RATE = 1000
TOLERANCE = 1e-3
SEEING = [name for name, kind in zoo.ZOO.items() if find_task(kind.task).modality == "image"]
SPEAKING = ("wav2vec2", "hubert")
HEARING = ("wav2vec2-classes", "ast", "whisper-encoder")
PAIRING = ("clip", "siglip", "blip")


def picture(width, height, seed=0):
    """A picture with structure at several scales."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)
    return PIL.Image.fromarray(small).resize((width, height), PIL.Image.Resampling.BICUBIC)


def tone(samples, seed=0):
    """A sound that changes all the time."""
    time = np.arange(samples) / RATE
    noise = np.random.default_rng(seed).standard_normal(samples)
    return (np.sin(2 * np.pi * (40 + 100 * time) * time) + 0.3 * noise).astype(np.float32)


def write_clip(path, frames, size=(48, 36)):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_image(picture(*size, seed=number))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


class Two:
    """Our pipeline on the graphs, and transformers' on the PyTorch model."""

    def __init__(self, pair):
        parts = {"tokenizer": None} | parts_of(pair.tokenizer)
        self.theirs = transformers.pipeline(pair.task, model=pair.original, device=-1, **parts)
        self.ours = pipeline(pair.task, model=str(pair.folder))

    def assert_same(self, inputs, theirs=None, tolerance=TOLERANCE, **arguments):
        with torch.no_grad():
            expected = self.theirs(inputs if theirs is None else theirs, **arguments)
        assert_same(self.ours(inputs, **arguments), expected, tolerance=tolerance)


@pytest.fixture(scope="module")
def two(specimen):
    return functools.cache(lambda name: Two(specimen(name)))


DETR = {"shortest_edge": 64, "longest_edge": 96}
PICTURES = [picture(40, 30), picture(32, 32, 1), picture(100, 50, 2), picture(20, 90, 3), picture(64, 96, 4)]
ARGUMENTS = {
    "image-classification": [{}, {"top_k": 1}, {"function_to_apply": "sigmoid"}],
    "object-detection": [{"threshold": 0.0}, {"threshold": 0.4}],
    "image-segmentation": [{}, {"subtask": "semantic"}],
    "depth-estimation": [{}],
    "image-feature-extraction": [{}, {"pool": True}, {"return_tensors": True}],
}


@pytest.mark.parametrize(
    ("name", "arguments"), [(name, each) for name in SEEING for each in ARGUMENTS[zoo.ZOO[name].task]], ids=str
)
def test_pictures(two, name, arguments, tmp_path):
    pair = two(name)
    if name == "detr":  # padded, as the original pads images of several sizes in one batch
        pair.theirs.image_processor = zoo.image_processor("Detr", size=DETR, pad_size={"height": 96, "width": 96})
    pair.assert_same(PICTURES, **arguments)
    pair.assert_same(PICTURES[2], **arguments)
    PICTURES[0].save(tmp_path / "picture.png")
    pair.assert_same(str(tmp_path / "picture.png"), **arguments)
    assert pair.ours([], **arguments) == []


def test_boxes_on_padded_images_are_those_of_the_image(two):
    """Padding shows at its seam, in PyTorch, too: the original sees each image alone, at its own size."""
    pair = two("detr")
    pair.theirs.image_processor = zoo.processor("detr")
    for image in PICTURES:
        with torch.no_grad():
            expected = pair.theirs(image, threshold=0.0)
        for ours, theirs in zip(pair.ours(image, threshold=0.0), expected, strict=True):
            assert abs(ours["score"] - theirs["score"]) < 0.15
            for edge, place in theirs["box"].items():
                assert abs(ours["box"][edge] - place) <= 0.1 * max(image.size)


@pytest.mark.parametrize("name", HEARING)
@pytest.mark.parametrize("arguments", [{}, {"top_k": 1}, {"function_to_apply": "none"}], ids=str)
def test_sounds(two, name, arguments):
    pair = two(name)
    lengths = (500, 799, 800, 801, 1600) if name.startswith("wav") else (4000, 16000, 20000)
    sounds = [tone(length, seed) for seed, length in enumerate(lengths)]
    pair.assert_same(sounds, **arguments)
    pair.assert_same(sounds[0], **arguments)


def test_sounds_from_files_at_other_rates(two, tmp_path):
    """transformers wants ffmpeg or torchaudio for these: its answer to the sound as we load it is the measure."""
    pair = two("wav2vec2-classes")
    stereo = np.stack([tone(1500), tone(1500, 1)], 1)
    soundfile.write(tmp_path / "stereo.wav", stereo, RATE, subtype="FLOAT")
    pair.assert_same(str(tmp_path / "stereo.wav"), theirs=stereo.mean(1))
    for asked in ({"raw": stereo.mean(1), "sampling_rate": RATE}, (tmp_path / "stereo.wav").read_bytes()):
        pair.assert_same(asked, theirs=stereo.mean(1))


@pytest.mark.parametrize("name", SPEAKING)
@pytest.mark.parametrize("arguments", [{}, {"return_timestamps": "char"}, {"return_timestamps": "word"}], ids=str)
def test_speech_up_to_the_largest_rung(two, name, arguments):
    pair = two(name)
    for length in (500, 800, 1234, 1600):
        pair.assert_same(tone(length), **arguments)


@pytest.mark.parametrize("name", SPEAKING)
@pytest.mark.parametrize("arguments", [{}, {"return_timestamps": "char"}, {"return_timestamps": "word"}], ids=str)
@pytest.mark.parametrize("length", [1601, 3200, 5000, 7777])
def test_longer_speech_is_cut_as_transformers_cuts_it(two, name, arguments, length):
    pair = two(name)
    expected = pair.theirs(tone(length), chunk_length_s=zoo.SAMPLES[-1] / RATE, **arguments)
    assert_same(pair.ours(tone(length), **arguments), expected)
    pair.assert_same([tone(length), tone(length, 1)], chunk_length_s=1.2, stride_length_s=(0.2, 0.1), **arguments)


@pytest.mark.parametrize("name", SPEAKING)
def test_speech_whose_ends_do_not_count(two, name):
    def sound():  # transformers takes fields out of it
        return {"raw": tone(1200), "sampling_rate": RATE, "stride": (160, 80)}

    two(name).assert_same(sound(), theirs=sound())


def test_what_is_no_picture_is_refused_in_the_words_of_transformers(two):
    pair = two(SEEING[0])
    with pytest.raises(TypeError, match="Incorrect format used for image") as theirs:
        pair.theirs(3)
    with pytest.raises(TypeError, match="Incorrect format used for image") as ours:
        pair.ours(3)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("name", ["videomae", "timesformer"])
def test_clips(two, name, tmp_path):
    pair = two(name)
    clips = [write_clip(tmp_path / f"{frames}.mp4", frames) for frames in (4, 9, 16)]
    for clip in clips:
        pair.assert_same(clip)
    pair.assert_same(clips, top_k=1)
    pair.assert_same(clips[1:], frame_sampling_rate=2)


LABELS = ["a cat", "two dogs on a beach", "rain", "a bridge", "the tram"]


@pytest.mark.parametrize("name", PAIRING)
@pytest.mark.parametrize("labels", [1, 2, 3, 5])
def test_any_number_of_labels_and_images(two, name, labels):
    pair = two(name)
    for images in (1, 2, 3, 5):
        pair.assert_same(PICTURES[:images], candidate_labels=LABELS[:labels])
    pair.assert_same(PICTURES[0], candidate_labels=LABELS[:labels], hypothesis_template="{}?")


def test_images_with_the_same_labels_share_runs(two):
    pipe = two("clip").ours
    images, head = pipe.towers.parts.items, pipe.towers.parts.head
    before = [sum(rung.runs for rung in part.stats) for part in (images, head)]
    pipe(PICTURES[:4], candidate_labels=LABELS[:3])
    after = [sum(rung.runs for rung in part.stats) for part in (images, head)]
    assert [now - then for now, then in zip(after, before, strict=True)] == [2, 1]  # two images a run


@pytest.mark.parametrize("labels", [1, 2, 5])
def test_any_number_of_labels_and_sounds(two, labels):
    pair = two("clap")
    sounds = [np.tile(tone(2000, seed), 4)[:length] for seed, length in enumerate((3000, 8000, 5000))]
    for count in (1, 3):
        pair.assert_same(sounds[:count], candidate_labels=LABELS[:labels])


_SAID = ["Pay", "42", "to", "the", "harbour", "master", "by", "noon"]
WORDS = [(word, [40 * i, 30 * i, 40 * i + 39, 30 * i + 25]) for i, word in enumerate(_SAID)]
PAGE = {"image": picture(60, 80), "question": "How much?", "word_boxes": WORDS}


@pytest.mark.parametrize(
    "arguments", [{}, {"top_k": 3}, {"max_answer_len": 2}, {"handle_impossible_answer": True}], ids=str
)
def test_answers_on_pages(two, arguments):
    pair = two("layoutlm")
    pair.assert_same(PAGE, **arguments)
    pair.assert_same([PAGE, PAGE | {"question": "Who?"}], **arguments)
    pair.assert_same(PAGE | {"word_boxes": WORDS * 12}, **arguments)


def test_answers_on_pages_with_pixels(specimen):
    """transformers hands LayoutLMv3 its pixels by the wrong name, and stumbles over the patches behind the tokens."""
    pair = specimen("layoutlmv3")
    original = copy.deepcopy(pair.original)
    answer = original.forward

    def forward(image, **inputs):
        output = answer(pixel_values=image, **inputs)
        tokens = inputs["input_ids"].shape[1]
        return QuestionAnsweringModelOutput(
            start_logits=output.start_logits[:, :tokens], end_logits=output.end_logits[:, :tokens]
        )

    original.forward = forward
    theirs = transformers.pipeline(pair.task, model=original, device=-1, **parts_of(pair.tokenizer))
    ours = pipeline(pair.task, model=pair.folder)
    for words in (WORDS[:3], WORDS, WORDS * 9):
        with torch.no_grad():
            expected = theirs(PAGE | {"word_boxes": words}, top_k=3)
        assert_same(ours(PAGE | {"word_boxes": words}, top_k=3), expected, tolerance=TOLERANCE)


ONE_EACH = ("vit", "detr", "segformer", "dpt", "vit-encoder", "ast", "wav2vec2", "videomae", "clip", "clap", "layoutlm")


@pytest.mark.parametrize("name", ONE_EACH)
def test_transformers_builds_our_pipelines(specimen, name, tmp_path, caplog):
    """Under our keys from the folder alone; and under its own keys it takes our models, and logs nothing about them."""
    pair = specimen(name)
    asked = {
        "image": (PICTURES[0],),
        "audio": (tone(700),),
        "video": (write_clip(tmp_path / "clip.mp4", 6),),
        "multimodal": (PAGE,),
    }[find_task(pair.task).modality]
    labels = {"candidate_labels": LABELS[:2]} if name in ("clip", "clap") else {}
    asked = {"clip": (PICTURES[0],), "clap": (tone(3000),), "wav2vec2": (tone(700),)}.get(name, asked)
    ours = pipeline(pair.task, model=pair.folder)
    expected = ours(*asked, **labels)
    caplog.clear()
    keyed = transformers.pipeline(REGISTRY_PREFIX + pair.task, model=str(pair.folder))
    assert type(keyed) is type(ours)
    assert_same(keyed(*asked, **labels), expected)
    stock = transformers.pipeline(pair.task, model=ours.model, **{"tokenizer": None, **parts_of(pair.tokenizer)})
    if name not in ("detr", "layoutlm"):  # whose processors do not know the graph's size
        assert_same(stock(*asked, **labels), expected, tolerance=TOLERANCE)
    if name not in ("detr", "segformer"):  # whose stock pipelines ask a copy of a list, to which nobody can add
        assert "not supported" not in caplog.text


@pytest.mark.parametrize("name", ONE_EACH)
def test_saved_pipelines_answer_as_before(specimen, name, tmp_path):
    ours = pipeline(specimen(name).task, model=specimen(name).folder)
    ours.save_pretrained(tmp_path)
    again = pipeline(model=tmp_path)
    assert type(again) is type(ours)
    assert [type(getattr(again, kind, None)) for kind in KINDS] == [type(getattr(ours, kind, None)) for kind in KINDS]


def test_labels_of_no_length(two):
    for name in ("clip", "clap"):
        item = PICTURES[0] if name == "clip" else tone(3000)
        with pytest.raises(ValueError, match="candidate_labels"):
            two(name).ours(item, candidate_labels=[])


def test_the_wrong_kind_of_processor(specimen):
    folder = specimen("vit").folder
    with pytest.raises(ProcessorError, match="needs an image processor"):
        pipeline("image-classification", model=folder, image_processor=transformers.Wav2Vec2FeatureExtractor())
