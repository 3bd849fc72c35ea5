"""Errors keep their fields on the way from one process to another."""

import errno
from pathlib import Path

import pytest

from bench.errors import BenchError, RunError, to_json
from dehaze.errors import ImageError


@pytest.mark.parametrize("subject", [None, "org/set", Path("/srv/set/1.png")])
@pytest.mark.parametrize("kind", [RunError, ImageError])
def test_json_keeps_every_field(kind, subject):
    error = kind("is damaged.", "Copy it again.", subject=subject, setting="Or give --data-root.")
    read = RunError.from_json(to_json(error))
    assert str(read) == str(error) and read.for_visitors() == error.for_visitors()
    assert read.__cause__ is None


def test_json_keeps_what_the_system_said():
    with pytest.raises(RunError) as caught:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RunError("cannot be written.") from None
    assert RunError.from_json(to_json(caught.value)).__cause__.errno == errno.ENOSPC


@pytest.mark.parametrize("text", ["", "Killed", "[1]", '{"reason": "is damaged."}'])
def test_anything_else_is_no_error(text):
    with pytest.raises(ValueError):
        BenchError.from_json(text)


def test_another_kind_of_error_adds_its_own_sentences():
    error = ImageError("is damaged.", "Pack it again.", subject="a.zip")
    assert str(RunError.like(error, "Run again.", "Or ask.")) == "a.zip is damaged. Pack it again. Run again. Or ask."
