"""Runs upstream's own tests twice, as they are and with ours in their place, and compares the outcomes.

Needs a checkout of TorchVision (its tests are not in the wheel), of a version near the installed one::

    python scripts/run_upstream_tests.py --tests vision/test
    python scripts/run_upstream_tests.py --tests vision/test test_models.py -- -k "resnet18 or vgg11"
    python scripts/run_upstream_tests.py --tests vision/test --extended test_extended_models.py -- -k jit
    python scripts/run_upstream_tests.py --tests vision/test --hook test_models.py
    python -m tests.servers.github python scripts/run_upstream_tests.py --tests pytorch/test --hook test_hub.py

The first run is plain. In the second, weightstore's stand-in for TorchVision's classes is installed before anything
imports TorchVision; or, with ``--hook``, the hook is on. Exits
with 0 where every test has the same outcome in both (failures of both among them: tests of one version need not pass
on another), with 1 and the differences where not, and with 2 where nothing ran.

This file is also the pytest plugin of both runs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

FILES = ("test_extended_models.py", "test_backbone_utils.py")
# The worst phase of a test is its outcome.
RANK = {"passed": 0, "skipped": 1, "xfailed": 2, "xpassed": 3, "failed": 4, "error": 5}
DIFFERENCES_SHOWN = 50


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("stand-in")
    group.addoption("--stand-in", action="store_true", help="install weightstore's stand-in for torchvision.models")
    group.addoption("--hooked", action="store_true", help="turn the hook on")
    group.addoption("--outcomes", metavar="FILE", help="write each test's outcome to FILE")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    if early_config.known_args_namespace.stand_in:
        from weightstore.weights.stand_in import install  # before any conftest, which may import torchvision

        install()
    if early_config.known_args_namespace.hooked:
        import weightstore

        weightstore.enable()


def pytest_configure(config: pytest.Config) -> None:
    if place := config.getoption("--outcomes"):
        config.pluginmanager.register(Outcomes(Path(place)), "outcomes")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Make sure that the run is of what it claims to be of."""
    import torch.hub

    is_hooked = torch.hub.load_state_dict_from_url.__code__.co_filename.startswith("<weightstore")
    if is_hooked is not session.config.getoption("--hooked"):
        raise pytest.UsageError(f"the hook is {'on' if is_hooked else 'off'}")
    if "torchvision" not in sys.modules:
        return
    from torchvision.models import WeightsEnum

    ours = WeightsEnum.__module__.startswith("weightstore.")
    if ours is not session.config.getoption("--stand-in"):
        raise pytest.UsageError(f"TorchVision's models are made of {WeightsEnum.__module__}.WeightsEnum")


class Outcomes:
    """Each test's outcome, written at the end."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._found: dict[str, str] = {}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._note(report.nodeid, "error")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome: str = report.outcome
        if hasattr(report, "wasxfail"):
            outcome = "xfailed" if report.skipped else "xpassed"
        elif report.failed and report.when != "call":
            outcome = "error"
        self._note(report.nodeid, outcome)

    def _note(self, test: str, outcome: str) -> None:
        self._found[test] = max(self._found.get(test, "passed"), outcome, key=RANK.__getitem__)

    def pytest_sessionfinish(self) -> None:
        self._place.write_text(json.dumps(self._found), encoding="utf-8")


def outcomes(
    tests: Path, files: Sequence[str], arguments: Sequence[str], *, ours: str, extended: bool
) -> dict[str, str]:
    """Run the tests once, and return each one's outcome by its id."""
    with tempfile.TemporaryDirectory(prefix="weightstore-upstream-") as scratch:
        place = Path(scratch, "outcomes.json")
        command = [sys.executable, "-m", "pytest", "-q", "-p", Path(__file__).stem, "-p", "no:cacheprovider"]
        command += ["-c", os.devnull, "--rootdir", str(tests), "--outcomes", str(place), "-W", "default", "--tb=short"]
        command += [ours] if ours else []
        paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTORCH_TEST_WITH_EXTENDED": "1" if extended else "0",
            "HOME": scratch,  # neither run finds what was downloaded before
            "WEIGHTSTORE_HOME": str(Path(scratch, "store")),
            "WEIGHTSTORE_STATE": str(Path(scratch, "state")),
        }
        subprocess.run([*command, *files, *arguments], cwd=tests, env=environment, check=False)
        if not place.exists():
            return {}
        found: dict[str, str] = json.loads(place.read_text(encoding="utf-8"))
        return found


def differences(plain: Mapping[str, str], ours: Mapping[str, str]) -> Iterator[str]:
    """A line for each test whose outcomes differ."""
    for test in sorted(plain.keys() | ours.keys()):
        its, mine = plain.get(test, "absent"), ours.get(test, "absent")
        if its != mine:
            yield f"{test}: {its} as it is, {mine} with ours"


def counted(found: Mapping[str, str]) -> str:
    return ", ".join(f"{number} {outcome}" for outcome, number in sorted(Counter(found.values()).items()))


def main(argv: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    cut = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(
        description="Runs upstream's tests as they are and with ours.", epilog="What follows -- is for pytest."
    )
    parser.add_argument("--tests", type=Path, required=True, metavar="DIR", help="the test directory of a checkout")
    parser.add_argument("--extended", action="store_true", help="also what TorchVision runs on request only")
    parser.add_argument("--hook", action="store_true", help="compare with the hook on, and not with our classes")
    parser.add_argument("files", nargs="*", default=FILES, help=f"by default {' '.join(FILES)}")
    arguments = parser.parse_args(given[:cut])
    tests = arguments.tests.resolve()
    plain, ours = (
        outcomes(tests, arguments.files, given[cut + 1 :], ours=way, extended=arguments.extended)
        for way in ("", "--hooked" if arguments.hook else "--stand-in")
    )
    if not plain or not ours:
        print("nothing ran", file=sys.stderr)
        return 2
    print(f"as it is:  {counted(plain)}")
    print(f"with ours: {counted(ours)}")
    found = list(differences(plain, ours))
    print(*found[:DIFFERENCES_SHOWN], sep="\n", end="\n" if found else "")
    print(f"{len(found)} of {len(plain.keys() | ours.keys())} tests differ")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
