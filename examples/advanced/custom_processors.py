"""Processors with rules of one's own, and graphs that are no standard task.

A shop's staff write "pkg" and "pwd", which their text classifier never learnt. A tokenizer of one's own spells them
out; it goes into a pipeline, feeds a bare InferenceSession, and keeps its class. So does an image processor that looks
at the middle of a picture only. A plain function will do as well: models take whatever arrays it makes. What to look
for: the stock tokenizer gets most of the messages wrong, one's own gets all of them right, and nobody says how long a
row is, or how many rows there are.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import transformers
from onnx import TensorProto, helper
from PIL import Image, ImageDraw

from optimum_fixedshape import (
    AutoImageProcessor,
    AutoTokenizer,
    ORTModelForCustomTasks,
    ORTModelForSequenceClassification,
    export_model,
    pipeline,
)

sys.path.insert(0, str(Path(__file__).parents[1]))

from offline import text_classifier

SHORT = {"pkg": "package", "pwd": "password", "cc": "credit card", "svr": "server", "inv": "invoice"}
MESSAGES = {
    "the pkg": "delivery",
    "my pwd": "technical",
    "my cc": "billing",
    "your svr, since this morning": "technical",
    "the inv of last month, again": "billing",
}
"""What was written, and what it is about."""

# transformers 5 calls the one that needs no torchvision by another name.
ViTImageProcessor = getattr(transformers, "ViTImageProcessorPil", transformers.ViTImageProcessor)


def spelled_out(text: str) -> str:
    """The text with whole words in place of short ones."""
    return re.sub(r"\w+", lambda word: SHORT.get(word[0], word[0]), text)


class StaffTokenizer(transformers.PreTrainedTokenizerFast):
    """Spells words out before anything else happens."""

    def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Returns what the tokenizer makes of the text, or of each text in a list."""
        plain = [spelled_out(each) for each in text] if isinstance(text, list) else spelled_out(text)
        return super().__call__(plain, *args, **kwargs)


class MiddleImageProcessor(ViTImageProcessor):
    """Looks at the middle of a picture, half as wide and half as high."""

    def preprocess(self, images: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns what the image processor makes of the middle of each image."""
        several = images if isinstance(images, list) else [images]
        return super().preprocess([_middle(np.asarray(image)) for image in several], *args, **kwargs)


def in_a_pipeline(folder: Path, tokenizer: Any) -> list[str]:
    """One's own tokenizer goes where any other goes; the pipeline tells a copy of it what the graph takes."""
    model = ORTModelForSequenceClassification.from_pretrained(folder)
    pipe = pipeline("text-classification", model=model, data_processor=tokenizer)
    return [answer["label"] for answer in pipe(list(MESSAGES))]


def on_a_bare_session(folder: Path, tokenizer: Any) -> list[str]:
    """`feeds` yields arrays that are exact in every dimension; rows from `feed.rows` on only fill the batch."""
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    told = AutoTokenizer.from_model(session, tokenizer=tokenizer)
    assert isinstance(told, StaffTokenizer)
    logits = [session.run(["logits"], feed.arrays)[0][: feed.rows] for feed in told.feeds(list(MESSAGES))]
    return _labels_of(folder, np.concatenate(logits))


def with_a_plain_function(folder: Path, tokenizer: Any) -> list[str]:
    """A model takes any arrays that have the graph's names: it pads them, and fills the batch, by itself."""
    vocabulary = tokenizer.get_vocab()

    def encode(text: str) -> dict[str, np.ndarray]:
        words = ["[CLS]", *re.findall(r"\w+|[^\w\s]", spelled_out(text)), "[SEP]"]
        ids = np.array([[vocabulary[word] for word in words]])
        return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}

    model = ORTModelForSequenceClassification.from_pretrained(folder)
    return _labels_of(folder, np.concatenate([model(**encode(text)).logits for text in MESSAGES]))


def with_another_task(graph: Path, pictures: list[Image.Image]) -> np.ndarray:
    """A graph that nobody has heard of, with names of its own: say once what they stand for."""
    model = ORTModelForCustomTasks.from_pretrained(
        graph, input_names={"photo": "pixel_values"}, output_names={"palette": "mean_colour"}
    )
    eyes = MiddleImageProcessor(do_normalize=False, resample=Image.Resampling.NEAREST)
    told = AutoImageProcessor.from_model(model, image_processor=eyes)
    return model(**told(pictures, return_tensors="np")).mean_colour


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="where the graphs go; a temporary folder by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run(text_classifier(Path(temporary) / "torch"), arguments.output or Path(temporary))


def run(source: Path, output: Path) -> None:
    """Runs each part, and says how many answers are right."""
    shapes = {"batch_size": 4, "sequence_length": 32}
    folder = export_model(source, output / "classifier", shapes=shapes, progress=False)
    print("A classifier that takes exactly 4 texts of 32 tokens, and messages with short words in them:\n")
    stock, own = transformers.AutoTokenizer.from_pretrained(source), StaffTokenizer.from_pretrained(source)
    show("stock tokenizer, pipeline", in_a_pipeline(folder, stock))
    show("StaffTokenizer, pipeline", in_a_pipeline(folder, own))
    show("StaffTokenizer, bare session", on_a_bare_session(folder, own))
    show("plain function, model", with_a_plain_function(folder, own))

    print("\nA graph that takes exactly 4 photos of 32 x 32, and five pictures whose middle differs from the rest:\n")
    names = ["red", "lime", "blue", "yellow", "white"]
    colours = with_another_task(_palette_graph(output / "palette.onnx"), [_framed(name) for name in names])
    for name, colour in zip(names, colours, strict=True):
        print(f"   {name:<8} on black: red {colour[0]:.1f}, green {colour[1]:.1f}, blue {colour[2]:.1f}")


def show(name: str, labels: list[str]) -> None:
    """Prints the labels, and how many are right."""
    right = sum(label == wanted for label, wanted in zip(labels, MESSAGES.values(), strict=True))
    print(f"   {name:<30} {right} of {len(MESSAGES)} right: {', '.join(labels)}")


def _labels_of(folder: Path, logits: np.ndarray) -> list[str]:
    names = transformers.AutoConfig.from_pretrained(folder).id2label
    return [names[int(index)] for index in logits.argmax(-1)]


def _middle(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[0] // 4, pixels.shape[1] // 4
    return pixels[height:-height, width:-width]


def _framed(colour: str) -> Image.Image:
    """A coloured rectangle in a black frame, 80 x 60."""
    picture = Image.new("RGB", (80, 60), "black")
    ImageDraw.Draw(picture).rectangle((20, 15, 60, 45), colour)
    return picture


def _palette_graph(path: Path) -> Path:
    """A graph that gives the mean colour of each of four photos."""
    node = helper.make_node("GlobalAveragePool", ["photo"], ["pooled"])
    flat = helper.make_node("Flatten", ["pooled"], ["palette"])
    photo = helper.make_tensor_value_info("photo", TensorProto.FLOAT, [4, 3, 32, 32])
    palette = helper.make_tensor_value_info("palette", TensorProto.FLOAT, [4, 3])
    graph = helper.make_graph([node, flat], "palette", [photo], [palette])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


if __name__ == "__main__":
    main()
