"""Names of services: what is one, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.errors import PeerError
from punchtunnel.protocol.service import MAX_SERVICE, decode_service, is_service


@pytest.mark.parametrize("name", ["ssh", "web", "db2", "2nd", "a", "My.App_1-x", "x" * MAX_SERVICE])
def test_a_name_is_what_people_call_a_service(name: str) -> None:
    assert is_service(name)
    assert decode_service(name.encode()) == name


@pytest.mark.parametrize("name", ["", "22", "1.2", "-v", ".x", "a b", "a:b", "a/b", "a=b", "ö", "a\n", "x" * 64])
def test_a_number_an_option_and_a_place_are_none(name: str) -> None:
    assert not is_service(name)


@given(st.binary(max_size=70))
def test_garbage_is_a_name_that_can_be_shown_or_a_peer_error_and_nothing_else(garbage: bytes) -> None:
    try:
        name = decode_service(garbage)
    except PeerError:
        return
    assert name.isprintable()
    assert name.encode() == garbage
