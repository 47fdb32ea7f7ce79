"""Tables: files and data frames as typed columns, and what the command line makes of them."""

from gpumlp.tables.base import Table, TableError
from gpumlp.tables.convert import as_frame
from gpumlp.tables.frame import Column, Frame
from gpumlp.tables.matrix import read_table
from gpumlp.tables.read import Layout, read_frame

__all__ = ["Column", "Frame", "Layout", "Table", "TableError", "as_frame", "read_frame", "read_table"]
