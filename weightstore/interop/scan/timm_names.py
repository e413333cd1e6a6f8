"""Where the weights of timm's models are. Only timm knows; it imports torch, and is asked in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, TypeAlias

from weightstore.errors import InvalidInput
from weightstore.hub import MAIN, HubFile
from weightstore.interop.scan.urls import target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    AskTimm: TypeAlias = Callable[[Sequence[str]], Mapping[str, tuple[str, str]]]

_TIMEOUT_S = 120.0
# As timm decides it (timm.models._builder): a file beats the Hub, and the Hub beats a URL.
_QUESTION = """
import json, sys
names = json.load(sys.stdin)
try:
    from timm.models import get_pretrained_cfg
except ImportError:
    print(json.dumps(None))
    sys.exit()
answers = {}
for name in names:
    try:
        cfg = get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        answers[name] = {"error": str(error)}
    else:
        fields = ("file", "hf_hub_id", "hf_hub_filename", "url", "custom_load")
        answers[name] = {field: getattr(cfg, field, None) for field in fields}
print(json.dumps(answers))
"""


def ask_timm(names: Sequence[str], *, timeout_s: float = _TIMEOUT_S) -> dict[str, tuple[str, str]]:
    """Return for each model's name what its weights are fetched from, or an empty text and why that is not known.

    Where timm is not installed, a name with a tag (``resnet50.a1_in1k``) stands for timm's repository of that name.
    """
    answers = _ask(names, timeout_s)
    return {name: _place(name, answers.get(name)) if answers is not None else _by_convention(name) for name in names}


def _ask(names: Sequence[str], timeout_s: float) -> dict[str, object] | None:
    """Return timm's answers, or None where it cannot be asked.

    ``-P`` keeps the current directory, and with it the code that is scanned, from being imported.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _QUESTION],
            input=json.dumps(list(names)),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        answers = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
    return answers if isinstance(answers, dict) else None


def _place(name: str, answer: object) -> tuple[str, str]:
    if not isinstance(answer, dict):
        return _by_convention(name)
    repo, url = answer.get("hf_hub_id"), answer.get("url")
    if answer.get("error"):
        return "", f"timm: {answer['error']}"
    if answer.get("file"):
        return "", "timm takes it from a file"
    if isinstance(repo, str) and repo:
        file = answer.get("hf_hub_filename") or "model.safetensors"
        return _on_hub(repo, str(file))
    if isinstance(url, str) and url:
        return target_of(url)
    return "", "timm has no weights for it"


def _by_convention(name: str) -> tuple[str, str]:
    if "." not in name:
        return "", "only timm knows its default weights, and timm could not be asked"
    return _on_hub(f"timm/{name}", "model.safetensors")


def _on_hub(repo: str, file: str) -> tuple[str, str]:
    repo, _, revision = repo.partition("@")
    try:
        return str(HubFile(repo, revision or MAIN, file)), ""
    except InvalidInput as error:
        return "", str(error)
