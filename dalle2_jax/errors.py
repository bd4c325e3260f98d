"""Errors that a user can mend: one sentence each, and the exit code that goes with it."""


class BadInput(ValueError):
    """Input or usage is wrong. Says what, where (file, member, field) and what to do; exit code 2."""


class Failed(RuntimeError):
    """Work could not be finished (disk full, nothing intact to restore); exit code 1."""


class Preempted(RuntimeError):
    """Stopped from outside after a commit; the same command resumes it; exit code 75."""
