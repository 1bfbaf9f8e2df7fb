"""What every fixed processor is: an object of the user's own class in all but the shapes that the graph sets."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from optimum_fixedshape.ladder import ShapeLadder


class FixedShapeProcessor:
    """Mixed into the user's class by `fix`; keeps what it was told apart from what it was.

    Attributes:
        ladder: The graph's contracts.
    """

    ladder: ShapeLadder
    _plain_class: type[Any]
    _told: Mapping[str, tuple[Any, Any]]
    _added: ClassVar[frozenset[str]] = frozenset({"ladder", "_told"})

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Returns a plain processor: only `from_model` knows a graph."""
        return cls._plain_class(*args, **kwargs)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Returns a plain processor of the user's class."""
        return cls._plain_class.from_pretrained(*args, **kwargs)

    def plain(self) -> Any:
        """Returns the processor as transformers made it, without the graph's shapes."""
        twin = object.__new__(self._plain_class)
        twin.__dict__.update({name: value for name, value in self.__dict__.items() if name not in self._added})
        for name, (told, original) in self._told.items():
            if getattr(self, name) == told:
                setattr(twin, name, original)
        return self._own_copy(twin)

    @staticmethod
    def facts_of(plain: type) -> dict[str, Any]:
        """What else the class of a fixed processor needs, for a user's class of this kind."""
        return {}

    def _own_copy(self, plain: Any) -> Any:
        return copy.deepcopy(plain)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """Saves the processor as transformers made it, so that stock transformers loads it."""
        return self.plain().save_pretrained(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _blank, (_mixin_of(type(self)), self._plain_class), self.__getstate__()


def fix(
    mixin: type[FixedShapeProcessor], plain: Any, ladder: ShapeLadder, told: Mapping[str, Any], **facts: Any
) -> Any:
    """Returns `plain` as an object of its own class with `mixin` before it.

    Args:
        mixin: What makes a processor of this kind know a graph.
        plain: A processor of transformers that nobody else holds.
        ladder: The graph's contracts.
        told: Attributes that the graph sets, until `plain()` sets them back.
        **facts: Attributes that `mixin` adds: those of its `_added`.
    """
    fixed = _blank(mixin, type(plain))
    fixed.__dict__.update(plain.__dict__, ladder=ladder, **facts)
    fixed.__dict__["_told"] = {name: (value, getattr(plain, name)) for name, value in told.items()}
    for name, value in told.items():
        setattr(fixed, name, copy.copy(value))
    return fixed


def named_arguments(method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a call of `method` by name."""
    return {**dict(zip(_argument_names(method), args, strict=False)), **kwargs}


def _blank(mixin: type, plain: type) -> Any:
    return object.__new__(_fixed_class(mixin, plain))


@functools.cache
def _fixed_class(mixin: type, plain: type) -> type:
    facts: dict[str, Any] = {"__module__": plain.__module__, "__doc__": plain.__doc__, "_plain_class": plain}
    return type(plain.__name__, (mixin, plain), facts | mixin.facts_of(plain))  # type: ignore[attr-defined]


def _mixin_of(fixed: type) -> type:
    return fixed.__mro__[1]


@functools.cache
def _argument_names(method: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(method).parameters)[1:]
