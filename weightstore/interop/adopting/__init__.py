"""Adopting: files in the caches of other libraries enter the store, verified, and the caches become views (ADR 13)."""
