"""Records of `logging`, sent with their level.

The root logger gets one handler, at INFO. `logging.basicConfig` in a handler keeps working: with
`level` and `format` alone it adjusts this handler, with anything else it replaces it.
"""

from __future__ import annotations

import logging
from typing import Any

from functionsplatform_runtime.output import Output


class _Records(logging.Handler):
    output: Output | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.output is None:
            return  # in the zygote
        try:
            self.output.record(record.levelname, self.format(record))
        except Exception:
            self.handleError(record)


_ours = _Records()


def install(output: Output) -> None:
    """Send records to `output`, unless the root logger has another handler."""
    prepare()
    _ours.output = output


def prepare() -> None:
    """Add the handler, unless the root logger has one. Done in the zygote, once for all workers."""
    root = logging.getLogger()
    if root.handlers:
        return
    ours = _ours
    root.addHandler(ours)
    root.setLevel(logging.INFO)
    configure = logging.basicConfig

    def basic_config(**settings: Any) -> None:
        if root.handlers != [ours]:
            configure(**settings)
        elif settings.keys() <= {"level", "format", "datefmt", "style"}:
            if "level" in settings:
                root.setLevel(settings["level"])
            if "format" in settings:
                style = settings.get("style", "%")
                ours.setFormatter(
                    logging.Formatter(settings["format"], settings.get("datefmt"), style)
                )
        else:
            root.removeHandler(ours)
            configure(**settings)

    basic_config.__doc__ = configure.__doc__
    logging.basicConfig = basic_config
