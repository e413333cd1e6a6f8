"""``urllib.request``, answered from the store where it asks for weights: ``urlopen``, ``urlretrieve``, any opener.

What several libraries download their checkpoints with. The answer is the one that a server would give for the whole
file; other requests (with a body, a range, or credentials) go their way.
"""

from __future__ import annotations

import email.message
import io
from typing import TYPE_CHECKING, Any
from urllib.request import Request
from urllib.response import addinfourl

from weightstore.loading.progress import meter_for

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable

    from weightstore.interop.hook.session import Session

# With one of these the answer is not simply the file.
_TELLING = frozenset({"range", "if-range", "authorization", "if-none-match", "if-modified-since", "cookie"})


def open_url(original: Callable[..., Any], given: inspect.BoundArguments, *, session: Session) -> Any:
    """Return the response to a request, as ``OpenerDirector.open`` does."""
    asked = given.arguments["fullurl"]
    request = asked if isinstance(asked, Request) else None
    url = asked if isinstance(asked, str) else request.full_url if request is not None else ""
    is_plain = given.arguments.get("data") is None and (
        request is None
        or (
            request.data is None
            and request.get_method() == "GET"
            and not _TELLING & {name.lower() for name, _ in request.header_items()}
        )
    )
    if not (is_plain and url.lower().startswith(("http:", "https:")) and session.serves(url)):
        if session.forbids(url):
            raise session.forbidden(url)
        return original(*given.args, **given.kwargs)
    wanted, located = session.look(url)
    if located.hit is not None:
        blob = located.hit.blob
    else:
        with meter_for(progress=False) as meter:
            blob = session.obtain(wanted, meter=meter)
    session.record(wanted, blob.digest, blob.size)
    headers = email.message.Message()
    headers["Content-Type"] = "application/octet-stream"
    headers["Content-Length"] = str(blob.size)
    headers["ETag"] = f'"{blob.digest}"'
    response = addinfourl(io.BufferedReader(io.FileIO(blob.detach(), "rb")), headers, url, 200)
    response.msg = "OK"  # type: ignore[attr-defined]  # as http.client's responses have it
    return response
