"""What is expected after an answer that calls no tool."""

from marsproxy.core.sessions import SessionState
from marsproxy.core.text_rests import TextRests


def session_of(family: str, number: int = 0) -> SessionState:
    return SessionState(f"{family}-{number}", "", family, 0.0, 0.0)


def rest(rests: TextRests, session: SessionState) -> None:
    rests.answered(session, is_text=True)


def test_a_session_is_not_expected_to_go_on_until_one_did():
    rests, session = TextRests(), session_of("chat")
    rest(rests, session)
    assert not rests.expects_step(session)
    rests.came_back(session)
    assert rests.expects_step(session)


def test_a_session_that_did_not_go_on_is_not_expected_to():
    rests, session = TextRests(), session_of("chat")
    rest(rests, session)
    rests.came_back(session)
    rest(rests, session)
    rests.nothing_came(session)
    assert not rests.expects_step(session)


def test_a_family_that_acts_through_text_is_learned():
    rests = TextRests()
    for number in range(20):
        session = session_of("react", number)
        rest(rests, session)
        rests.came_back(session)
    assert rests.expects_step(session_of("react", 99))
    assert not rests.expects_step(session_of("chat"))


def test_a_user_who_comes_back_late_has_come_back():
    """Not waited for, but worth a place among the idle blocks."""
    rests = TextRests()
    for number in range(50):
        session = session_of("chat", number)
        rest(rests, session)
        rests.nothing_came(session)
        rests.came_back(session)
    latest = session_of("chat", 99)
    rest(rests, latest)
    assert rests.expects_comeback(latest)
    assert not rests.expects_step(latest)


def test_a_family_that_never_comes_back_is_not_expected():
    rests = TextRests()
    for number in range(50):
        session = session_of("job", number)
        rest(rests, session)
        rests.nothing_came(session)
    latest = session_of("job", 99)
    rest(rests, latest)
    assert not rests.expects_comeback(latest)


def test_after_a_tool_call_the_agent_is_expected():
    rests = TextRests()
    for number in range(50):
        session = session_of("job", number)
        rest(rests, session)
        rests.nothing_came(session)
    latest = session_of("job", 99)
    rests.answered(latest, is_text=False)
    assert rests.expects_comeback(latest)
