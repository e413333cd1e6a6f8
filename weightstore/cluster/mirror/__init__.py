"""Mirrors: one copy of the weights that a site uses, in whatever storage it already runs."""
