"""What the data tests share: the form that every refusal has."""

from contextlib import contextmanager

import pytest

from dgu.core.errors import InputError


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
