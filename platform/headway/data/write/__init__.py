"""Shards and manifests as bytes: row groups encoded, laid into shards, published at once."""
