"""The measurements of benches/run."""
