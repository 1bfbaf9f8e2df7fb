"""Small models that the examples run on when there is no network: made on the spot, and trained for a few seconds.

Each function returns a folder as transformers' `save_pretrained` writes it: a PyTorch model and its processor. They are
toys, but they have learnt something that one can see, so their answers are right or wrong.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from PIL import Image, ImageDraw

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

TOPICS = {
    "billing": (
        "the invoice|my bill|the charge|the refund|the price|a payment|my credit card|the fee|your receipt",
        "is too high|was charged twice|has the wrong amount|was not refunded|is more money than we agreed|costs a lot"
        "|must be paid again|was taken from my account|does not show the tax|is cheaper elsewhere",
    ),
    "delivery": (
        "the parcel|my order|the courier|the package|the box|your driver|the shipment|my delivery|the postman",
        "has not arrived|is late|was left at the wrong door|came damaged|went to another address|is in the depot"
        "|was sent to my neighbour|never came to the house|is still on its way|was not delivered",
    ),
    "technical": (
        "the app|my screen|the login|the website|the update|my password|the device|the button|your server",
        "crashes|does not load|shows an error|is frozen|stopped working|cannot connect|does not respond"
        "|is broken since the update|restarts all the time|is very slow",
    ),
}
"""What people write to a shop: topic to what they write about, and what is the matter with it."""
NEUTRAL = (Path(__file__).parent / "basic" / "sentences.txt").read_text(encoding="utf-8").split()
"""Words of sentences about anything else."""
SHAPES = ["circle", "square", "triangle"]
COLOURS = ["red", "green", "blue", "yellow"]
RATE = 4000
FRAME = 64
"""Samples a second, and from one answer of the speech model to the next."""
NOTES = {"c": 523.3, "d": 587.3, "e": 659.3, "g": 784.0, "a": 880.0}
"""Hertz by name."""
END = "<|endoftext|>"
PROVERBS = [
    "A stitch in time saves nine.",
    "Birds of a feather flock together.",
    "Actions speak louder than words.",
    "Every cloud has a silver lining.",
    "Fortune favours the bold.",
    "Look before you leap.",
    "Many hands make light work.",
    "Rome was not built in a day.",
    "The early bird catches the worm.",
    "Too many cooks spoil the broth.",
    "When the cat is away, the mice will play.",
    "You cannot have your cake and eat it.",
]


def text_classifier(folder: Path) -> Path:
    """A BERT that tells what a message to a shop is about: billing, delivery or technical."""
    words = _word_tokenizer([*(part for parts in TOPICS.values() for part in parts), *NEUTRAL])
    torch.manual_seed(0)
    config = transformers.BertConfig(
        **{"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
        **{"vocab_size": len(words), "pad_token_id": words.pad_token_id, "initializer_range": 0.1},
        **_labels(TOPICS),
    )
    model = transformers.BertForSequenceClassification(config)
    # So that texts longer than those to come are read in the same way.
    torch.nn.init.zeros_(model.bert.embeddings.position_embeddings.weight)

    def batch_of(chance: random.Random) -> Mapping[str, Any]:
        topics = [chance.randrange(len(TOPICS)) for _ in range(32)]
        texts = [_message(list(TOPICS)[topic], chance) for topic in topics]
        return {**words(texts, padding=True, return_tensors="pt"), "labels": torch.tensor(topics)}

    return _saved(folder, _trained(model, batch_of, steps=100, rate=5e-3), words)


def _message(topic: str, chance: random.Random) -> str:
    """A sentence about the topic, among words that have nothing to do with it."""
    thing, trouble = (chance.choice(part.split("|")) for part in TOPICS[topic])
    others = chance.choices(NEUTRAL, k=chance.randrange(16))
    start = chance.randrange(len(others) + 1)
    return " ".join([*others[:start], *chance.choice([[thing], [trouble], [thing, trouble]]), *others[start:]])


def _word_tokenizer(texts: list[str], **settings: Any) -> Any:
    """A tokenizer like BERT's, whose vocabulary is the words of the texts, and letters for all other words."""
    known = sorted(set(re.findall(r"[a-z]+", " ".join(texts).lower())))
    marks = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    special = {name: f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    vocabulary = dict.fromkeys([*special.values(), *marks, *(f"##{mark}" for mark in marks), *known])
    rust = tokenizers.BertWordPieceTokenizer({word: index for index, word in enumerate(vocabulary)})
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=rust._tokenizer,
        **{f"{name}_token": token for name, token in special.items()},
        **{"model_max_length": 512, "model_input_names": ["input_ids", "token_type_ids", "attention_mask"], **settings},
    )


