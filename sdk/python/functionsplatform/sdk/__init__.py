"""Tools for handlers; see `functionsplatform.sdk.tracing` and `functionsplatform.sdk.http`."""
