from tests.interop.shelf import offline, shelf, with_reflinks

__all__ = ["offline", "shelf", "with_reflinks"]
