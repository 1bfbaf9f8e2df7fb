"""Models that see and hear answer as their originals do, at every size around every rung."""

from __future__ import annotations

import pytest

from optimum_fixedshape.models import classes
from optimum_fixedshape.tasks import find_task

from . import zoo
from .equality import assert_model_equals_original

# SigLIP has no mask, and its tokenizer always pads. transformers' heads for speakers ignore dilation where they count
# frames, and so leave too few of the padded ones out.
SEE_PADDING = ("siglip", "wav2vec2-xvector")


@pytest.mark.parametrize("name", zoo.ZOO)
def test_models_answer_as_the_original(specimen, name):
    pair = specimen(name)
    model = getattr(classes, find_task(pair.task).model).from_pretrained(pair.folder)
    assert_model_equals_original(model, pair.original, sees_padding=name in SEE_PADDING)
    assert type(model.config) is type(pair.original.config)


def test_models_that_normalize_over_padding_say_so_at_load(specimen):
    with pytest.warns(UserWarning, match="depend on the padding: the model normalizes over the whole") as said:
        classes.ORTModelForCTC.from_pretrained(specimen("wav2vec2").folder, feat_extract_norm="group")
    assert [warning.filename for warning in said] == [__file__]


def test_encoders_of_images_are_exported_on_the_fly(tmp_path):
    for part in (zoo.original("vit-encoder"), zoo.processor("vit-encoder")):
        part.save_pretrained(tmp_path)
    model = classes.ORTModelForFeatureExtraction.from_pretrained(tmp_path)
    assert model.fixed_shape_config.task == "image-feature-extraction"
    assert_model_equals_original(model, zoo.original("vit-encoder"))
