"""From a network and rows to lists of operations that a backend records."""

from gpumlp.plans.contract import check_contract, check_order
from gpumlp.plans.forward import FORWARD_BYTES, FORWARD_ROWS, OUTPUTS, Forward, forward_bytes, forward_rows
from gpumlp.plans.kept import GradPairs, Grads, Kept
from gpumlp.plans.objective import Objective
from gpumlp.plans.operations import (
    evaluation_ops,
    exchange_ops,
    not_finite_ops,
    optimizer_ops,
    penalty_ops,
    sum_ops,
    training_ops,
)
from gpumlp.plans.precision import PRECISIONS, Precision, check_precision
from gpumlp.plans.ranks import SHARDS, Job, Ranks, Spaces
from gpumlp.plans.workspace import Workspace

__all__ = [
    "FORWARD_BYTES",
    "FORWARD_ROWS",
    "OUTPUTS",
    "PRECISIONS",
    "SHARDS",
    "Forward",
    "GradPairs",
    "Grads",
    "Job",
    "Kept",
    "Objective",
    "Precision",
    "Ranks",
    "Spaces",
    "Workspace",
    "check_contract",
    "check_order",
    "check_precision",
    "evaluation_ops",
    "exchange_ops",
    "forward_bytes",
    "forward_rows",
    "not_finite_ops",
    "optimizer_ops",
    "penalty_ops",
    "sum_ops",
    "training_ops",
]
