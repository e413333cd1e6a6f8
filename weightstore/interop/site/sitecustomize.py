"""Run by Python at its start, because ``weightstore run`` put this directory on the path; then the next one is.

Python runs only the first ``sitecustomize`` that it finds, and a distribution, a site or an environment may have one.
"""

import sys

import weightstore_start  # type: ignore[import-not-found]  # beside this file, whose directory is on the path

_here = __file__.rpartition("/")[0]
# What the program imports is found where it would be without us. Its children get the path by the environment.
sys.path[:] = [place for place in sys.path if place != _here]
weightstore_start.begin()

for _finder in sys.meta_path:
    _spec = _finder.find_spec("sitecustomize", None) if hasattr(_finder, "find_spec") else None
    if _spec is not None and _spec.loader is not None and _spec.origin != __file__:
        _spec.loader.exec_module(sys.modules[__name__])
        break
