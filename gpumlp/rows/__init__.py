"""What is trained on: checked rows, their order, the random scheme."""

from gpumlp.rows.checked import (
    check_features,
    check_rows,
    check_targets,
    check_two_classes,
    check_weights,
    split_validation,
)
from gpumlp.rows.order import dropout_key, epoch_order, split_rows
from gpumlp.rows.rows import Rows, resident_dtype

__all__ = [
    "Rows",
    "check_features",
    "check_rows",
    "check_targets",
    "check_two_classes",
    "check_weights",
    "dropout_key",
    "epoch_order",
    "resident_dtype",
    "split_rows",
    "split_validation",
]
