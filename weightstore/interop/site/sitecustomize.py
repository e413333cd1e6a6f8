"""Run by Python at its start, because ``weightstore run`` put this directory on the path; then the next one is.

Python runs only the first ``sitecustomize`` that it finds, and a distribution, a site or an environment may have one.
"""

import sys

import weightstore_start  # type: ignore[import-not-found]  # beside this file, whose directory is on the path

_here = __file__.rpartition("/")[0]
# What the program imports is found where it would be without us. Its children get the path by the environment.
sys.path[:] = [place for place in sys.path if place != _here]
weightstore_start.begin()

_ours = sys.modules.pop(__name__)
try:
    # The next one, under its own name and from its own file.
    import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name != __name__:
        raise
    sys.modules[__name__] = _ours
