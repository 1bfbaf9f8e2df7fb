"""Plots of ``results.json``, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

_SIZE = (8.0, 4.5)
_SAME_BYTES = {"svg.hashsalt": "optimum-fixedshape"}  # where the figures are the same
_OURS, _THEIRS = ("#1b7837", "#5aae61", "#a6dba0"), ("#636363", "#969696", "#bdbdbd", "#525252", "#cccccc")

Table = Mapping[str, Any]


def draw_plots(results: Mapping[str, Any], folder: Path) -> list[dict[str, str]]:
    """Returns the plots that were drawn, each with its table, its file and what it shows; a PNG and an SVG of each.

    Args:
        results: As in ``results.json``.
        folder: Where they go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = {table["key"]: table for part in results["parts"].values() for table in part["tables"] if table["rows"]}
    drawn = []
    for key, (draw, alt) in _PLOTS.items():
        if key in tables:
            figure = Figure(figsize=_SIZE, layout="constrained")
            axes = figure.subplots()
            draw(tables[key], axes)
            axes.set_title(alt)
            axes.spines[["top", "right"]].set_visible(False)
            with mpl.rc_context(_SAME_BYTES):
                figure.savefig(folder / f"{key}.png", dpi=120)
                figure.savefig(folder / f"{key}.svg", metadata={"Date": None})
            drawn.append({"table": key, "file": f"{key}.svg", "alt": alt})
    return drawn


def _latency_by_length(table: Table, axes: Any) -> None:
    tokens = [int(row["name"].split()[0]) for row in table["rows"]]
    for who, color in _colors(table).items():
        axes.plot(tokens, _medians(table, who), marker="o", label=who, color=color)
    axes.set(xscale="log", yscale="log", xlabel="tokens", ylabel="milliseconds")
    axes.set_xticks(tokens, map(str, tokens))
    low, high = axes.get_ylim()
    marks = [factor * 10**power for power in range(-2, 4) for factor in (1, 2, 5)]
    axes.set_yticks(seen := [mark for mark in marks if low < mark < high], [f"{mark:g}" for mark in seen])
    axes.minorticks_off()
    axes.legend(frameon=False)


def _throughput_by_ladder(table: Table, axes: Any) -> None:
    values = table["rows"][0]["values"]
    bars = axes.barh(list(values), [value["median"] for value in values.values()], color=_OURS[0])
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel("texts a second")


def _memory_by_rungs(table: Table, axes: Any) -> None:
    rungs = list(range(1, len(table["rows"]) + 1))
    for who, color in _colors(table).items():
        axes.plot(rungs, _medians(table, who), marker="o", label=who, color=color)
    axes.set(xlabel="rungs", ylabel="MiB", ylim=(0, None))
    axes.legend(frameon=False)


def _speed_ups(table: Table, axes: Any) -> None:
    """Bars in groups: how many times faster than the slowest of those whose user code is the same."""
    names = [row["name"] for row in table["rows"]]
    slowest = _medians(table, _BASELINE)
    people = {who: color for who, color in _colors(table).items() if not who.startswith("by hand")}
    width = 0.8 / len(people)
    for place, (who, color) in enumerate(people.items()):
        heights = [base / value for base, value in zip(slowest, _medians(table, who), strict=True)]
        bars = axes.bar([index + place * width for index in range(len(names))], heights, width, label=who, color=color)
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=7)
    axes.set_xticks([index + 0.4 - width / 2 for index in range(len(names))], names)
    axes.set_ylabel(f"times as fast as {_BASELINE}")
    axes.margins(y=0.35)  # room for the names, above all bars
    axes.legend(frameon=False, loc="upper center", ncols=3)


_BASELINE = "PyTorch"
_PLOTS: Mapping[str, tuple[Callable[[Table, Any], None], str]] = {
    "short": (_speed_ups, "One short text: speed-up over transformers' pipeline on PyTorch"),
    "list": (_speed_ups, "A list of texts: speed-up over transformers' pipeline on PyTorch"),
    "lengths": (_latency_by_length, "Latency by length, MiniLM"),
    "ladders": (_throughput_by_ladder, "Throughput by ladder, MiniLM"),
    "memory": (_memory_by_rungs, "Memory by rungs, BERT-base"),
}


def _colors(table: Table) -> dict[str, str]:
    """Everybody in a table, theirs in gray and ours in green."""
    ours, theirs = iter(_OURS), iter(_THEIRS)
    people = dict.fromkeys(who for row in table["rows"] for who in row["values"])
    return {who: next(ours if who.startswith("ours") else theirs, "#000000") for who in people}


def _medians(table: Table, who: str) -> list[float]:
    return [row["values"].get(who, {"median": float("nan")})["median"] for row in table["rows"]]
