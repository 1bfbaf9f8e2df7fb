"""Files: what lies beside the graphs agrees with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from optimum_fixedshape.contract import SEQUENCE
from optimum_fixedshape.graph.lookups import Lookups
from optimum_fixedshape.graph.tensors import check_tensors
from optimum_fixedshape.roles import CHANNELS, FRAMES, HEIGHT, MEL, MEL_FRAMES, WIDTH

from .probe import Probe
from .report import Finding, Verdict, brief
from .subject import Subject, read_json

_LABEL_AXES: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(("text-classification", "zero-shot-classification", "token-classification"), (-1, 0)),
    **dict.fromkeys(("image-classification", "audio-classification", "video-classification"), (-1, 0)),
    **dict.fromkeys(("audio-frame-classification",), (-1, 0)),
    "object-detection": (-1, 1),
    "image-segmentation": (1, 0),
}
"""Tasks whose logits have a number for each label: on which axis, and how many more."""

_TOKENS = ("input_ids", "decoder_input_ids")
_OTHER_SIZE = "config.json says another size than the graph has."
_WIDTHS = ("hidden_size", "d_model", "n_embd", "dim")


def check_files(subject: Subject) -> Iterator[Finding]:
    """Yields what the files of the folder say otherwise than the graphs."""
    desk = _Desk(subject)
    wrong = [finding for check in _CHECKS for finding in check(desk)]
    yield from wrong
    read = [name for name in _READ if (subject.folder / name).is_file()]
    if read:
        yield Finding(Verdict.PASS, "The files agree with each other.", f"read: {', '.join(read)}")
    elif not wrong:
        yield Finding(Verdict.SKIPPED, "There is nothing beside the graph.")


class _Desk:
    """The files of a folder, read when they are first asked for."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.config = subject.config

    def json(self, name: str) -> dict[str, Any]:
        return read_json(self.subject.folder / name)

    @cached_property
    def preprocessor(self) -> dict[str, Any]:
        found = self.json("preprocessor_config.json") or self.json("processor_config.json").get("image_processor", {})
        return found if isinstance(found, dict) else {}

    @cached_property
    def probes(self) -> tuple[Probe, ...]:
        return self.subject.probes

    def size(self, role: str) -> int | None:
        """A size that is baked into the graphs, or None."""
        return next((size for probe in self.probes if (size := probe.stated.sizes.get(role))), None)

    @cached_property
    def vocabulary(self) -> tuple[str, int] | None:
        """The smallest table that token ids look rows up in: which graph has it, and its rows."""
        ids = ((probe, spec) for probe in self.probes for spec in probe.contract.inputs if spec.name in _TOKENS)
        tables = ((Lookups(probe.outline).rows(spec.session_name), probe.label) for probe, spec in ids)
        rows, label = min(((rows, label) for rows, label in tables if rows), default=(0, ""))
        return (label, rows) if rows else None


def _fail(summary: str, evidence: str, **facts: Any) -> Finding:
    return Finding(Verdict.FAIL, summary, evidence, facts)


def _labels(desk: _Desk) -> Iterator[Finding]:
    names, ids = desk.config.get("id2label"), desk.config.get("label2id")
    if not isinstance(names, Mapping):
        return
    if isinstance(ids, Mapping) and {str(k): v for k, v in names.items()} != {str(i): n for n, i in ids.items()}:
        yield _fail("config.json names labels in two ways: id2label and label2id do not agree.", f"{names} and {ids}")
    axis, more = _LABEL_AXES.get(desk.subject.task.name if desk.subject.task else "", (0, 0))
    for probe in desk.probes if axis else ():
        logits = next((spec for spec in probe.contract.outputs if spec.name == "logits"), None)
        given = logits.axes[axis].size if logits and logits.axes and len(logits.axes) > 1 else None
        if given and given != len(names) + more:
            yield _fail(
                "config.json has another number of labels than the graph.",
                f"{probe.label}: {len(names)} labels, and logits for {given - more}",
                labels=len(names),
                logits=given - more,
            )
            return


def _vocabulary(desk: _Desk) -> Iterator[Finding]:
    if desk.vocabulary is None:
        return
    label, rows = desk.vocabulary
    name, most = _tokenizer_size(desk.subject.folder)
    if name and most > rows:
        yield _fail(
            "The tokenizer has more ids than the graph has embeddings.",
            f"{label}: {name} has ids up to {most - 1}, and the table {rows} rows",
            ids=most,
            rows=rows,
        )
    told = desk.config.get("vocab_size")
    if isinstance(told, int) and told > rows:
        yield _fail(
            "config.json says another size of the vocabulary than the graph has embeddings.",
            f"{label}: vocab_size {told}, and the table has {rows} rows",
        )
    pad = desk.config.get("pad_token_id")
    if isinstance(pad, int) and pad >= rows:
        yield _fail("The id that pads is not in the vocabulary.", f"{label}: pad_token_id {pad}, and {rows} rows")


