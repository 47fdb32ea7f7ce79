"""Reading tables for the command line."""

from gpumlp.tables.base import Table, TableError
from gpumlp.tables.read import read_table

__all__ = ["Table", "TableError", "read_table"]
