"""URLs in code: which of them are checkpoints, and how they are shown."""

from __future__ import annotations

from urllib.parse import urlsplit

from weightstore.errors import InvalidInput
from weightstore.source import parse_source

_EXTENSIONS = (".bin", ".ckpt", ".gguf", ".onnx", ".pt", ".pth", ".pth.tar", ".pyth", ".safetensors")


def target_of(url: str) -> tuple[str, str]:
    """Return a URL as ``prefetch`` takes it, without credentials; or an empty text, and why it cannot be used."""
    try:
        source, pin = parse_source(url)
    except InvalidInput as error:
        return "", str(error)
    stated = f"#sha256={pin.hex}" if pin.is_pinned and pin != source.pin else ""
    return source.display + stated, ""


def is_checkpoint_url(text: str) -> bool:
    """Tell whether text is a URL, and nothing else, whose path ends as a checkpoint's does."""
    if not text.startswith(("https://", "http://", "hf://")):
        return False
    try:
        if not urlsplit(text).path.lower().endswith(_EXTENSIONS):
            return False
        parse_source(text)
    except (ValueError, InvalidInput):
        return False
    return True
