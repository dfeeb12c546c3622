"""The version of the package, in one place for `pyproject.toml`, HELLO and authors."""

__version__ = "0.1.0"
