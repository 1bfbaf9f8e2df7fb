"""What contenders are given, always the same: texts of real words with the lengths of real traffic, images, labels."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

MEDIAN_TOKENS, MEAN_TOKENS, MOST_TOKENS = 20, 25, 200
_FEWEST_TOKENS = 4
_SPECIAL_TOKENS = 2

SHORT_TEXT = "The harbour master counts every boat at the north gate"
"""12 tokens, with the two that BERT puts around it."""

_PARAGRAPH = """
The committee met on Tuesday to discuss the proposed changes to the city's public transportation network, which has
struggled with overcrowding since the new stadium opened. Several residents complained that buses arrive irregularly;
others praised the friendliness of drivers. An engineer explained why electrification would take considerably longer
than advertised, and how refurbished batteries might shorten it. My grandmother's apartment overlooks the depot, so we
watched the prototypes being unloaded: quiet, angular, unmistakably yellow. Delivery was quick, the packaging was fine,
but the charger stopped working after three weeks and customer service never replied. I would not recommend it to a
friend, although the screen is gorgeous and the keyboard is wonderful. Researchers at the university sequenced samples
from forty-two lakes and found remarkably similar germs in most of them. What time does the pharmacy on Mulberry
Street close during holidays? Please transfer two hundred euros to my savings account and remind me about the insurance
on Friday. The soup was lukewarm, the waiter apologetic, the view of the mountains astonishing.
"""


def mixed_lengths(count: int, seed: int = 0) -> list[int]:
    """Returns lengths in tokens as texts of users have them: lognormal, most of them short, a long tail."""
    spread = float(np.sqrt(2 * np.log(MEAN_TOKENS / MEDIAN_TOKENS)))
    lengths = np.random.default_rng(seed).lognormal(np.log(MEDIAN_TOKENS), spread, count)
    return [int(length) for length in lengths.round().clip(_FEWEST_TOKENS, MOST_TOKENS)]


def mixed_texts(count: int, tokenizer_file: str) -> list[str]:
    """Returns texts of those lengths.

    Args:
        count: How many.
        tokenizer_file: The ``tokenizer.json`` that tells how many tokens a text has.
    """
    return [text_of(length, tokenizer_file, seed) for seed, length in enumerate(mixed_lengths(count))]


def text_of(tokens: int, tokenizer_file: str, seed: int = 0) -> str:
    """Returns a text of so many tokens: words as they follow one another somewhere in a paragraph."""
    words, costs = _words(tokenizer_file)
    place = random.Random(seed).randrange(len(words))
    left, chosen = tokens - _SPECIAL_TOKENS, []
    for index in range(place, place + 10 * tokens):
        index %= len(words)
        if costs[index] <= left:
            chosen.append(words[index])
            left -= costs[index]
        if not left:
            break
    return " ".join(chosen)


def photograph(seed: int = 0, width: int = 500, height: int = 375) -> Any:
    """Returns an image of a photograph's size: smooth patches, some noise."""
    from PIL import Image

    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 256, (height // 25, width // 25, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noisy = smooth + generator.integers(-12, 13, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def labels(count: int) -> list[str]:
    """Returns so many different names of things, of one word or more."""
    kinds = ["red", "blue", "old", "small", "wooden", "broken", "wet", "painted", "striped", "electric"]
    things = ["boat", "dog", "bicycle", "house", "tree", "lamp", "bridge", "piano", "mountain", "bottle"]
    places = ["harbour", "kitchen", "garden", "street", "museum", "forest", "desert", "office", "station", "field"]
    every = (f"{kind} {thing} in a {place}" for kind in kinds for thing in things for place in places)
    return [label for label, _ in zip(every, range(count), strict=False)]


_COSTS: dict[str, tuple[list[str], list[int]]] = {}


def _words(tokenizer_file: str) -> tuple[list[str], list[int]]:
    if tokenizer_file not in _COSTS:
        from tokenizers import Tokenizer

        words = _PARAGRAPH.split()
        tokenizer = Tokenizer.from_file(tokenizer_file)
        tokenizer.no_padding()
        encoded = tokenizer.encode_batch(words, add_special_tokens=False)
        _COSTS[tokenizer_file] = words, [len(each.ids) for each in encoded]
    return _COSTS[tokenizer_file]
