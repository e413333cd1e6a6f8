"""What a bucket's refusals mean, in our words.

obstore's errors are mostly of one class, and their texts repeat URLs, in which signatures may stand. So a text is only
looked at for what it is about; none of it is passed on.
"""

from __future__ import annotations

import os
import re

from weightstore.errors import AccessDenied, SourceNotFound, SourceUnavailable, TransferError

_STATUS = re.compile(r"status code: (\d{3})")
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|specified (?:bucket|container) does not exist")
# Where clients ask for credentials when none were given, or where given ones are exchanged.
_TOKEN = re.compile(r"token request|/latest/(?:api/token|meta-data/)")
_ELSEWHERE = re.compile(r"incorrectly configured region|PermanentRedirect")

_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; profiles in ~/.aws are not read",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`",
    "az": "AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
}
# Settings that cannot be used at all: what obstore says of them, and what is to be said instead.
_UNUSABLE = (
    ("Account must be specified", "no account is named. Set AZURE_STORAGE_ACCOUNT_NAME"),
    ("Invalid Access Key", "the account key is not base64. Set AZURE_STORAGE_ACCOUNT_KEY"),
    ("SAS", "the SAS token cannot be read. Set AZURE_STORAGE_SAS_TOKEN"),
    ("Unable to open", "the file with the credentials cannot be opened. Set GOOGLE_APPLICATION_CREDENTIALS"),
    (
        "Unable to decode",
        "the credentials are neither a service account's nor a user's. Set GOOGLE_APPLICATION_CREDENTIALS",
    ),
    ("pem file", "the key in the file with the credentials is damaged. Set GOOGLE_APPLICATION_CREDENTIALS"),
    ("CryptoProvider", "the key in the file with the credentials is damaged. Set GOOGLE_APPLICATION_CREDENTIALS"),
    ("get-access-token", "the Azure CLI gives no token. Run `az login`"),
)

# How it says that no answer came, and why.
_UNREACHED = (
    (("BadScheme",), "its endpoint is not https, and only a server on this machine is spoken to without TLS"),
    (
        ("InvalidCertificate", "UnknownIssuer"),
        "its certificate is not trusted. Set WEIGHTSTORE_CA_BUNDLE to your site's",
    ),
    (("ProxyAuthRequired",), "the proxy wants user and password. Set HTTPS_PROXY to http://user:password@host"),
    (("TunnelUnsuccessful",), "the proxy refused"),
    (("dns error", "failed to lookup"), "its name is not known here"),
    (("kind: Timeout", "TimedOut"), "timed out"),
)
_OS_ERROR = re.compile(r"Os \{\s+code: (\d+)")


def refusal(error: Exception, *, display: str, scheme: str) -> TransferError:
    """Return the error that one of obstore's is for us.

    Args:
        error: what obstore raised.
        display: the place in the bucket that was asked, as it may be shown.
        scheme: which cloud: ``s3``, ``gs`` or ``az``.
    """
    text, _, causes = str(error).partition("\n\nDebug source")
    name = type(error).__name__
    noun = "container" if scheme == "az" else "bucket"
    credentials = _CREDENTIALS[scheme]
    status = status_in(text)
    if "Error performing" not in text:  # nothing was asked yet
        for sign, reason in _UNUSABLE:
            if sign in text:
                return AccessDenied(source=display, reason=reason)
    if _TOKEN.search(text):
        reason = f"no credentials were found, or they were refused. Set {credentials}"
        return AccessDenied(source=display, reason=reason)
    if _NO_BUCKET.search(text):
        return SourceNotFound(source=display, reason=f"there is no such {noun}. Make it, or mend the address")
    if status in {401, 403} or name in {"PermissionDeniedError", "UnauthenticatedError", "PermissionError"}:
        said = f" (HTTP {status})" if status else ""
        reason = f"no permission{said}. Ask for access to the {noun}, or set other credentials: {credentials}"
        return AccessDenied(source=display, reason=reason)
    if status in {404, 410} or isinstance(error, FileNotFoundError):
        return SourceNotFound(source=display, reason=f"no such object or {noun}")
    if _ELSEWHERE.search(text):
        return SourceUnavailable(source=display, reason="the bucket is in another region. Set AWS_REGION")
    if status is not None:
        return SourceUnavailable(source=display, reason=f"HTTP {status}")
    if "Error performing" in text:
        return SourceUnavailable(source=display, reason=_why_unreached(causes), is_silent=True)
    return SourceUnavailable(source=display, reason=f"cannot be asked ({name})")


def is_superseded(error: Exception) -> bool:
    """Tell whether Azure dropped the blocks that were written, as it does when others complete the same object."""
    return status_in(str(error)) == 400 and "InvalidBlockList" in str(error)


def status_in(text: str) -> int | None:
    """Return the status of the answer that one of obstore's errors tells of; None where there was no answer."""
    found = _STATUS.search(text)
    return int(found[1]) if found else None


def _why_unreached(causes: str) -> str:
    for signs, reason in _UNREACHED:
        if any(sign in causes for sign in signs):
            return f"cannot be reached: {reason}"
    code = _OS_ERROR.search(causes)
    return f"cannot be reached: {os.strerror(int(code[1])).lower()}" if code else "cannot be reached"
