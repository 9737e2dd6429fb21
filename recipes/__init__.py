"""One runnable file per experiment."""
