"""The closed set of errors that reach a user, each with the exit code of the command line.

Every message is one line: it names the file or option, what is wrong, and what to do.
"""

from __future__ import annotations


class InrError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(InrError):
    """An option or argument is wrong."""

    exit_code = 2


class InputError(InrError):
    """An input file cannot be read as what it should be."""

    exit_code = 3


class CorruptFile(InputError):
    """A `.inr` file is damaged, truncated, or not one at all."""


class UnsupportedFile(InputError):
    """A `.inr` file needs a newer version, or a part that this build lacks."""


class LimitExceeded(InputError):
    """A file asks for more than the `Limits` in force allow."""


class FitError(InrError):
    """A fit could not be carried out (diverged, or field and signal do not belong together)."""


class TargetNotReached(InrError):
    """A budget ended before its target was reached; what was reached is kept."""

    exit_code = 4


class OutputError(InrError):
    """An output cannot be written (exists, no space, no permission)."""

    exit_code = 5
