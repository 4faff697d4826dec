"""What a session's status and sentence are made of."""

from __future__ import annotations

from punchtunnel import words
from punchtunnel.errors import Exit, LinkError, LostError, TargetError
from punchtunnel.session.verdict import Verdict


def test_nothing_that_went_wrong_is_success() -> None:
    assert Verdict().sum_up("try again", met=True) == (Exit.OK, "")


def test_the_first_failure_counts() -> None:
    verdict = Verdict()
    verdict.fail(TargetError("refused"))
    verdict.fail(LinkError("lost"))
    assert verdict.sum_up("try again", met=True) == (Exit.TARGET, "refused")
    assert verdict.has_failed


def test_only_after_a_lost_link_it_is_said_what_to_try() -> None:
    verdict = Verdict()
    verdict.fail(LostError("lost"))
    assert verdict.sum_up("try again", met=True) == (Exit.LOST, "lost; try again")
    assert verdict.sum_up("", met=True) == (Exit.LOST, "lost")


def test_a_signal_has_the_last_word_and_counts_once() -> None:
    verdict = Verdict()
    verdict.fail(LinkError("lost"))
    assert verdict.stop(Exit.INTERRUPTED)
    assert not verdict.stop(Exit.TERMINATED)
    assert verdict.is_final
    assert verdict.sum_up("", met=True) == (Exit.INTERRUPTED, "")


def test_a_status_without_a_sentence_ends_it() -> None:
    verdict = Verdict()
    verdict.end(Exit.BROKEN_PIPE)
    assert verdict.has_failed
    assert verdict.sum_up("", met=True) == (Exit.BROKEN_PIPE, "")


def test_a_peer_that_was_never_met_is_all_there_is_to_say() -> None:
    assert Verdict().sum_up("try again", met=False) == (Exit.LOST, words.NEVER_MET)
