"""Errors that a user can mend: one sentence each, and the exit code of each kind."""


class BadInput(ValueError):
    """Input or usage is wrong: what, where (file, field), what to do. Exit code 2."""


class Failed(RuntimeError):
    """Work could not be finished: disk full, nothing intact. Exit code 1."""


class Preempted(RuntimeError):
    """Stopped from outside after a commit; the same command resumes. Exit code 75."""
