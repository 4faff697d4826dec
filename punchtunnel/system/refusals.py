"""What it means when the system refuses something that nobody expected it to refuse."""

from __future__ import annotations

import os
import traceback

from punchtunnel import words
from punchtunnel.errors import NO_RESOURCES, LocalError


def refused(error: OSError) -> LocalError:
    """Return an unexpected error of the system as a sentence that names the call.

    An error that was raised with a sentence of its own keeps it.
    """
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in NO_RESOURCES:
        return LocalError(words.no_resources(reason))
    if error.errno and error.strerror and error.strerror != reason:
        return LocalError(error.strerror)
    where = traceback.extract_tb(error.__traceback__)
    # Without the source, as in a zip file, the function is named.
    call = where[-1].line or where[-1].name if where else ""
    return LocalError(words.refused_call(call, reason))
