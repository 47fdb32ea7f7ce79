"""gpumlp beside other libraries."""
