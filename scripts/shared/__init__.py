"""What the scripts share: options and files, the machine, timing, tables and figures, gpumlp from inside."""
