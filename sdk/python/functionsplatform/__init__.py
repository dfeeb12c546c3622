"""What a function running on functionsplatform may import.

The front door is small on purpose:

* `functionsplatform.sdk.tracing`: spans of your own in the trace of the call.
* `functionsplatform.sdk.http`: requests that keep the call's deadline, are traced, and retry.
* `secret`: the value of a secret that function.toml names; `secret_bytes` where it is no text.
* `functionsplatform.testing`: run a handler locally, without a platform.
* `DeadlineExceeded` and `Cancelled`: how the platform ends a handler early.

The two exceptions derive from `Interrupted`, and that from `BaseException`, as `KeyboardInterrupt`
and `asyncio.CancelledError` do: an `except Exception` around a retry loop must not swallow them.

    LookupError
     └── SecretMissing           the function has no such secret
    BaseException
     └── Interrupted
          ├── DeadlineExceeded   the call's time is up
          └── Cancelled          the caller has left

Modules with a leading underscore are shared with the worker and are no interface.
"""

from functionsplatform._errors import Cancelled, DeadlineExceeded, Interrupted, SecretMissing
from functionsplatform._secrets import secret, secret_bytes
from functionsplatform._version import __version__

__all__ = [
    "Cancelled",
    "DeadlineExceeded",
    "Interrupted",
    "SecretMissing",
    "__version__",
    "secret",
    "secret_bytes",
]
