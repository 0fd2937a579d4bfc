"""Parts of the benchmark of records, see ../records.py."""