def _tokenizer_size(folder: Path) -> tuple[str, int]:
    """The file of the tokenizer, and one more than its largest id; nothing where there is none."""
    tokenizer = read_json(folder / "tokenizer.json")
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if vocabulary:
        ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
        added = tokenizer.get("added_tokens")
        ids += [token.get("id") for token in added if isinstance(token, dict)] if isinstance(added, list) else []
        return "tokenizer.json", 1 + max((i for i in ids if isinstance(i, int)), default=-1)
    if (path := folder / "vocab.txt").is_file():
        return "vocab.txt", len(path.read_text(encoding="utf-8", errors="replace").splitlines())
    plain = read_json(folder / "vocab.json")
    return ("vocab.json", 1 + max((i for i in plain.values() if isinstance(i, int)), default=-1)) if plain else ("", 0)


def _lengths(desk: _Desk) -> Iterator[Finding]:
    sizes = [size for probe in desk.probes if probe.tokens and (size := probe.stated.sizes.get(SEQUENCE))]
    if not sizes:
        return
    longest = max(sizes)
    limit = desk.json("tokenizer_config.json").get("model_max_length")
    if isinstance(limit, int) and limit < longest:
        yield Finding(
            Verdict.WARNING,
            "The tokenizer cuts texts that the graph could hold: model_max_length is smaller than sequence_length.",
            f"model_max_length {limit}, and the longest rung holds {longest}",
        )
    told = desk.config.get("max_position_embeddings")
    if isinstance(told, int) and 0 < told < longest:
        yield Finding(
            Verdict.WARNING,
            "The graph is longer than the positions that config.json says the model has learned.",
            f"max_position_embeddings {told}, and the longest rung holds {longest}",
        )


def _images(desk: _Desk) -> Iterator[Finding]:
    facts = desk.preprocessor
    crops = facts.get("do_center_crop") and isinstance(facts.get("crop_size"), dict)
    size = facts.get("crop_size" if crops else "size")
    if facts.get("do_resize", True) or crops:
        for role, name in ((HEIGHT, "height"), (WIDTH, "width")):
            baked, told = desk.size(role), size.get(name) if isinstance(size, dict) else None
            if baked and isinstance(told, int) and baked != told:
                yield _fail(
                    "The image processor makes images of another size than the graph takes.",
                    f"preprocessor_config.json: {name} {told}, and the graph has {baked}",
                )
    channels = desk.size(CHANNELS)
    for name in ("image_mean", "image_std"):
        told = facts.get(name)
        if channels and isinstance(told, list) and len(told) != channels:
            yield _fail(
                "The image processor has other channels than the graph.",
                f"preprocessor_config.json: {name} has {len(told)} numbers, and the graph {channels} channels",
            )


def _sounds(desk: _Desk) -> Iterator[Finding]:
    facts = desk.json("preprocessor_config.json")
    bins = facts.get("num_mel_bins", facts.get("feature_size"))
    baked = desk.size(MEL)
    if baked and isinstance(bins, int) and bins != baked:
        what = "The feature extractor makes spectrograms of other filters than the graph takes."
        yield _fail(what, f"preprocessor_config.json: {bins} filters, and the graph has {baked}")
    frames = facts.get("nb_max_frames", facts.get("max_length"))
    baked = desk.size(MEL_FRAMES)
    if baked and isinstance(frames, int) and frames != baked:
        what = "The feature extractor makes spectrograms of another length than the graph takes."
        yield _fail(what, f"preprocessor_config.json: {frames} frames, and the graph has {baked}")
    rate, told = facts.get("sampling_rate"), desk.config.get("sampling_rate")
    if isinstance(rate, int) and isinstance(told, int) and rate != told:
        what = "The feature extractor and config.json name different sampling rates."
        yield _fail(what, f"preprocessor_config.json: {rate}, config.json: {told}")


def _config(desk: _Desk) -> Iterator[Finding]:
    for name, role in (("num_channels", CHANNELS), ("num_frames", FRAMES), ("num_mel_bins", MEL)):
        told, baked = desk.config.get(name), desk.size(role)
        if baked and isinstance(told, int) and told != baked:
            yield _fail(_OTHER_SIZE, f"{name} {told}, and the graph has {baked}")
    width = next((w for name in _WIDTHS if isinstance(w := desk.config.get(name), int)), None)
    outputs = (spec for probe in desk.probes for spec in probe.contract.outputs if spec.name == "last_hidden_state")
    for spec in outputs:
        given = spec.axes[-1].size if spec.axes and len(spec.axes) == 3 else None
        if width and given and given != width and "hidden_sizes" not in desk.config:
            yield _fail(_OTHER_SIZE, f"hidden size {width}, and last_hidden_state has {given}")
            return


def _weights(desk: _Desk) -> Iterator[Finding]:
    for path in dict.fromkeys(probe.path for probe in desk.probes):
        try:
            check_tensors(path)
        except (OSError, ValueError) as error:
            yield _fail(
                "A file of weights is missing, cut short, or not the graph's own.", f"{path.name}: {brief(error)}"
            )


_CHECKS: tuple[Callable[[_Desk], Iterator[Finding]], ...] = (
    *(_weights, _labels, _vocabulary, _lengths, _images, _sounds, _config),
)
_READ = (
    *("config.json", "fixedshape_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json"),
    *("preprocessor_config.json", "processor_config.json"),
)
