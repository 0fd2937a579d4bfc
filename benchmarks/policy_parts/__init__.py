"""Parts of the benchmark of policies, see ../policy.py: each has `options(parser)` and `measure(options)`."""
