"""Say in one sentence that punchtunnel.pyz cannot run here, before a compiled module says it in a traceback.

shiv runs this file in the .pyz, after its packages can be imported and before
punchtunnel is.  It imports nothing that an older Python does not have.
"""

from __future__ import annotations

import os
import sys

# For which the .pyz carries compiled modules.  The tests of it run under each of them that is at hand.
PYTHONS = ("3.11", "3.12", "3.13")
MACHINE = "x86_64"
# The oldest that every package has wheels for; Debian 10, Ubuntu 18.10 and RHEL 8 have it.
GLIBC = (2, 28)
# An errors.ResourceError has the same exit status; that module is not imported yet.
STATUS = 5


def here() -> tuple[str, str, str, str]:
    """Return this Python's kind and version, the machine and the C library, as `trouble` takes them."""
    version = ".".join(str(part) for part in sys.version_info[:2])
    try:
        library = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except ValueError:
        library = ""  # musl has no such name
    return sys.implementation.name, version, f"{sys.platform} {os.uname().machine}", library


def trouble(kind: str, version: str, machine: str, library: str) -> str | None:
    """Return what keeps the compiled modules from being loaded, as a sentence; None if nothing does.

    Args:
        kind: "cpython", or what else `sys.implementation.name` may be.
        version: As in PYTHONS.
        machine: `sys.platform` and the kernel's name of the processor, as "linux x86_64".
        library: The C library's name and version, as "glibc 2.36"; empty if it is not glibc.
    """
    glibc = tuple(int(part) for part in library.split(" ")[-1].split(".")[:2] if part.isdigit())
    if kind == "cpython" and version in PYTHONS and machine == f"linux {MACHINE}" and glibc >= GLIBC:
        return None
    return (
        f"punchtunnel.pyz: this file is for CPython {', '.join(PYTHONS[:-1])} or {PYTHONS[-1]} on Linux {MACHINE} "
        f"with glibc {GLIBC[0]}.{GLIBC[1]} or newer, and this is {kind} {version} on {machine} with "
        f"{library or 'no glibc'}: run it with one of those Pythons, or install the package instead"
    )


if __name__ == "__main__":
    said = trouble(*here())
    if said is not None:
        print(said, file=sys.stderr)
        sys.exit(STATUS)
