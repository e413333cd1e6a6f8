"""Bytes in motion: from a source, through the hasher, into a part. Nothing here gives a blob its name."""
