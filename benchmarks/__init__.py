"""Downloads of weightstore against its peers, on one nginx on loopback: ``python -m benchmarks.run``."""
