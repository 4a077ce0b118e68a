"""Joining the processes of a run."""

import pytest

from hierjax.errors import UserError
from hierjax.runs import coordinator


@pytest.mark.parametrize("text", ["here", "10.0.0.1,2,0", "10.0.0.1:1234,2,2", "10.0.0.1:1234,2,x", "auto"])
def test_other_texts_are_refused(text):
  with pytest.raises(UserError, match=f"--multihost={text}: give auto, or ADDRESS,N,I"):
    coordinator.join(text)
