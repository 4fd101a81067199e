"""The collector is off inside and as it was afterwards, whatever happens in between."""

import gc

import pytest

from lamdagent.libraries import uncollected


def test_it_is_on_again_afterwards_and_stays_off_for_who_had_it_off() -> None:
    with uncollected():
        with uncollected():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="inside"), uncollected():
        raise ValueError("inside")
    assert gc.isenabled()


def test_what_stays_for_good_is_not_walked_again() -> None:
    before = gc.get_freeze_count()
    with uncollected(for_good=True):
        kept = [[number] for number in range(1000)]
    try:
        assert gc.get_freeze_count() >= before + len(kept)
    finally:
        gc.unfreeze()
