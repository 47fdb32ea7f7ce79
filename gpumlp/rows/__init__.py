"""What is trained on: checked rows, their order, the random scheme, and sources that are read in pieces."""

from gpumlp.rows.array_rows import ArrayRows
from gpumlp.rows.checked import (
    check_features,
    check_given,
    check_rows,
    check_targets,
    check_two_classes,
    check_weights,
    split_validation,
)
from gpumlp.rows.order import dropout_key, epoch_order, split_rows
from gpumlp.rows.parquet import ParquetRows
from gpumlp.rows.rows import Rows, resident_dtype
from gpumlp.rows.source import RowSource, pieces
from gpumlp.rows.windows import SourceRows, Windows

__all__ = [
    "ArrayRows",
    "ParquetRows",
    "RowSource",
    "Rows",
    "SourceRows",
    "Windows",
    "check_features",
    "check_given",
    "check_rows",
    "check_targets",
    "check_two_classes",
    "check_weights",
    "dropout_key",
    "epoch_order",
    "pieces",
    "resident_dtype",
    "split_rows",
    "split_validation",
]
