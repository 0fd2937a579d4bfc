"""Parts of the benchmark of strategies, see ../strategies.py."""
