"""Real data on disk: Parquet shards, each dataset with a manifest that says what must be there."""