def image_classifier(folder: Path) -> Path:
    """A ResNet that tells circles, squares and triangles of any colour."""
    eyes = _image_processor("ViT", size={"height": 32, "width": 32})
    chance = random.Random(0)
    wanted = [chance.randrange(len(SHAPES)) for _ in range(600)]
    sizes = [(chance.randrange(40, 100), chance.randrange(40, 100)) for _ in wanted]
    pictures = [
        drawing(SHAPES[i], chance.choice(COLOURS), chance, *size) for i, size in zip(wanted, sizes, strict=True)
    ]
    pixels, labels = eyes(images=pictures, return_tensors="pt")["pixel_values"], torch.tensor(wanted)

    def batch_of(chance: random.Random) -> Mapping[str, Any]:
        rows = chance.sample(range(len(wanted)), 32)
        return {"pixel_values": pixels[rows], "labels": labels[rows]}

    torch.manual_seed(0)
    layers = {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"}
    model = transformers.ResNetForImageClassification(transformers.ResNetConfig(**layers, **_labels(SHAPES)))
    return _saved(folder, _trained(model, batch_of, steps=250, rate=5e-3), eyes)


def drawing(shape: str, colour: str, chance: random.Random, width: int = 64, height: int = 64) -> Image.Image:
    """A shape near the middle of a light background."""
    picture = Image.new("RGB", (width, height), tuple(chance.randrange(200, 256) for _ in "RGB"))
    edge = min(width, height)
    radius = edge * chance.uniform(0.28, 0.38)
    across, down = (middle / 2 + edge * chance.uniform(-0.05, 0.05) for middle in (width, height))
    box = (across - radius, down - radius, across + radius, down + radius)
    draw = ImageDraw.Draw(picture)
    if shape == "circle":
        draw.ellipse(box, colour)
    elif shape == "square":
        draw.rectangle(box, colour)
    else:
        draw.polygon([(across, box[1]), (box[0], box[3]), (box[2], box[3])], colour)
    return picture


def image_text_model(folder: Path) -> Path:
    """A CLIP that knows what "a red circle" looks like, and eleven more things."""
    names = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
    sentences = [f"This is a photo of {name}." for name in names]  # as transformers' pipeline says it
    words = _word_tokenizer(sentences, model_max_length=16, model_input_names=["input_ids", "attention_mask"])
    eyes = _image_processor("CLIP", size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    chance = random.Random(0)
    pictures = [drawing(name.split()[2], name.split()[1], chance) for name in names for _ in range(100)]
    pixels = eyes(images=pictures, return_tensors="pt")["pixel_values"].unflatten(0, (len(names), 100))
    texts = words(sentences, padding=True, return_tensors="pt")

    def batch_of(chance: random.Random) -> Mapping[str, Any]:
        one_of_each = pixels[range(len(names)), [chance.randrange(100) for _ in names]]
        return {**texts, "pixel_values": one_of_each, "return_loss": True}

    torch.manual_seed(0)
    tower = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 128}
    special = {"bos_token_id": words.cls_token_id, "eos_token_id": words.sep_token_id, "pad_token_id": 0}
    config = transformers.CLIPConfig(
        text_config={**tower, **special, "vocab_size": len(words), "max_position_embeddings": 16},
        vision_config={**tower, "initializer_factor": 3.0, "image_size": 32, "patch_size": 16},
        projection_dim=32,
    )
    model = _trained(transformers.CLIPModel(config), batch_of, steps=300, rate=3e-3)
    return _saved(folder, model, transformers.CLIPProcessor(image_processor=eyes, tokenizer=words))


def speech_recognizer(folder: Path) -> Path:
    """A Wav2Vec2 that hears notes and writes down their names: not words, but the same work."""
    ears = transformers.Wav2Vec2FeatureExtractor(sampling_rate=RATE, return_attention_mask=True)
    names = ["<pad>", "<s>", "</s>", "<unk>", "|", *NOTES]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({name: index for index, name in enumerate(names)}))
    letters = transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        **{"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64},
        **{"conv_dim": (32, 32), "conv_kernel": (2 * FRAME, 3), "conv_stride": (FRAME, 1)},
        **{"num_feat_extract_layers": 2, "do_stable_layer_norm": True, "feat_extract_norm": "layer"},
        **{"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4, "initializer_range": 0.1},
        **{"mask_time_prob": 0.0, "layerdrop": 0.0, "vocab_size": len(names), "pad_token_id": 0},
    )
    model = transformers.Wav2Vec2ForCTC(config)

    def loss_of(chance: random.Random) -> torch.Tensor:
        tunes = ["".join(chance.choices([*NOTES, " "], k=chance.randint(3, 6))) for _ in range(16)]
        tempos = [chance.uniform(0.1, 0.2) for _ in tunes]
        sounds = [melody(tune, chance, tempo) for tune, tempo in zip(tunes, tempos, strict=True)]
        logits = model(**ears(sounds, padding=True, return_tensors="pt", sampling_rate=RATE)).logits
        # CTC finds out by itself when each letter is said, which takes long; here it is known.
        said = [_said(tune, tempo, logits.shape[1], names) for tune, tempo in zip(tunes, tempos, strict=True)]
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(said).flatten())

    model = _fitted(model, loss_of, steps=130, rate=3e-3)
    return _saved(folder, model, transformers.Wav2Vec2Processor(ears, letters))


