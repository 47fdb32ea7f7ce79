"""`Entry`: what an activation and a loss have in common: they may be written as a class, and be compared."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Any

__all__ = ["Entry", "same_class", "same_entry"]


class Entry:
    """Base of `Activation` and `Loss`, whose fields a subclass may give as attributes and methods.

    Then an object of it is made without arguments, and it is pickled by the name of its class.
    """

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        if Entry not in cls.__bases__ and "__init__" not in vars(cls):
            cls.__init__ = _from_class  # type: ignore[method-assign]

    def __repr__(self) -> str:
        kind, own = type(self), "name" in vars(self)
        given = [repr(vars(self)["name"])] if own else []
        delta = vars(self).get("delta")
        return f"{kind.__name__}({', '.join(given + ([f'delta={delta!r}'] if delta is not None else []))})"


def _from_class(self: Any, *given: Any, **named: Any) -> None:
    names = [f.name for f in fields(self)]
    if len(given) > len(names):
        raise TypeError(f"{type(self).__name__} takes at most {len(names)} arguments ({', '.join(names)})")
    values = {**dict(zip(names, given, strict=False)), **named}
    for name in values:
        if name not in names:
            raise TypeError(f"{type(self).__name__} has no {name!r}; it has {', '.join(names)}")
    for name in names:
        if name in values:
            object.__setattr__(self, name, values[name])
        elif not hasattr(self, name):
            raise TypeError(f"{type(self).__name__} must define {name!r}")


def same_entry(one: Any, other: Any, but: Collection[str] = ()) -> bool:
    """Whether two entries say the same, also where their functions were made twice by the same code."""
    names = [f.name for f in fields(one) if f.name not in but]
    return one is other or all(_same(getattr(one, n, None), getattr(other, n, None)) for n in names)


def same_class(one: type, other: type) -> bool:
    """Whether two classes were made by the same code."""
    if one is other:
        return True
    if (one.__module__, one.__qualname__, one.__mro__[1:]) != (
        other.__module__,
        other.__qualname__,
        other.__mro__[1:],
    ):
        return False
    written = [{n: v for n, v in vars(c).items() if _is_written(n)} for c in (one, other)]
    return written[0].keys() == written[1].keys() and all(
        _same(v, written[1][n]) for n, v in written[0].items()
    )


def _is_written(name: str) -> bool:
    """Whether it was written in the class rather than made by `dataclass` or by Python."""
    return not (name.startswith("__") and name.endswith("__")) and not name.startswith("_abc")


def _same(one: Any, other: Any) -> bool:
    one, other = (getattr(f, "__func__", getattr(f, "fget", None) or f) for f in (one, other))
    if one is other:
        return True
    codes = [getattr(f, "__code__", None) for f in (one, other)]
    try:
        if codes[0] is None or codes[1] is None:
            return bool(one == other)
        return bool(codes[0] == codes[1] and _around(one) == _around(other))
    except ValueError:  # arrays
        return False


def _around(function: Any) -> tuple[Any, list[Any]]:
    """The values that a function has taken from where it was made."""
    return function.__defaults__, [cell.cell_contents for cell in function.__closure__ or ()]
