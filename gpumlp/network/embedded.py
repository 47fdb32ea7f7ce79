"""`Embedded`: an embedding of a network's inputs, and where its parameters lie in the flat buffer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.network.embedding import Embedding
from gpumlp.network.layers import pad

__all__ = ["Embedded", "Part"]

_ALIGN = 64  # elements between starts of blocks, as of layers


@dataclass(frozen=True)
class Part:
    """One array of parameters in the flat buffer: `index` of a block of shape `block` at `offset`."""

    name: str
    offset: int
    block: tuple[int, ...]
    index: tuple[slice, ...]

    def view(self, flat: Any) -> Any:
        """View of the array in a flat buffer; axes of `flat` before the last one stay."""
        whole = flat[..., self.offset : self.offset + math.prod(self.block)]
        return whole.reshape(*flat.shape[:-1], *self.block)[(..., *self.index)]


class Embedded:
    """An embedding of a network's inputs: which columns are what, and where the parameters lie.

    Attributes
    ----------
    embedding : Embedding
    numbers, codes, rest : list of int
        Columns that are embedded as numbers and as categories, and all others.
    width : int
        How many numbers the first layer reads.
    number_rows, code_rows : int
        How many of them come from the numbers, and from the categories.
    per : int
        Rows of a number's own linear layer: its inputs, the constant 1 and zeros to a multiple of 8.
    parts : dict of str to Part
    start, stop : int
        Where the parameters lie in the flat buffer.
    """

    def __init__(self, embedding: Embedding, n_inputs: int, start: int) -> None:
        self.embedding, self.start = embedding, start
        count = embedding.n_numbers(n_inputs)
        self.numbers = embedding.numbers(n_inputs) if count else []
        self.codes = list(embedding.categories)
        used = {*self.numbers, *self.codes}
        self.rest = [n for n in range(n_inputs) if n not in used]
        self.width = embedding.width(n_inputs)
        self.number_rows = count * embedding.per_number()
        self.code_rows = len(self.codes) * embedding.category_size
        self.inner = embedding.inner() if count else 0
        self.per = -(-(self.inner + 1) // 8) * 8 if self.inner else 0
        self.begin = np.cumsum([0, *embedding.categories.values()])
        self.parts: dict[str, Part] = {}
        self._decay: list[tuple[int, int]] = []
        self.stop = self._place(embedding, count, start)

    def _place(self, e: Embedding, count: int, at: int) -> int:
        """Fill `parts`; returns where the flat buffer ends."""

        def block(*shape: int) -> int:
            nonlocal at
            here, at = at, at + -(-math.prod(shape) // _ALIGN) * _ALIGN
            return here

        everything = slice(None)
        if count and e.kind == "cosine":
            row = -(-self.number_rows // 8) * 8
            here = block(4, row)
            for number, name in enumerate(("frequency", "phase", "amplitude", "shift")):
                own = slice(1, None) if number < 2 else everything
                shape = (count, e.size + 1)
                self.parts[name] = Part(name, here + number * row, shape, (everything, own))
            self._decay.append((here + 2 * row, here + 3 * row))
        if count and e.kind == "periodic":
            shape = (count, e.frequencies)
            self.parts["frequency"] = Part("frequency", block(*shape), shape, (everything,))
        if self.inner:
            wide = pad(e.size)
            step, biases = self.per * wide, self.inner * wide  # the biases are the row behind the weights
            here, own = block(count, step), slice(biases, biases + e.size)
            weights = (everything, slice(self.inner), slice(e.size))
            self.parts["weight"] = Part("weight", here, (count, self.per, wide), weights)
            self.parts["bias"] = Part("bias", here, (count, step), (everything, own))
            self._decay += [(first, first + biases) for first in range(here, here + count * step, step)]
        if self.codes:
            vectors = (int(self.begin[-1]), pad(e.category_size))
            here = block(*vectors)
            self.parts["vectors"] = Part("vectors", here, vectors, (everything, slice(e.category_size)))
            self._decay.append((here, here + math.prod(vectors)))
        return at

    @property
    def order(self) -> list[int]:
        """The columns in the order in which they are embedded."""
        return [*self.numbers, *self.codes, *self.rest]

    @property
    def segments(self) -> list[tuple[int, int, float]]:
        """Ranges of the flat buffer with decay 1, and those between them with decay 0."""
        found, at = [], self.start
        for start, stop in self._decay:
            found += [(at, start, 0.0), (start, stop, 1.0)]
            at = stop
        return [each for each in (*found, (at, self.stop, 0.0)) if each[0] < each[1]]

    def views(self, flat: Any) -> dict[str, Any]:
        """Views of the parameters in a flat buffer, by name."""
        return {name: part.view(flat) for name, part in self.parts.items()}

    def bins(self, embedding: Embedding | None = None) -> np.ndarray:
        """(4, numbers, per) for `kernels.embeddings.PIECEWISE`: of each number its bins, rows that are 0, the
        row of ones, and zeros; with `embedding`, another one's bins, of which there may be fewer."""
        bins = np.zeros((4, len(self.numbers), self.per))
        for number, edges in enumerate((embedding or self.embedding).edges or ()):
            count = len(edges) - 1
            bins[0, number, :count] = edges[:-1]
            bins[1, number, :count] = 1 / np.diff(edges)
            bins[2, number, 0] = -np.inf
            bins[3, number, :count] = 1
            bins[3, number, count - 1] = np.inf
        bins[2:, :, self.inner] = 1
        return bins

    def initial(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """First values in float64, drawn in the order of `parts`; see `Embedding`."""
        e, found = self.embedding, {}
        for name, part in self.parts.items():
            shape = part.view(np.empty(self.stop, np.uint8)).shape
            if name == "frequency":
                found[name] = e.scale * np.clip(rng.normal(size=shape), -3, 3)
            elif name in ("weight", "bias", "vectors"):
                bound = 1 / math.sqrt(e.category_size if name == "vectors" else self.inner)
                found[name] = rng.uniform(-bound, bound, shape)
            else:
                found[name] = np.zeros(shape)
        return found

    def fill(self, host: np.ndarray, given: Any) -> None:
        """Write parameters into a flat buffer on the host; ValueError if a name or shape differs."""
        views = self.views(host)
        if not isinstance(given, Mapping) or set(given) != set(views):
            names = sorted(given) if isinstance(given, Mapping) else type(given).__name__
            raise ValueError(f"parameters of the embedding: {names}; expected a dict of {sorted(views)}")
        for name, view in views.items():
            if np.shape(given[name]) != view.shape:
                raise ValueError(
                    f"embedding: {name} of shape {np.shape(given[name])} was given, expected {view.shape}"
                )
            view[...] = given[name]
