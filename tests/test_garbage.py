from __future__ import annotations

import gc
import weakref

import pytest

from mbexport.garbage import own_garbage_collected


class Cycle:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def nothing_set_aside() -> None:
    gc.unfreeze()


def test_cycles_are_gone_and_nothing_stays_set_aside() -> None:
    before = gc.get_freeze_count()
    with own_garbage_collected():
        assert gc.get_freeze_count() > before
        assert not gc.isenabled()
        seen = weakref.ref(Cycle())
    assert seen() is None
    assert gc.get_freeze_count() == before


def test_an_error_puts_everything_back() -> None:
    with pytest.raises(ValueError, match="wrong"), own_garbage_collected():
        raise ValueError("wrong")
    assert gc.get_freeze_count() == 0
    assert gc.isenabled()


def test_a_caller_who_has_turned_the_collector_off_finds_it_off() -> None:
    gc.disable()
    try:
        with own_garbage_collected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_the_caller_set_aside_stays_so() -> None:
    callers_own = Cycle()
    gc.freeze()
    try:
        with own_garbage_collected():
            seen = weakref.ref(Cycle())
        assert seen() is None
        assert not any(each is callers_own for each in gc.get_objects())
    finally:
        gc.unfreeze()
    assert any(each is callers_own for each in gc.get_objects())
