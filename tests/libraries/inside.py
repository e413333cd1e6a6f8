"""What a program of these tests runs before and after its own lines: no network, and in the end what it has loaded."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

MARK = "loaded: "


class NetworkAsked(BaseException):
    """No library's ``except Exception`` hides it."""


def close_network() -> None:
    """Make every way to another machine, this one's name server included, fail for the rest of the process."""

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise NetworkAsked(f"the network was asked for: {args}")

    class Unconnected(socket.socket):
        """Exists, because urllib3 makes one when imported, to see whether there is IPv6; and leads nowhere."""

        connect = connect_ex = listen = send = sendall = sendto = sendmsg = refuse  # type: ignore[assignment]

    socket.socket = Unconnected  # type: ignore[misc]
    for name in ("create_connection", "create_server", "getaddrinfo", "gethostbyname", "socketpair"):
        setattr(socket, name, refuse)


def tell(state: Mapping[str, Any]) -> None:
    """Print the digests of the tensors of a state dict, for the test to compare."""
    sys.stdout.write(f"\n{MARK}{json.dumps(tensor_digests(state))}\n")


def tensor_digests(state: Mapping[str, Any]) -> dict[str, str]:
    """Return a digest of every tensor's type, shape and bytes, by the tensor's name."""
    return {name: _digest(tensor) for name, tensor in _tensors(state)}


def _tensors(state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    import torch

    for name, value in state.items():
        # A quantized linear layer's weight and bias are one tuple.
        parts = value if isinstance(value, tuple) else (value,)
        for number, part in enumerate(parts):
            if isinstance(part, torch.Tensor):
                yield (name if len(parts) == 1 else f"{name}.{number}"), part


def _digest(tensor: Any) -> str:
    import torch

    tensor = tensor.detach()
    said = [str(tensor.dtype), str(tuple(tensor.shape))]
    if tensor.is_quantized:
        is_by_channel = tensor.qscheme() in {torch.per_channel_affine, torch.per_channel_affine_float_qparams}
        said.append(str(tensor.q_per_channel_scales().tolist() if is_by_channel else tensor.q_scale()))
        tensor = tensor.int_repr()
    found = hashlib.sha256("|".join(said).encode())
    if tensor.numel():
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()[:32]
