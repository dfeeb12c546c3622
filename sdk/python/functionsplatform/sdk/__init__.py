"""Tools for handlers; see `functionsplatform.sdk.tracing`."""
