"""From a PyTorch model of your own, which no library knows, to a folder of fixed graphs.

Two kinds of models. `MeanClassifier` is a transformers model with a head of its own: `export_model` takes it, with the
task whose inputs and outputs it has. `TopicAndVector` is a bare module with two outputs that fit no task: PyTorch's own
exporter makes its graph, and `ORTModelForCustomTasks` runs it on any number of texts. Look for: the difference from
PyTorch, the verdict of `check_model`, and that stock transformers and onnxruntime read the same folder.

The encoder is a small BERT, trained on the spot to sort messages to a shop; ``--model`` takes any other BERT.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import transformers
from transformers.modeling_outputs import SequenceClassifierOutput

from optimum_fixedshape import (
    AutoTokenizer,
    ORTModelForCustomTasks,
    check_model,
    export_model,
    pipeline,
)

sys.path.insert(0, str(Path(__file__).parents[1]))
import offline

TASK = "text-classification"
ROWS, TOKENS = 4, 32
TEXTS = [
    "My parcel has still not arrived.",
    "You charged my credit card twice!",
    "The app crashes whenever I open it.",
    "The courier left the box at the wrong door.",
    "Refund?",
]


class MeanClassifier(transformers.BertPreTrainedModel):
    """A model of your own: a BERT, and two layers on the mean of its tokens' features."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bert = transformers.BertModel(config, add_pooling_layer=False)
        width = config.hidden_size
        layers = torch.nn.Linear(width, width), torch.nn.GELU(), torch.nn.Linear(width, config.num_labels)
        self.head = torch.nn.Sequential(*layers)
        self.post_init()

    def mean(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **others: Any) -> torch.Tensor:
        """One vector a text; padding has no part in it."""
        features = self.bert(input_ids, attention_mask, **others).last_hidden_state
        weights = attention_mask[..., None].to(features.dtype)
        return (features * weights).sum(1) / weights.sum(1).clamp(min=1)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> SequenceClassifierOutput:
        """Takes and gives what models for text classification do: that is all that `export_model` needs."""
        return SequenceClassifierOutput(
            logits=self.head(self.mean(input_ids, attention_mask, token_type_ids=token_type_ids))
        )


