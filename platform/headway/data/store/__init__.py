"""Where datasets lie: a folder of this machine, or an object store, asked patiently and kept in a cache."""
