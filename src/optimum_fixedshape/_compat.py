"""The only file that knows library versions, and which base classes exist."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from .errors import MissingExtraError


def has_optimum_onnx() -> bool:
    """Whether ``optimum-onnx`` is installed."""
    return importlib.util.find_spec("optimum.onnxruntime") is not None


def model_base(name: str) -> type:
    """Returns optimum's model class called `name`, else its base of all models.

    That is `ORTModel`, or `OptimizedModel` where ``optimum-onnx`` is not installed.
    """
    if has_optimum_onnx():
        classes = importlib.import_module("optimum.onnxruntime")
        return getattr(classes, name, classes.ORTModel)  # type: ignore[no-any-return]
    return importlib.import_module("optimum.modeling_base").OptimizedModel  # type: ignore[no-any-return]


def stock_pipeline(name: str) -> type | None:
    """Returns transformers' pipeline class called `name`, or None where this transformers has dropped it."""
    return getattr(importlib.import_module("transformers.pipelines"), name, None)


def register_with_auto_class(auto_name: str, model_class: type) -> None:
    """Makes transformers' own `pipeline()` know `model_class`, under a key that no PyTorch model uses.

    Without it `pipeline()` accepts the model all the same, but logs an error with every model name it knows.
    """
    import transformers

    auto_class = getattr(transformers, auto_name)
    auto_class._model_mapping.register(model_class, model_class, exist_ok=True)


def repo_errors() -> tuple[type[Exception], ...]:
    """The errors by which the Hub's client says that a repo id is malformed, unknown, private or not in the cache."""
    from huggingface_hub import errors

    names = ("HFValidationError", "RepositoryNotFoundError", "RevisionNotFoundError", "LocalEntryNotFoundError")
    return tuple(getattr(errors, name) for name in names)


def outage_errors() -> tuple[type[Exception], ...]:
    """The errors by which the Hub's client says that the Hub cannot be reached, or answers with an error of its own."""
    from huggingface_hub.errors import HfHubHTTPError

    found: list[type[Exception]] = [HfHubHTTPError, ConnectionError, TimeoutError]
    for library, error in (("requests", "RequestException"), ("httpx", "TransportError"), ("httpx2", "TransportError")):
        if importlib.util.find_spec(library):
            found.append(getattr(importlib.import_module(library), error))
    return tuple(found)


def imported(package: str, extra: str, what: str) -> Any:
    """Returns a module of an optional dependency.

    Args:
        package: The module's name.
        extra: The extra of this package that installs it.
        what: What needs it, for the message.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = package.partition(".")[0]
        raise MissingExtraError(
            f'{what} needs {name}, which is not installed: pip install "optimum-fixedshape[{extra}]"', extra=extra
        ) from error
