"""Images and image layouts as other tools make them."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

_OCI = "application/vnd.oci.image."


def skopeo(*arguments: str | Path) -> None:
    """Have skopeo copy."""
    command = ["skopeo", "copy", "--insecure-policy", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def image(layout: Path) -> None:
    """Write an image layout with an image of nothing, called ``x``."""
    (layout / "blobs/sha256").mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (layout / "blobs/sha256" / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    nothing = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    config = put(json.dumps(nothing).encode(), _OCI + "config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": _OCI + "manifest.v1+json", "config": config, "layers": []}
    made = put(json.dumps(manifest).encode(), _OCI + "manifest.v1+json")
    made["annotations"] = {"org.opencontainers.image.ref.name": "x"}
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [made]}))
