"""Errors for users: one line that names the thing, what was wrong and what to do."""


class ProbeError(Exception):
    """Something a user can mend. The command line prints it on one line and exits with 2."""
