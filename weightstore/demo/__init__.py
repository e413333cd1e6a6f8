"""The demonstration: real checkpoints, a server on loopback, and everything that can go wrong on the way."""
