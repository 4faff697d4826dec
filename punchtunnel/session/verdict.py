"""What a session's exit status and last sentence will be, from all that goes wrong in it."""

from __future__ import annotations

from punchtunnel import words
from punchtunnel.errors import Exit, LinkError, LostError, PunchtunnelError


class Verdict:
    """The first failure counts: later ones are its consequences.

    Attributes:
        cut: Some bytes of the session were not delivered.
    """

    def __init__(self) -> None:
        self.cut = False
        self._stopped: Exit | None = None
        self._quiet: Exit | None = None
        self._failure: PunchtunnelError | None = None

    def stop(self, status: Exit) -> bool:
        """End with this status, whatever else happens; False if that was said before."""
        if self._stopped is not None:
            return False
        self._stopped = status
        return True

    def fail(self, error: PunchtunnelError) -> None:
        """End with the status and the sentence of this failure."""
        if self._failure is None:
            self._failure = error

    def end(self, status: Exit) -> None:
        """End with this status, which needs no sentence."""
        self._quiet = status

    @property
    def has_failed(self) -> bool:
        """Tell whether what happens now cannot be success any more."""
        return self._failure is not None or self._quiet is not None

    @property
    def is_final(self) -> bool:
        """Tell whether nothing that may still happen matters."""
        return self.has_failed or self._stopped is not None

    def sum_up(self, again: str, *, met: bool) -> tuple[Exit, str]:
        """Return status and sentence.

        Args:
            again: What to try after a lost link, or "".
            met: The peer was on the hole; if not, that is all there is to say.
        """
        failure = self._failure if met else LinkError(words.NEVER_MET)
        status = self._stopped or self._quiet or Exit.OK
        if status is not Exit.OK or failure is None:
            return status, ""
        hint = f"; {again}" if again and isinstance(failure, LostError) else ""
        return failure.status, f"{failure}{hint}"
