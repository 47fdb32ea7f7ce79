"""`Embedding`: what the columns of a table become before the first layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpumlp import checks
from gpumlp.backends.arrays import is_cuda
from gpumlp.errors import suggest

__all__ = ["KINDS", "Embedding"]

#: kind -> what a number x becomes
KINDS = {
    "cosine": "a0 x + c0, and a cos(2 pi (w x + b)) + c for each of `size` learnt frequencies w",
    "periodic": "cos(2 pi w x) and sin(2 pi w x) of learnt frequencies w, a linear layer of its own, ReLU",
    "piecewise": "its place in each of several bins, 0 below and 1 above it, and a linear layer of its own",
}
_MOST_CODES = 1 << 24  # float32 holds all whole numbers up to it


@dataclass(frozen=True)
class Embedding:
    """What the columns of a table become before the first layer of an `MLP`.

    The first layer reads the embedded numbers, then the embedded categories, then all other columns as they
    are.

    Parameters
    ----------
    kind : str or None
        "cosine", "periodic" or "piecewise": what numbers become, see `KINDS`.  None: they stay numbers.
    size : int
        Outputs per number; "cosine" has one more, the linear one.
    scale : float
        Standard deviation of the first frequencies ("cosine" and "periodic"), for numbers of size 1.
    frequencies : int
        Frequencies per number ("periodic").
    edges : sequence of sequences of float
        Limits of the bins of each number, ascending ("piecewise"); `Embedding.piecewise` takes them from
        data.  The first bin has no lower and the last one no upper limit.
    columns : sequence of int, optional
        The columns that are embedded as numbers; None: all that are not categories.
    categories : dict of int to int
        Number of categories of each column that holds codes, whole numbers from 0.  A code becomes a learnt
        vector.
    category_size : int
        Length of these vectors.

    Notes
    -----
    Parameters are called `frequency`, `phase`, `amplitude` and `shift` (cosine), `frequency`, `weight` and
    `bias` (periodic), `weight` and `bias` (piecewise), `vectors` (categories, those of the first column
    first); see `MLP.embedding_parameters`.  Decay and penalties are for amplitudes, weights and vectors, not
    for frequencies, phases, shifts and biases.  First values: frequencies N(0, scale^2), cut at 3 standard
    deviations; amplitudes, phases and shifts 0; weights and biases U(-a, a) with a = 1 / sqrt(inputs);
    vectors the same with a = 1 / sqrt(category_size).

    Raises
    ------
    ValueError, TypeError
        Settings that do not define an embedding.

    Examples
    --------
    >>> import gpumlp
    >>> embedding = gpumlp.Embedding("cosine", 4, categories={2: 5})
    >>> model = gpumlp.MLP([3, 8, 1], embedding=embedding, device="cpu")
    >>> model.forward([[0.3, -1.2, 4]]).shape
    (1, 1)
    """

    kind: str | None = "cosine"
    size: int = 16
    scale: float = 0.1
    frequencies: int = 24
    edges: Sequence[Sequence[float]] | None = None
    columns: Sequence[int] | None = None
    categories: Mapping[int, int] = field(default_factory=dict)
    category_size: int = 8

    def __post_init__(self) -> None:
        if self.kind is not None and (not isinstance(self.kind, str) or self.kind not in KINDS):
            raise ValueError(suggest("kind", self.kind, KINDS))
        self._set("scale", float(checks.number("scale", self.scale, 0)))
        for name in ("size", "frequencies", "category_size"):
            self._set(name, _whole(name, getattr(self, name), 1))
        if self.columns is not None:
            self._set("columns", tuple(_whole("columns", n, 0) for n in _sequence("columns", self.columns)))
        if not isinstance(self.categories, Mapping):
            raise TypeError(
                f"categories is {type(self.categories).__name__}; expected a dict of column to number of "
                "categories"
            )
        codes = {_whole("categories", n, 0): _whole("categories", m, 1) for n, m in self.categories.items()}
        if max(codes.values(), default=0) > _MOST_CODES:
            raise ValueError(
                f"categories has a column of {max(codes.values())}; expected at most {_MOST_CODES}"
            )
        self._set("categories", dict(sorted(codes.items())))
        if (self.edges is not None) != (self.kind == "piecewise"):
            raise ValueError(
                f"kind={self.kind!r} and edges={'None' if self.edges is None else '[...]'}; expected edges "
                "with kind='piecewise' and no other (Embedding.piecewise makes them from data)"
            )
        if self.edges is not None:
            self._set("edges", tuple(_edges(n, row) for n, row in enumerate(_sequence("edges", self.edges))))
        repeated = len(set(self.columns or ())) < len(self.columns or ())
        if repeated or set(self.columns or ()) & codes.keys():
            raise ValueError(
                f"columns={list(self.columns or ())} and categories of columns {list(self.categories)}; "
                "expected each column once"
            )

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def piecewise(
        cls, X: Any, size: int = 16, *, bins: int = 32, columns: Sequence[int] | None = None, **more: Any
    ) -> Embedding:
        """A piecewise embedding whose bins hold equally many of the numbers in each column of `X`.

        Parameters
        ----------
        X : array-like (n_rows, n_inputs)
            Training rows: finite numbers.
        bins : int
            Most bins of a column; it has fewer if it has fewer distinct values.
        size, columns, **more
            See `Embedding`.
        """
        bins = _whole("bins", bins, 1)
        host = np.asarray(X.get() if is_cuda(X) else X)
        if host.ndim != 2 or host.dtype.kind not in "biuf" or not len(host):
            raise ValueError(
                f"X is {host.dtype} of shape {host.shape}; expected rows of numbers, in two dimensions"
            )
        probe = cls(None, columns=columns, categories=more.get("categories", {}))
        places = probe.numbers(host.shape[1])
        edges: list[Any] = []
        for n in places:
            column = np.unique(np.quantile(host[:, n].astype(np.float64), np.linspace(0, 1, bins + 1)))
            edges.append(column if len(column) > 1 else column[0] + np.array([0.0, 1.0]))
        return cls("piecewise", size, edges=edges, columns=columns, **more)

    # ---- sizes, without lists of columns: they come out of files too -------------------------------------
    def n_numbers(self, n_inputs: int) -> int:
        """How many columns are embedded as numbers; ValueError if a column is not there."""
        last = max((*(self.columns or ()), *self.categories), default=-1)
        if last >= n_inputs:
            raise ValueError(f"the embedding has column {last}; the network has {n_inputs} inputs, from 0 on")
        count = n_inputs - len(self.categories) if self.columns is None else len(self.columns)
        if self.edges is not None and len(self.edges) != count:
            raise ValueError(f"edges has {len(self.edges)} entries; expected one for each of {count} numbers")
        return 0 if self.kind is None else count

    def per_number(self) -> int:
        """Outputs per number."""
        return self.size + (self.kind == "cosine")

    def width(self, n_inputs: int) -> int:
        """How many numbers the first layer reads."""
        numbers = self.n_numbers(n_inputs)
        rest = n_inputs - numbers - len(self.categories)
        return numbers * self.per_number() + len(self.categories) * self.category_size + rest

    def inner(self) -> int:
        """Inputs of a number's own linear layer, without the constant 1; 0 if it has none."""
        if self.edges is not None:
            return max((len(row) - 1 for row in self.edges), default=1)
        return 2 * self.frequencies if self.kind == "periodic" else 0

    def shapes(self, n_inputs: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters, by name."""
        n, size, found = self.n_numbers(n_inputs), self.size, dict[str, tuple[int, ...]]()
        if n and self.kind == "cosine":
            found.update(frequency=(n, size), phase=(n, size), amplitude=(n, size + 1), shift=(n, size + 1))
        if n and self.kind == "periodic":
            found["frequency"] = (n, self.frequencies)
        if n and self.inner():
            found.update(weight=(n, self.inner(), size), bias=(n, size))
        if self.categories:
            found["vectors"] = (sum(self.categories.values()), self.category_size)
        return found

    def numbers(self, n_inputs: int) -> list[int]:
        """The columns that are embedded as numbers, were `kind` not None."""
        if self.columns is not None:
            return list(self.columns)
        return [n for n in range(n_inputs) if n not in self.categories]

    def key(self) -> tuple:
        """Equal for embeddings that networks of one plan may have: all but bins, and what the first values
        are drawn from."""
        return tuple(str(value) for name, value in self.header().items() if name not in ("scale", "edges"))

    def summary(self) -> str:
        """In a few words."""
        kind = "" if self.kind is None else f"{self.kind} embedding of {self.size}"
        count = len(self.categories)
        codes = f"{count} column{'s' * (count > 1)} of codes embedded" if count else ""
        return " and ".join(filter(None, (kind, codes))) or "no embedding"

    # ---- files ---------------------------------------------------------------------------------------
    def header(self) -> dict[str, Any]:
        """What JSON can hold; `from_header` reads it."""
        return {
            "kind": self.kind,
            "size": self.size,
            "scale": self.scale,
            "frequencies": self.frequencies,
            "edges": None if self.edges is None else [list(row) for row in self.edges],
            "columns": None if self.columns is None else list(self.columns),
            "categories": [list(pair) for pair in self.categories.items()],
            "category_size": self.category_size,
        }

    @classmethod
    def from_header(cls, header: Any) -> Embedding:
        """ValueError or TypeError if it is not one."""
        if not isinstance(header, dict):
            raise TypeError(f"an embedding is a dict, not {type(header).__name__}")
        values = dict(header)
        values["categories"] = dict(values.get("categories", ()))
        return cls(**values)


def _whole(name: str, value: Any, least: int) -> int:
    return int(checks.whole(name, value, least))


def _sequence(name: str, value: Any) -> list[Any]:
    if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__len__"):
        raise TypeError(f"{name}={value!r}; expected a sequence")
    return list(value)


def _edges(number: int, row: Any) -> tuple[float, ...]:
    try:
        found = tuple(float(value) for value in row)
    except (TypeError, ValueError):
        found = ()
    rising = all(a < b for a, b in zip(found[:-1], found[1:], strict=True))
    if len(found) < 2 or not rising or not all(map(math.isfinite, found)):
        raise ValueError(f"edges[{number}] is not at least two finite numbers in ascending order")
    return found
