"""Records of `logging`, sent with their level.

The root logger gets one handler, at INFO. `logging.basicConfig` in a handler keeps working: with
`level` and `format` alone it adjusts this handler, with anything else it replaces it.
"""

from __future__ import annotations

import logging
from typing import Any

from functionsplatform_runtime.output import Output


class _Records(logging.Handler):
    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._output.record(record.levelname, self.format(record))
        except Exception:
            self.handleError(record)


def install(output: Output) -> None:
    """Add the handler, unless the root logger has one."""
    root = logging.getLogger()
    if root.handlers:
        return
    ours = _Records(output)
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
