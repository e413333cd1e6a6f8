"""Signed indexes: what a mirror says of sources, believed because somebody that this user trusts has signed it."""
