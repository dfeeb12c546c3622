"""Notes in PostgreSQL.

curl -d '{"text": "buy milk"}' http://127.0.0.1:5000/notes    # writes one
curl http://127.0.0.1:5000/notes                              # the last ten
curl http://127.0.0.1:5000/notes/1                            # one of them
"""

from urllib.parse import unquote, urlsplit

import pg8000.native

from functionsplatform.sdk import tracing

TABLE = """
    create table if not exists notes (
        id bigint generated always as identity primary key,
        text text not null,
        written timestamptz not null default now()
    )
"""

# One connection per worker, kept between calls.
_connection = None


def handler(message, context):
    database = connection(context["services"]["sql_db"])
    with tracing.span_from_context(context["tracer"], context, name="postgresql") as span:
        tracing.set_attr(span, "db.system.name", "postgresql")
        try:
            return serve(message, database)
        except pg8000.native.InterfaceError:
            # The connection is gone. Writing twice would be wrong, so this call fails, and the
            # next one connects anew.
            forget_connection()
            raise


def serve(message, database):
    if message["verb"] == "POST":
        body = message["body"]
        if not isinstance(body, dict) or not isinstance(body.get("text"), str):
            return {"status_code": 422, "body": {"detail": 'send {"text": "…"}'}}
        # Parameters, never string formatting: the driver keeps data apart from SQL.
        rows = database.run("insert into notes (text) values (:text) returning id", text=body["text"])
        return {"status_code": 201, "body": {"id": rows[0][0]}}

    if wanted := message["path_params"].get("id"):
        if not wanted.isdecimal():
            return {"status_code": 404, "body": {"detail": f"no note {wanted}"}}
        rows = database.run("select id, text, written from notes where id = :id", id=int(wanted))
        return note(*rows[0]) if rows else {"status_code": 404, "body": {"detail": f"no note {wanted}"}}

    rows = database.run("select id, text, written from notes order by id desc limit 10")
    return [note(*row) for row in rows]


def note(number, text, written):
    return {"id": number, "text": text, "written": written.isoformat()}


def connection(url):
    global _connection
    if _connection is None:
        where = urlsplit(url)
        _connection = pg8000.native.Connection(
            user=unquote(where.username or ""),
            password=unquote(where.password or ""),
            host=where.hostname or "127.0.0.1",
            port=where.port or 5432,
            database=unquote(where.path.lstrip("/")),
            timeout=2,
        )
        _connection.run(TABLE)
    return _connection


def forget_connection():
    global _connection
    _connection = None
