"""What every fixed processor is: an object of the user's own class in all but the shapes that the graph sets."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count, islice
from typing import Any, ClassVar, get_args

from optimum_fixedshape.errors import InvalidArgumentError, ProcessorError
from optimum_fixedshape.fitting import Feed, Fill, fit, prepare
from optimum_fixedshape.ladder import ShapeLadder
from optimum_fixedshape.tasks import Overflow

_ROWS_OF_A_FREE_BATCH = 32


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


def check_kind(processor: Any, base: type, name: str) -> None:
    """Raises an error if a processor is not of the class that is needed.

    Raises:
        ProcessorError: It is not.
    """
    if not isinstance(processor, base):
        given = type(processor).__name__
        raise ProcessorError(f"{name} of transformers is needed, got {given}.", expected=base.__name__, given=given)


def check_overflow(overflow: Any) -> None:
    """Raises an error if `overflow` is no policy.

    Raises:
        InvalidArgumentError: It is none.
    """
    if overflow not in get_args(Overflow):
        raise InvalidArgumentError(f"overflow must be 'error', 'truncate' or 'window', got {overflow!r}.")


def feeds_of(
    items: Iterable[Any],
    make: Callable[[list[Any], int], Any],
    ladder: ShapeLadder,
    batch_role: str | None,
    fill: Callable[[], Fill] = Fill,
) -> Iterator[Feed]:
    """Yields feeds for a bare session that together hold all items, in order, read as needed.

    Args:
        items: Any number.
        make: The graph's inputs for some of them, the first of which has this place among all.
        ladder: The graph's contracts.
        batch_role: What the graph calls the rows of these items.
        fill: What stands in the padded places.
    """
    remaining = iter(items)
    rows = ladder.largest.sizes.get(batch_role or "") or _ROWS_OF_A_FREE_BATCH
    for first in count(step=rows):  # pragma: no branch  # it never ends by itself
        if not (chunk := list(islice(remaining, rows))):
            return
        arrays, sizes = prepare(make(chunk, first), ladder.largest)
        yield from fit(arrays, ladder.rungs[ladder.choose(sizes)], fill())


def named_arguments(method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a call of `method` by name."""
    return {**dict(zip(_argument_names(method), args, strict=False)), **kwargs}


def _blank(mixin: type, plain: type) -> Any:
    return object.__new__(_fixed_class(mixin, plain))


@functools.cache
def _fixed_class(mixin: type, plain: type) -> type:
    facts: dict[str, Any] = {"__module__": plain.__module__, "__doc__": plain.__doc__, "_plain_class": plain}
    fixed = type(plain.__name__, (mixin, plain), facts | mixin.facts_of(plain))  # type: ignore[attr-defined]
    # Python notes a class's slots in it at the first copy: done now, since `datasets` hashes it by what is in it.
    object.__getstate__(object.__new__(fixed))
    return fixed


def _mixin_of(fixed: type) -> type:
    return fixed.__mro__[1]


@functools.cache
def _argument_names(method: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(method).parameters)[1:]
