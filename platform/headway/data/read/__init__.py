"""From a dataset's row groups to the batches of the lanes."""
