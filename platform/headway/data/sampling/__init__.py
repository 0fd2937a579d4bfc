"""The job's `data.sampling` held against a dataset."""
