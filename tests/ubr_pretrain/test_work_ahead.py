"""Work ahead: in order, as far ahead as asked, its faults where they belong."""

import threading
import time

import pytest

from ubr_pretrain.work_ahead import worked_ahead


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_work_done_ahead_comes_in_order(threads):
    def work(i):
        time.sleep(0.002 * (i % 3))  # later items are ready earlier
        return i * i

    assert list(worked_ahead(work, range(20), threads)) == [i * i for i in range(20)]


def test_threads_are_a_few_items_ahead_and_no_more():
    begun = []
    ahead = worked_ahead(begun.append, range(100), 2)
    next(ahead)
    time.sleep(0.05)
    assert 2 <= len(begun) <= 5
    ahead.close()
    time.sleep(0.05)
    assert len(begun) <= 6


def test_a_fault_comes_where_its_item_would_and_leaves_no_thread():
    before = threading.active_count()
    ahead = worked_ahead(lambda i: 1 / (2 - i), range(9), 2)
    assert [next(ahead), next(ahead)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(ahead)
    assert threading.active_count() == before
