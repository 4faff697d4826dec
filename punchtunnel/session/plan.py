"""What a session is to do with its hole.

Who opens streams follows from the two roles of the hellos:

    here       there      streams
    --stdio    --stdio    one, opened by the leader
    --stdio    --to       one, opened by stdio, joined to the target
    -L         --stdio    one, opened for the first local client
    -L         --to       one for each local client

    -z on either side      none; that side measures the round trip and leaves
"""

from __future__ import annotations

from dataclasses import dataclass

from punchtunnel.protocol.hello import Role
from punchtunnel.session.roles import Ends


@dataclass(frozen=True, slots=True)
class Plan:
    """What this side does with a hole.

    Attributes:
        role: The one that the hello announced.
        ends: What the streams are joined to; made for one session only.
        idle: Seconds without payload after which the session ends; 0: never.
        traffic_every: Seconds between two reports of the traffic; 0: none.
        check: -z: measure the round trip, and nothing else.
        resume: Seconds to look for another hole when one is lost, if our hello has said so; 0: none.
        again: What to try after a lost link; "": the program knows, or it punches again by itself.
    """

    role: Role
    ends: Ends
    idle: float = 0.0
    traffic_every: float = 0.0
    check: bool = False
    resume: float = 0.0
    again: str = ""
