"""Calls of other libraries are answered from the store, in this process, however they bound the functions."""
