"""Workers: results in order, one of torch's threads each, errors passed on, the caller's threads left alone."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from embed_assets.encoder.workers import in_workers, worker_count


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_results_come_in_order_from_several_threads_with_one_of_torchs_each() -> None:
    def work(number: int) -> tuple[int, str, int]:
        time.sleep(0.01 * (5 - number % 5))
        return number, threading.current_thread().name, torch.get_num_threads()

    found = list(in_workers(work, range(12)))
    assert [number for number, _, _ in found] == list(range(12))
    assert len({name for _, name, _ in found}) == 3
    assert {threads for _, _, threads in found} == {1}
    assert worker_count() == torch.get_num_threads() == 3


def test_one_item_is_worked_on_here_with_all_threads() -> None:
    here = threading.current_thread()
    assert list(in_workers(lambda _: (threading.current_thread(), torch.get_num_threads()), [1])) == [(here, 3)]
    assert list(in_workers(str, [])) == []


def test_an_error_is_the_callers() -> None:
    def work(number: int) -> int:
        if number == 2:
            raise ValueError("broken")
        return number

    with pytest.raises(ValueError, match="broken"):
        list(in_workers(work, range(5)))
    assert list(in_workers(str, [1, 2])) == ["1", "2"]
