"""Many networks in one plan: seconds per step of one network."""

from __future__ import annotations

from scripts.bench.many_peers import candidates, usable_peers
from scripts.bench.many_task import MEMBERS, OURS, SHAPES, ManyTask
from scripts.reports.gpu.part import Part, release


def many(part: Part) -> None:
    """`fit_many` of 1 to 256 networks beside one fit, JAX's vmap and PyTorch's."""
    peers = usable_peers("cuda", ["jax", "torch"], part.note)
    for sizes, batch, steps in SHAPES[:2] if part.quick else SHAPES:
        for members in (1, 3) if part.quick else MEMBERS:
            task = ManyTask(sizes, batch, 2 if part.quick else steps, members)
            what = f"{members} networks {task.name}"
            if part.out_of_time(what):
                return
            with part.attempt(what):
                found = part.turns(what, candidates(task, "cuda", peers), 5)
                ours = found.get(OURS, {}).get("median", 0.0)
                for name, t in found.items():
                    part.row(
                        "time per step of one network",
                        network=task.name,
                        networks=members,
                        candidate=name,
                        step_s=t["median"],
                        spread=f"{t['spread']:.0%}",
                        over_ours=f"{t['median'] / ours:.2f}" if ours > 0 else "-",
                    )
                for line in task.unlike() if OURS in task.losses else ():
                    part.problem(line)
            release()
