"""Errors of the binary and of servers."""
from __future__ import annotations

KINDS = {10: "invalid", 11: "unavailable", 12: "not_found", 13: "conflict"}


class Error(Exception):
    """An operation failed.

    kind is one of invalid, not_found, conflict, unavailable, exhausted, corrupt, internal and
    failed; the last is a run or a job that scored nothing. hint says what to do; it may be
    empty.
    """

    def __init__(self, message: str, kind: str = "internal", hint: str = "") -> None:
        super().__init__(message if not hint or hint in message else "%s (%s)" % (message, hint))
        self.kind = kind
        self.hint = hint


class CoverageWarning(UserWarning):
    """Some sensors weren't scored. The result's coverage says which, and why."""
