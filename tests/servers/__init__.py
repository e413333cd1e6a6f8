"""The servers that the tests (and the benchmark) talk to: real sockets, loopback only, ports of the OS's choice.

`hostile` misbehaves on demand, `nginx` is the real thing, `proxy` records what passes through it, and `tls` makes the
certificates of all three; `hub` is a small Hugging Face Hub; `clouds` has S3, Google Cloud Storage and Azure alike,
with a `relay` before each. Nothing is imported here, so that `python -m tests.servers.hostile` starts quickly.
"""
