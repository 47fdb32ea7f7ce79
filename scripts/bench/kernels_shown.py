"""What `bench_kernels.py` makes of its cells: comparison, verdicts, tables, the figure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from scripts.bench.kernel_cells import BUSY, LIMITS, NOISY, Result, bytes_moved
from scripts.bench.update_peers import COPY, REWRITE
from scripts.shared.show import COLORS, duration, pyplot, table


# ---- comparing ---------------------------------------------------------------------------------------------
def compare(results: list[Result]) -> list[dict[str, Any]]:
    """Our compiled kernels beside PyTorch's fused form, or its fastest one where there is no fused form.

    `ratio` is our time over PyTorch's (see `Result.over`), None without PyTorch.
    """
    rows = []
    for r in results:
        if (
            r.kind not in ("update", "plan")
            or r.candidate.startswith("numpy")
            or "(simulated)" in r.candidate
        ):
            continue
        same = [o for o in results if (o.rule, o.size, o.on_cuda) == (r.rule, r.size, r.on_cuda)]
        forms = {o.candidate.split()[1]: o for o in same if o.candidate.startswith("torch")}
        form = "fused" if "fused" in forms else min(forms, key=lambda f: forms[f].seconds, default="")
        torch = forms.get(form)
        copy = min((o for o in same if o.kind == COPY), key=lambda o: o.seconds)
        rows.append(
            {
                **asdict(r),
                "torch_form": form,
                "torch_seconds": torch.seconds if torch else None,
                "torch_spread": torch.spread if torch else None,
                "ratio": r.over(torch) if torch else None,
                "noisy": max(o.spread for o in (r, torch, copy) if o) > NOISY or r.others > BUSY,
                "copy": copy.candidate,
                "copy_gb_per_s": copy.gb_per_s,
                "rewrite_gb_per_s": max((o.gb_per_s for o in same if o.kind == REWRITE), default=None),
            }
        )
    return rows


def misses(row: dict[str, Any], figure: str, limit: float) -> bool:
    """Whether a row of `compare` is on the wrong side of a limit."""
    return row[figure] > limit if figure == "ratio" else row[figure] < limit


def verdicts(compared: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per candidate and limit: how many cells it is about, how many miss it, and the worst of them."""
    found = []
    for name in dict.fromkeys(row["candidate"] for row in compared):
        for text, figure, limit, low, high in LIMITS:
            rows = [
                row
                for row in compared
                if row["candidate"] == name and low <= row["size"] <= high and row[figure] is not None
            ]
            if rows:
                worst = (max if figure == "ratio" else min)(rows, key=lambda row: row[figure])
                found.append(
                    {
                        "candidate": name,
                        "limit": text,
                        "cells": len(rows),
                        "missed": sum(misses(row, figure, limit) for row in rows),
                        "noisy": sum(row["noisy"] for row in rows),
                        "worst": worst[figure],
                        "worst_at": f"{worst['rule']}, {worst['size']:,}",
                    }
                )
    return found


# ---- showing -----------------------------------------------------------------------------------------------
def show(results: list[Result]) -> None:
    """One table per rule: candidates down, sizes across."""
    for rule in dict.fromkeys(r.rule for r in results):
        mine = [r for r in results if r.rule == rule]
        sizes = sorted({r.size for r in mine})
        cells = {(r.candidate, r.size): f"{duration(r.seconds)} {r.share:5.0%}" for r in mine}
        largest = {r.candidate: r.gb_per_s for r in mine if r.size == sizes[-1]}
        rows = [
            [name, *(cells.get((name, n), "") for n in sizes), f"{largest.get(name, float('nan')):.1f}"]
            for name in dict.fromkeys(r.candidate for r in mine)
        ]
        bytes_each = bytes_moved(rule, 1)
        print(f"\n{rule} ({bytes_each} bytes per parameter)")
        print(table(["", *(f"n = {n:,}" for n in sizes), "GB/s at the largest"], rows))


def _mark(row: dict[str, Any] | None, figure: str) -> str:
    if row is None or row[figure] is None:
        return ""
    about = [
        (limit, figure) for _, f, limit, low, high in LIMITS if f == figure and low <= row["size"] <= high
    ]
    if not about:  # shares of small arrays say little: the copy is in the cache as well
        return ""
    text = f"{row[figure]:.2g}" if figure == "ratio" else f"{row[figure]:.0%}"
    text += " ?" if row["noisy"] else ""
    return text + (" !" if any(misses(row, f, limit) for limit, f in about) else "")


