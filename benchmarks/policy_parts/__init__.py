"""Parts of `benchmarks/policy.py`."""
