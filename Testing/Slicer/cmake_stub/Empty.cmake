# Nothing to include.
