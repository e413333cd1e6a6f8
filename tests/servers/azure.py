"""Azure Blob Storage: Azurite, Microsoft's own emulator, on a port of its own. It checks signatures and SAS tokens."""

import re
import subprocess
import tempfile
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tests.servers.emulators import BIN, as_vendor

ACCOUNT = "devstoreaccount1"
# The same for everybody: https://learn.microsoft.com/azure/storage/common/storage-use-azurite
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_LISTENS = re.compile(r"listen\w* (?:at|on) (http://127\.0\.0\.1:[1-9]\d*)")

_MAKE_CONTAINER = """
import sys
from azure.storage.blob import BlobServiceClient
url, account, key = sys.argv[1:]
BlobServiceClient(url, credential={"account_name": account, "account_key": key}).create_container("weights")
"""


class Azurite:
    """Serves at ``url``. There is one container, ``weights``."""

    def __init__(self) -> None:
        self._cleanup = ExitStack()
        self.url = ""

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            home = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="azurite-"))
            # A client may know a newer version of the protocol than the emulator does.
            options = ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
            process = cleanup.enter_context(
                subprocess.Popen(
                    [BIN / "azurite-blob", "--blobHost", "127.0.0.1", "--blobPort", "0", *options],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    cwd=home,
                )
            )
            cleanup.callback(process.terminate)
            told = ""
            for line in process.stdout or ():
                told += line
                if found := _LISTENS.search(line):
                    self.url = found[1]
                    break
            else:
                raise RuntimeError(f"Azurite did not start: {told}")
            as_vendor(_MAKE_CONTAINER, f"{self.url}/{ACCOUNT}", ACCOUNT, KEY)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()
