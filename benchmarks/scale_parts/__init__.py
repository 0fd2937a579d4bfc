"""Parts of the benchmark of scale, see ../scale.py."""
