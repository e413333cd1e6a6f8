"""weightstore against its peers, fetching from nginx on loopback, loading, starting: ``python -m benchmarks.run``."""
