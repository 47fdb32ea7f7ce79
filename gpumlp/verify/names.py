"""What every registry asks of a new entry."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, MutableMapping
from typing import Any, TypeVar

__all__ = ["admit"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_Kept = TypeVar("_Kept")


def admit(
    kind: str,
    registry: MutableMapping[str, _Kept],
    package: Collection[str],
    entry: _Kept,
    name: Any,
    same: Callable[[_Kept, _Kept], bool],
    check: Callable[[], Any],
    replace: bool,
) -> _Kept:
    """Put `entry` into `registry` after `check()`; returns what is registered under its name.

    Parameters
    ----------
    kind : str
        "activation", "loss" or "optimizer", for messages.
    package : collection of str
        Names that belong to the package.
    same : callable
        Whether two entries say the same: then there is nothing to do.
    replace : bool
        Whether another entry of that name may be replaced.

    Raises
    ------
    ValueError
        The name cannot be one, or belongs to another entry.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"{kind}: name={name!r}; expected a letter followed by letters, digits and underscores: it "
            "becomes a part of names in C++"
        )
    known = registry.get(name)
    if known is not None and same(known, entry):
        return known
    if known is not None and (name in package or not replace):
        which = "one of the package's" if name in package else "registered already, as another one"
        hint = "" if name in package else ", or replace it: gpumlp.register(..., replace=True)"
        raise ValueError(f"the {kind} {name!r} is {which}; give yours another name{hint}")
    check()
    registry[name] = entry
    return entry
