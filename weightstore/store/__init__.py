"""Bytes at rest: one directory of blobs and refs, safe to share, never trusted when read."""
