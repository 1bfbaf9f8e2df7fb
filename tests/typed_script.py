"""What typed programs of users look like, to be read by ``mypy --strict``: it never runs.

In the second half each line is a mistake. mypy must find it: where it does not, the comment itself is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

from optimum_fixedshape import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Batcher,
    FixedShapeConfig,
    FixedShapeError,
    InputTooLongError,
    ORTModelForSequenceClassification,
    ShapeContract,
    ShapeLadder,
    bench_model,
    check_model,
    detect_task,
    export_model,
    generate_inputs,
    pin_shapes,
    pipeline,
    read_contract,
    report_ladder,
    suggest_ladder,
    write_config,
)


def make_graphs(model: str, folder: Path) -> Path:
    exported = export_model(model, folder, shapes={"batch_size": 8, "sequence_length": [16, 64]}, dtype="int8")
    pinned = pin_shapes(exported, "pinned", {"batch_size": 1}, optimize=True)
    return write_config(assert_type(pinned, Path), labels=["no", "yes"])


def look_at(path: Path) -> list[str]:
    contract = assert_type(read_contract(path), ShapeContract)
    shapes = [str(array.shape) for array in generate_inputs(contract, sizes={"batch_size": 2}).values()]
    report = check_model(path, "CPUExecutionProvider", original="my-org/bert-torch")
    times = bench_model(path, rounds=3)
    return [*shapes, str(detect_task(contract)), str(assert_type(report.ok, bool)), str(times.to_dict())]


def find_ladder(path: Path, texts: list[str]) -> str:
    suggestion = suggest_ladder([len(text) for text in texts], max_rungs=4)
    return f"{suggestion.to_dict()} {assert_type(report_ladder(path, texts).shape_option, str)}"


def answer(path: Path, texts: list[str]) -> list[str]:
    model = ORTModelForSequenceClassification.from_pretrained(path, shapes={"sequence_length": [16, 32]}, max_open=2)
    assert_type(model, ORTModelForSequenceClassification)
    assert_type(AutoModelForSequenceClassification.from_pretrained(path), ORTModelForSequenceClassification)
    tokenizer = AutoTokenizer.from_model(model, overflow="window")
    pipe = pipeline("text-classification", model=model, tokenizer=tokenizer)
    assert_type(model.fixed_shape_config, FixedShapeConfig)
    try:
        return [each["label"] for each in pipe(texts)]
    except InputTooLongError as error:
        raise SystemExit(f"{assert_type(error.size, int)} tokens, and {error.limit} fit") from error
    except FixedShapeError:
        return []


async def serve(text: str) -> int:
    def lengths_of(texts: list[str]) -> list[int]:
        return [len(each) for each in texts]

    return await Batcher[str, int](lengths_of, batch_size=8).acall(text)


def make_mistakes(path: Path, ladder: ShapeLadder) -> None:
    from optimum_fixedshape import ORTModelForEverything as Everything  # type: ignore[attr-defined]

    Everything.from_pretrained(path)
    export_model(path, path, shapes="16")  # type: ignore[arg-type]
    export_model(path, path, dtype="int4")  # type: ignore[arg-type]
    pin_shapes(path, path)  # type: ignore[call-arg]
    pin_shapes(path, path, {}, quantize=True)  # type: ignore[call-arg]
    pipeline("text-classification", model=path, overflow="cut")  # type: ignore[arg-type]
    ORTModelForSequenceClassification.from_pretrained(path, max_open="2")  # type: ignore[arg-type]
    AutoTokenizer.from_model(path, overflow="cut")  # type: ignore[arg-type]
    suggest_ladder(read_contract(path).lengths)  # type: ignore[attr-defined]
    suggest_ladder([16], max_rungs="4")  # type: ignore[arg-type]
    ladder.rungs = ()  # type: ignore[misc]
    ladder = check_model(path)  # type: ignore[assignment]