def show_summary(compared: list[dict[str, Any]], found: list[dict[str, Any]]) -> None:
    """Per executor a line per rule and size, then the verdicts."""
    cells = {(row["rule"], row["size"], row["candidate"]): row for row in compared}

    def timing(seconds: float | None, spread: float | None) -> str:
        return "" if seconds is None else f"{duration(seconds)} +-{spread:.0%}"

    for executor in dict.fromkeys(row["candidate"].split()[0] for row in compared):
        lines = []
        for rule, size in dict.fromkeys((row["rule"], row["size"]) for row in compared):
            pair = [cells.get((rule, size, f"{executor} {kind}")) for kind in ("update", "plan")]
            any_of = next((row for row in pair if row), None)
            if any_of is None:
                continue
            times = [timing(row["seconds"], row["spread"]) if row else "" for row in pair]
            torch = timing(any_of["torch_seconds"], any_of["torch_spread"])
            copy = f"{any_of['copy_gb_per_s']:.1f} {any_of['copy'].split(' by ')[-1]}"
            rewrite = f"{any_of['rewrite_gb_per_s']:.1f}" if any_of["rewrite_gb_per_s"] else ""
            figures = [_mark(row, figure) for figure in ("ratio", "share") for row in pair]
            lines.append([rule, f"{size:,}", *times, torch, any_of["torch_form"], *figures, copy, rewrite])
        header = ["", "n", "update", "plan", "PyTorch", "form", "update/PyTorch", "plan/PyTorch"]
        print(f"\n{executor} (!: misses a limit, ?: large spread, or other programs ran)")
        print(table([*header, "update/copy", "plan/copy", "GB/s of the copy", "of a rewrite"], lines))
    print()
    for v in found:
        worst = f"{v['worst']:.2f} ({v['worst_at']})"
        noisy = f" ({v['noisy']} marked ?)" if v["noisy"] else ""
        good = v["cells"] - v["missed"]
        print(f"{v['candidate']} {v['limit']}: {good} of {v['cells']}{noisy}, worst {worst}")


def _lines(results: list[Result]) -> dict[str, dict[int, float]]:
    """Label -> {size: seconds} of one rule, with the copies (and rewrites) of a device as one line."""
    lines: dict[str, dict[int, float]] = {}
    for r in results:
        plain = r.kind in (COPY, REWRITE)
        label = ("cuda " if r.on_cuda else "") + f"fastest {r.kind}" if plain else r.candidate
        points = lines.setdefault(label, {})
        points[r.size] = min(r.seconds, points.get(r.size, r.seconds))
    return lines


def draw(results: list[Result], file: str) -> None:
    """Time by size, one panel per rule and one for the legend."""
    plt = pyplot()
    names = list(dict.fromkeys(r.rule for r in results))
    columns = min(4, len(names) + 1)
    rows = -(-(len(names) + 1) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.6 * columns, 3.3 * rows), sharex=True, sharey=True, squeeze=False
    )
    labels = list(_lines(results))
    # the same thing on host and GPU has one colour
    things = [" ".join(w for w in label.split() if w not in ("native", "cuda")) for label in labels]
    order = list(dict.fromkeys(t for t in things if "fastest" not in t))
    handles: dict[str, Any] = {}
    for number, (ax, rule) in enumerate(zip(axes.flat, names, strict=False)):
        lines = _lines([r for r in results if r.rule == rule])
        for label, thing in zip(labels, things, strict=True):
            plain = "fastest" in thing
            grey = "0.6" if REWRITE in thing else "0.2"
            style = {
                "color": grey if plain else COLORS[order.index(thing) % len(COLORS)],
                "linestyle": ":" if plain else ("--" if "cuda" in label.split() else "-"),
                "linewidth": 2.0 if thing in ("update", "plan") else 1.1,
            }
            if label in lines:
                sizes, seconds = zip(*sorted(lines[label].items()), strict=True)
                (handles[label],) = ax.plot(sizes, seconds, marker="o", markersize=3, **style)
        ax.set(xscale="log", yscale="log", title=f"{rule} ({bytes_moved(rule, 1)} bytes per parameter)")
        if number + columns >= len(names):  # the lowest of its column
            ax.set_xlabel("parameters")
            ax.tick_params(labelbottom=True)
    for ax in axes[:, 0]:
        ax.set_ylabel("seconds per update")
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    axes.flat[-1].legend(handles.values(), handles.keys(), loc="center", fontsize=11)
    figure.tight_layout()
    figure.savefig(file)
    plt.close(figure)
