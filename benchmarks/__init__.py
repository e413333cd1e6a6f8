"""weightstore against its peers: downloads from one nginx on loopback, loading, starting: ``python -m benchmarks.run``."""
