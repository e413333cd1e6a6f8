"""The multi-weight API: weights as enums, with metadata and preprocessing, by name. Imports no torch."""
