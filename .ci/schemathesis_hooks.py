"""Teaches schemathesis to send a function's archive."""

import io
import zipfile

import schemathesis

MANIFEST = """\
name = "{name}"
events = ["http|GET|/archived/{name}"]
"""
HANDLER = """\
def handler(message, context):
    return {"archived": True}
"""


@schemathesis.serializer("application/zip")
def archive(context, value):
    """A text that was generated as the archive stands for a sound one; bytes go as they are."""
    if isinstance(value, bytes):
        return value
    name = str((context.case.path_parameters or {}).get("name", "archived"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("function.toml", MANIFEST.format(name=name))
        archive.writestr("handler.py", HANDLER)
    return buffer.getvalue()
