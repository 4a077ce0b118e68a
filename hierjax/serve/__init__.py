"""A server of predictions over HTTP."""