def melody(tune: str, chance: random.Random, seconds: float = 0.15) -> np.ndarray:
    """The notes of a tune such as ``"edcdeee ddd egg"``, each so long; a space is a rest."""
    time = np.arange(int(RATE * seconds)) / RATE
    shape = np.sin(np.pi * time / seconds) ** 0.5
    notes = [np.sin(2 * np.pi * NOTES.get(note, 0.0) * time) * shape * chance.uniform(0.2, 0.5) for note in tune]
    noise = np.random.default_rng(chance.randrange(2**32)).normal(0, 0.005, len(time) * len(tune))
    return (np.concatenate(notes) + noise).astype(np.float32)


def _said(tune: str, seconds: float, frames: int, names: list[str]) -> list[int]:
    """What CTC should say at each frame: a rest throughout, a note in its middle, and nothing between notes."""
    places = [(frame + 2) * FRAME / RATE / seconds for frame in range(frames)]
    wanted = [tune[int(place)].replace(" ", "|") if place < len(tune) else "<pad>" for place in places]
    heard = [
        name if name == "|" or 0.2 < place % 1 < 0.8 else "<pad>" for name, place in zip(wanted, places, strict=True)
    ]
    return [names.index(name) for name in heard]


def text_generator(folder: Path) -> Path:
    """A GPT-2 that knows a dozen proverbs by heart."""
    rust = tokenizers.ByteLevelBPETokenizer()
    rust.train_from_iterator(PROVERBS, vocab_size=400, special_tokens=[END], show_progress=False)
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=rust._tokenizer,
        model_max_length=128,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        model_input_names=["input_ids", "attention_mask"],
    )
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        **{"vocab_size": len(words), "n_positions": 128, "n_embd": 64, "n_layer": 2, "n_head": 4},
        **{"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id},
    )
    texts = words([f"{proverb}{END}" for proverb in PROVERBS], padding=True, return_tensors="pt")

    def batch_of(chance: random.Random) -> Mapping[str, Any]:
        return {**texts, "labels": texts["input_ids"].masked_fill(texts["attention_mask"] == 0, -100)}

    return _saved(folder, _trained(transformers.GPT2LMHeadModel(config), batch_of, steps=120, rate=5e-3), words)


def _image_processor(name: str, **settings: Any) -> Any:
    """An image processor that needs no torchvision, whatever this version of transformers calls it."""
    found = getattr(transformers, f"{name}ImageProcessorPil", None) or getattr(transformers, f"{name}ImageProcessor")
    return found(**settings)


def _labels(names: Mapping[str, Any] | list[str]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def _trained(model: Any, batch_of: Callable[[random.Random], Mapping[str, Any]], *, steps: int, rate: float) -> Any:
    """The model, after so many steps on batches of its task."""
    return _fitted(model, lambda chance: model(**batch_of(chance)).loss, steps=steps, rate=rate)


def _fitted(model: Any, loss_of: Callable[[random.Random], torch.Tensor], *, steps: int, rate: float) -> Any:
    """The model, after so many steps down the loss: on one thread, which is faster for models this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    optimizer = torch.optim.AdamW(model.train().parameters(), rate)
    chance = random.Random(0)
    for _ in range(steps):
        loss = loss_of(chance)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    return model.eval()


def _saved(folder: Path, *parts: Any) -> Path:
    for part in parts:
        part.save_pretrained(folder)
    return folder
