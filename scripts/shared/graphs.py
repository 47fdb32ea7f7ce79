"""What CUDA says about a graph."""

from __future__ import annotations

import graphlib
import re
from collections import Counter

__all__ = ["graph_of"]


def graph_of(dot: str) -> tuple[int, int, Counter[str]]:
    """(nodes, nodes on the longest path, kernels by name) of a graph in CUDA's dot text."""
    before: dict[str, set[str]] = {}
    for line in dot.splitlines():
        edge = re.match(r'\s*"?(\w+)"?\s*->\s*"?(\w+)"?', line)
        node = re.match(r'\s*"?(\w+)"?\s*\[', line)
        if edge:
            before.setdefault(edge[1], set())
            before.setdefault(edge[2], set()).add(edge[1])
        elif node and node[1] not in ("graph", "node", "edge"):
            before.setdefault(node[1], set())
    depth: dict[str, int] = {}
    for name in graphlib.TopologicalSorter(before).static_order():
        depth[name] = 1 + max((depth[n] for n in before[name]), default=0)
    return len(depth), max(depth.values(), default=0), Counter(re.findall(r"gpumlp_\w+", dot))
