"""The update rules, one file each; a new one also gets its class in `gpumlp/optimizers/__init__.py`."""
