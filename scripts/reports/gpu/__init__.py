"""The parts of `gpu_report.py`; each runs in a process of its own."""
