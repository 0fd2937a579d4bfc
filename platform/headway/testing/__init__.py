"""Contract suites, shipped for whoever writes a strategy of their own."""
