"""weightstore against its peers, downloading from nginx on loopback, loading and starting: ``python -m benchmarks.run``."""
