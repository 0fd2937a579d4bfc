"""The same four things with four frameworks, each as short as its own documentation has it: what a person writes.

Each file is run as `python FILE DATA` and prints what it reached. `benchmarks/people.py lines` runs all of them and
counts their lines; `first_step/` holds one model, of which the first step is timed.
"""
