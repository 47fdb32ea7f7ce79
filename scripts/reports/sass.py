"""Reads NVIDIA machine code (SASS): what one thread executes on the way to its vector stores.

The kernels have one path that matters, on which a thread handles a whole vector of elements; beside it are
loops over the last elements of a row and slow paths of divisions, which are not counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_LINE = re.compile(r"/\*([0-9a-f]+)\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)\s*(.*?)\s*;")
_DOUBLE = re.compile(r"^(DADD|DMUL|DFMA|DSETP|DMNMX|DSET|DMMA)\b|F64|^MUFU\.\w*64H")
_REGISTER = re.compile(r"\bR(\d+)((?:\.reuse)?\.64)?")
_ENDS = ("EXIT", "RET", "BRA", "JMP", "BRX", "BREAK", "KILL")


@dataclass(frozen=True)
class Instruction:
    """One machine instruction: its address, predicate ("" if none), name with suffixes, and operands."""

    address: int
    predicate: str
    name: str
    operands: str

    @property
    def head(self) -> str:
        """Name without suffixes."""
        return self.name.split(".")[0]

    @property
    def width(self) -> int:
        """Bytes that a load or store of global memory moves per thread, 0 for anything else."""
        if self.head not in ("LDG", "STG", "LD", "ST"):
            return 0
        sizes = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}
        return next((sizes[part] for part in self.name.split(".")[1:] if part in sizes), 4)

    @property
    def is_double(self) -> bool:
        """Double-precision arithmetic or a conversion from or to it."""
        return _DOUBLE.search(self.name) is not None

    @property
    def target(self) -> int | None:
        """Address that a branch jumps to."""
        found = re.search(r"0x([0-9a-f]+)$", self.operands)
        return int(found[1], 16) if found and self.head in ("BRA", "JMP") else None


@dataclass(frozen=True)
class Traffic:
    """What one thread executes on the main path.

    Parameters
    ----------
    instructions : int
    load_widths, store_widths : dict of bytes -> number
    overlapping : int
        16-byte loads that are under way together.
    waits : int
        Times that a thread waits for earlier loads before its last 16-byte load is sent.
    """

    instructions: int
    load_widths: dict[int, int]
    store_widths: dict[int, int]
    overlapping: int
    waits: int

    def loaded(self, wide: bool) -> int:
        """Bytes loaded by 16-byte loads, or by all others."""
        return _bytes(self.load_widths, wide)

    def stored(self, wide: bool) -> int:
        """Bytes stored by 16-byte stores, or by all others."""
        return _bytes(self.store_widths, wide)


def _bytes(widths: dict[int, int], wide: bool) -> int:
    return sum(width * count for width, count in widths.items() if (width >= 16) == wide)


def parse(lines: Iterable[str]) -> list[Instruction]:
    """Instructions of one kernel, without the padding behind them."""
    found = []
    for line in lines:
        match = _LINE.match(line.strip())
        if match:
            found.append(Instruction(int(match[1], 16), match[2] or "", match[3], match[4]))
    while found and found[-1].head == "NOP":
        found.pop()
    return found


def traffic(code: Sequence[Instruction]) -> Traffic:
    """Count the loads and stores of the main path; without 16-byte stores, of everything reachable."""
    blocks, edges = _blocks(code)
    wide = [n for n, block in enumerate(blocks) if any(i.head == "STG" and i.width >= 16 for i in block)]
    reachable = _reach(edges, [0])
    if wide:
        back = {b: [a for a in edges if b in edges[a]] for b in edges}
        reachable &= _reach(back, wide) | _reach(edges, wide)
    path = [i for n in sorted(reachable) for i in blocks[n]]
    loads = Counter(i.width for i in path if i.width and i.head.startswith("LD"))
    stores = Counter(i.width for i in path if i.width and i.head.startswith("ST"))
    overlapping, waits = _overlap(path)
    return Traffic(len(path), dict(loads), dict(stores), overlapping, waits)


def _blocks(code: Sequence[Instruction]) -> tuple[list[list[Instruction]], dict[int, list[int]]]:
    """Basic blocks in the order of their addresses, and the edges between them that close no loop."""
    starts = {code[0].address} | {i.target for i in code if i.target is not None}
    starts |= {after.address for before, after in zip(code, code[1:], strict=False) if before.head in _ENDS}
    blocks: list[list[Instruction]] = []
    for instruction in code:
        if instruction.address in starts or not blocks:
            blocks.append([])
        blocks[-1].append(instruction)
    number = {block[0].address: n for n, block in enumerate(blocks)}
    edges: dict[int, list[int]] = {}
    for n, block in enumerate(blocks):
        last = block[-1]
        goes = [] if last.target is None else [number[last.target]] if last.target in number else []
        # `@P0 BRA !P1, target` is conditional as well
        always = last.head in _ENDS and not last.predicate and "P" not in last.operands.split("0x")[0]
        if not always and n + 1 < len(blocks):
            goes.append(n + 1)
        edges[n] = goes
    return blocks, _without_loops(edges)


def _without_loops(edges: dict[int, list[int]]) -> dict[int, list[int]]:
    """The graph without the edges that lead back to a block on the way to them (depth first from block 0)."""
    kept: dict[int, list[int]] = {n: [] for n in edges}
    state = dict.fromkeys(edges, 0)  # 1: on the way, 2: done
    stack = [(0, iter(edges[0]))]
    state[0] = 1
    while stack:
        node, rest = stack[-1]
        follow = next(rest, None)
        if follow is None:
            state[node] = 2
            stack.pop()
        elif state[follow] != 1:
            kept[node].append(follow)
            if state[follow] == 0:
                state[follow] = 1
                stack.append((follow, iter(edges[follow])))
    return kept


def _reach(edges: dict[int, list[int]], start: Iterable[int]) -> set[int]:
    seen, todo = set(), list(start)
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo.extend(edges[node])
    return seen


def _overlap(path: Sequence[Instruction]) -> tuple[int, int]:
    """(16-byte loads sent before any of them is waited for, waits for loads before the last of them)."""
    wide = [n for n, i in enumerate(path) if i.head == "LDG" and i.width >= 16]
    if not wide:
        return 0, 0
    pending: set[int] = set()
    together = best = waits = 0
    for instruction in path[: wide[-1] + 1]:
        sources = instruction.operands
        if instruction.head not in ("STG", "ST", "BRA") and "," in sources:
            sources = sources.split(",", 1)[1]
        if pending & _registers(sources):
            pending, together, waits = set(), 0, waits + 1
        if instruction.head == "LDG":
            first = _REGISTER.match(instruction.operands)
            if first:
                pending |= set(range(int(first[1]), int(first[1]) + max(1, instruction.width // 4)))
            if instruction.width >= 16:
                together += 1
                best = max(best, together)
    return best, waits


def _registers(text: str) -> set[int]:
    found = set()
    for match in _REGISTER.finditer(text):
        found.add(int(match[1]))
        if match[2]:
            found.add(int(match[1]) + 1)
    return found
