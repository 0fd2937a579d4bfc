"""Real data on disk: Parquet shards, each dataset with a manifest that says what must be there."""

from headway.data import tensors as tensors  # registers the Arrow type, so that every reader of ours knows it
from headway.data.prepare import prepare as prepare
