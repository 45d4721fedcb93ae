"""What the data tests share: the form that every refusal has."""

from contextlib import contextmanager

import jaxtyping
import pytest

from dgu.core.errors import InputError


@pytest.fixture
def unchecked():
    """Without the type checks that only tests have: the refusals are what users meet."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def refused():
    """``with refused(*fragments)``: an InputError of one line that holds each fragment and says what is allowed."""

    @contextmanager
    def expect(*fragments):
        with pytest.raises(InputError) as caught:
            yield
        message = str(caught.value)
        assert "\n" not in message
        assert "must" in message or "bring it with" in message, message
        for fragment in fragments:
            assert str(fragment) in message, message

    return expect
