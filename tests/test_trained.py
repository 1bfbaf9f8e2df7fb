"""Models that have learnt something: on fixed graphs they know as much as in PyTorch, and far more than chance."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import sklearn.datasets
import torch
import transformers

from optimum_fixedshape import export_model, pipeline

from .zoo import image_processor

RATE = 1000
KINDS = ["sine", "square", "noise"]


def train(model, batch_of, steps):
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.train().parameters(), 3e-3)
    for step in range(steps):
        loss = model(**batch_of(np.random.default_rng(step))).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def labels(names):
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def accuracy(answers, truth):
    return np.mean([answer[0]["label"] == wanted for answer, wanted in zip(answers, truth, strict=True)])


def assert_as_good(ours, theirs, truth):
    assert [answer[0]["label"] for answer in ours] == [answer[0]["label"] for answer in theirs]
    assert accuracy(ours, truth) == accuracy(theirs, truth) > 0.9


def test_digits(tmp_path):
    digits = sklearn.datasets.load_digits()
    pictures = [PIL.Image.fromarray((image * 15.9).astype(np.uint8)).convert("RGB") for image in digits.images]
    eyes = image_processor("ViT", size={"height": 16, "width": 16})
    pixels = eyes(images=pictures[:1500], return_tensors="pt")["pixel_values"]
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32],
        depths=[1, 1],
        layer_type="basic",
        **labels([str(i) for i in range(10)]),
    )

    def batch_of(generator):
        rows = generator.integers(0, len(pixels), 64)
        return {"pixel_values": pixels[rows], "labels": torch.from_numpy(digits.target[rows])}

    model = train(transformers.ResNetForImageClassification(config), batch_of, 160)
    export_model(model, tmp_path, shapes={"batch_size": 8}, processor=eyes, progress=False)
    unseen, truth = pictures[1500:], [str(digit) for digit in digits.target[1500:]]
    theirs = transformers.pipeline("image-classification", model=model, image_processor=eyes, device=-1)
    ours = pipeline("image-classification", model=tmp_path)
    assert_as_good(ours(unseen), theirs(unseen), truth)


def sound_of(kind, generator):
    time = np.arange(generator.integers(300, 800)) / RATE
    wave = np.sin(2 * np.pi * generator.uniform(20, 60) * time + generator.uniform(0, 6))
    made = {"sine": wave, "square": np.sign(wave), "noise": generator.standard_normal(len(time))}
    return made[kind].astype(np.float32)


@pytest.mark.parametrize("rungs", [[800], [400, 800]], ids=str)
def test_tones(tmp_path, rungs):
    ears = transformers.Wav2Vec2FeatureExtractor(sampling_rate=RATE, return_attention_mask=True)
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        **{"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48},
        **{"conv_dim": (16, 16), "conv_kernel": (10, 5), "conv_stride": (5, 4), "num_feat_extract_layers": 2},
        **{"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "classifier_proj_size": 16},
        **{"feat_extract_norm": "layer", "do_stable_layer_norm": True, "mask_time_prob": 0.0, "layerdrop": 0.0},
        **labels(KINDS),
    )

    def batch_of(generator):
        wanted = generator.integers(0, 3, 32)
        inputs = ears(
            [sound_of(KINDS[kind], generator) for kind in wanted], padding=True, return_tensors="pt", sampling_rate=RATE
        )
        return {**inputs, "labels": torch.from_numpy(wanted)}

    model = train(transformers.Wav2Vec2ForSequenceClassification(config), batch_of, 400)
    shapes = {"batch_size": 4, "audio_sequence_length": rungs}
    export_model(model, tmp_path, shapes=shapes, processor=ears, progress=False)
    generator = np.random.default_rng(999)
    truth = [KINDS[kind] for kind in generator.integers(0, 3, 100)]
    unheard = [sound_of(kind, generator) for kind in truth]
    theirs = transformers.pipeline("audio-classification", model=model, feature_extractor=ears, device=-1)
    ours = pipeline("audio-classification", model=tmp_path)
    assert_as_good(ours(unheard), theirs(unheard), truth)