class TopicAndVector(torch.nn.Module):
    """A module that is no transformers model: in one run, how likely each topic is, and a vector to compare."""

    def __init__(self, model: MeanClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns probabilities and vectors of length 1."""
        mean = self.model.mean(input_ids, attention_mask)
        return self.model.head(mean).softmax(-1), torch.nn.functional.normalize(mean, dim=-1)


def export_bare(module: torch.nn.Module, tokenizer: Any, path: Path) -> None:
    """PyTorch's own export: with no word of dynamic axes, the graph takes exactly what the example is."""
    example = tokenizer(["Any text."] * ROWS, padding="max_length", max_length=TOKENS, return_tensors="pt")
    taken = {name: example[name] for name in ("input_ids", "attention_mask")}
    for name in ("torch.onnx", "onnxscript"):
        logging.getLogger(name).setLevel(logging.ERROR)  # they report what they leave as it is, which does no harm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's exporter uses what PyTorch has deprecated
        torch.onnx.export(
            module.eval(),
            kwargs=taken,
            f=path,
            input_names=list(taken),
            output_names=["probabilities", "vector"],
            dynamo=True,
            verbose=False,
        )


def main() -> None:
    """Trains the head, exports, checks and runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a BERT in PyTorch form, a folder or a Hub id: its encoder gets the new head")
    source = parser.parse_args().model
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        source = source or offline.text_classifier(home / "bert")
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        model = trained_head(source, tokenizer)
        own_head(model, tokenizer, home)
        own_module(TopicAndVector(model), tokenizer, home)


def own_head(model: MeanClassifier, tokenizer: Any, home: Path) -> None:
    """Exports the model twice, and runs it."""
    print("1. export_model: a class of your own, in float32 and, fused, in int8\n")
    given = {"task": TASK, "processor": tokenizer, "progress": False}
    folder = export_model(model, home / "fixed", shapes={"batch_size": ROWS, "sequence_length": [16, TOKENS]}, **given)
    one = {"batch_size": ROWS, "sequence_length": TOKENS}
    small = export_model(model, home / "int8", shapes=one, optimize=True, dtype="int8", **given)
    for each in (folder, small):
        sizes = {path.name: path.stat().st_size for path in each.glob("model*")}
        print(f"   {each.name:<7}{sum(sizes.values()) / 1e6:6.2f} MB   {', '.join(sorted(sizes))}")

    print("\n2. check_model, with the PyTorch model beside the graphs\n")
    report = check_model(folder, original=model)
    for line in report.lines:
        print(f"   {line.verdict:<9}{line.name:<14}{line.summary}")
    print(f"\n   verdict: {report.verdict}")

    print("\n3. The folder, run by this package\n")
    ours, rounded = pipeline(TASK, model=folder), pipeline(TASK, model=small)
    for text, answer in zip(TEXTS, ours(TEXTS), strict=True):
        print(f"   {answer['label']:<12}{answer['score']:.3f}  {text}")
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        apart = float((ours.model(**inputs).logits - model(**inputs).logits).abs().max())
    print(f"\n   Largest difference from PyTorch, over all logits: {apart:.1e}")
    alike = sum(a["label"] == b["label"] for a, b in zip(rounded(TEXTS), ours(TEXTS), strict=True))
    print(f"   In int8, {alike} of {len(TEXTS)} labels are the same.")

    print("\n4. The same folder, read by stock transformers and run by onnxruntime\n")
    stock = transformers.AutoTokenizer.from_pretrained(folder)
    rows = stock(TEXTS[:ROWS], padding="max_length", max_length=TOKENS, return_tensors="np")
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    logits = session.run(["logits"], {each.name: rows[each.name] for each in session.get_inputs()})[0]
    labels = transformers.AutoConfig.from_pretrained(folder).id2label
    print(f"   {', '.join(labels[int(best)] for best in logits.argmax(-1))}")


def own_module(module: TopicAndVector, tokenizer: Any, home: Path) -> None:
    """Exports the bare module with PyTorch, and runs it."""
    print("\n5. A bare module with two outputs: exported by PyTorch, run on any number of texts\n")
    export_bare(module, tokenizer, home / "bare.onnx")
    model = ORTModelForCustomTasks.from_pretrained(home / "bare.onnx")
    words = AutoTokenizer.from_model(model, tokenizer=tokenizer)
    inputs = words(TEXTS, return_tensors="np")
    outputs = model(**inputs)
    print(f"   {', '.join(f'{name} {array.shape}' for name, array in outputs.items())}, from a graph of {ROWS} rows")
    alike = outputs["vector"] @ outputs["vector"].T - 2 * np.eye(len(TEXTS))
    for text, nearest in zip(TEXTS, alike.argmax(-1), strict=True):
        print(f"   {text:<46}is most like  {TEXTS[nearest]}")
    with torch.no_grad():
        theirs = module(*(torch.from_numpy(inputs[name]) for name in ("input_ids", "attention_mask")))
    apart = max(float(np.abs(a - b.numpy()).max()) for a, b in zip(outputs.values(), theirs, strict=True))
    print(f"\n   Largest difference from PyTorch, over both outputs: {apart:.1e}")


def trained_head(source: str | Path, tokenizer: Any) -> MeanClassifier:
    """Returns the model, its head trained on the offline example's topics; the encoder stays as it is."""
    topics = list(offline.TOPICS)
    names = {"id2label": dict(enumerate(topics)), "label2id": {name: number for number, name in enumerate(topics)}}
    torch.manual_seed(0)
    model = MeanClassifier.from_pretrained(source, **names).eval()
    parts = {topic: [part.split("|") for part in offline.TOPICS[topic]] for topic in topics}
    known = [
        (f"{thing} {trouble}", topics.index(t)) for t in topics for thing in parts[t][0] for trouble in parts[t][1]
    ]
    texts, numbers = zip(*known, strict=True)
    with torch.no_grad():
        means = model.mean(**tokenizer(list(texts), padding=True, return_tensors="pt"))
    optimizer = torch.optim.AdamW(model.head.parameters(), 1e-2)
    for _ in range(10):
        loss = torch.nn.functional.cross_entropy(model.head(means), torch.tensor(numbers))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


if __name__ == "__main__":
    main()
