"""Parts of the benchmark of sweeps, see ../sweep.py."""
