"""The collector is as it was found, however a reader ends."""

import gc

import pytest

from lesion_det.garbage import garbage_left


@pytest.mark.parametrize("enabled", [True, False])
def test_collector_rests_within_and_is_as_before_after(enabled: bool) -> None:
    @garbage_left()
    def fail() -> None:
        assert not gc.isenabled()
        raise EOFError("damaged")

    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        for _ in range(2):
            with pytest.raises(EOFError, match="damaged"):
                fail()
            assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
