"""Measures whole processes from start to exit, beside the bare engines they stand on. `python -m benchmarks --help`."""
