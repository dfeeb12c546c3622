"""A module of about 200 MB to preload, and a function that preloads it.

Half of it are small objects, whose reference counts a careless worker would write to and so copy;
half is one large array, numpy's where numpy is installed for the Python that the platform takes.
"""

from pathlib import Path

MEBIBYTES = 200
NAME = "cold-preloaded"

MODULE = f"""
try:
    import numpy
except ImportError:
    numpy = None

# About 185 bytes each: a tuple, a string, a float and their places in lists.
SMALL = [(f"row {{number}}", number * 0.5, [number]) for number in range({MEBIBYTES} * 2**20 // 2 // 250)]
ARRAY = (numpy.ones({MEBIBYTES} * 2**20 // 2 // 8) if numpy else bytearray(b"x") * ({MEBIBYTES} * 2**20 // 2))
"""

MANIFEST = f"""# As `cold`, with {MEBIBYTES} MB of preloaded imports.
name = "{NAME}"
events = ["http|POST|/{NAME}"]
preload = ["ballast"]

[scaling]
idle = "0s"
"""

HANDLER = """import sys

there = "ballast" in sys.modules
import ballast


def handler(message, context):
    assert there and len(ballast.ARRAY) > 0
    return {"result": message["body"]["arg"] * 2, "status": "noice"}
"""


def write(directory):
    """Makes the layer and the function below a directory; returns both."""
    layer, function = (Path(directory) / name for name in ("layer", NAME))
    for each in (layer, function):
        each.mkdir(mode=0o755)
    (layer / "ballast.py").write_text(MODULE)
    (function / "function.toml").write_text(MANIFEST)
    (function / "handler.py").write_text(HANDLER)
    return layer, function
