"""A run that could be faster says so: threads that wait for one another, and a run that has slowed."""

import time
import warnings

import pytest
import torch

from psld.training.throughput import Slowdown, warn_of_fighting_threads


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def work(alone: float, together: float):
    return lambda: time.sleep(alone if torch.get_num_threads() == 1 else together)


def test_threads_that_fight_are_named_with_both_times_and_the_remedy(two_threads):
    with pytest.warns(UserWarning, match=r"0\.06\d? s with 2 threads and 0\.01\d? s with one.*OMP_NUM_THREADS=1"):
        warn_of_fighting_threads(work(0.01, 0.06))
    assert torch.get_num_threads() == 2


def test_threads_that_help_long_work_and_a_single_thread_are_left_alone(two_threads, monkeypatch):
    monkeypatch.setattr("psld.training.throughput.BOUND", 0.1)
    calls = []

    def long():
        calls.append(torch.get_num_threads())
        time.sleep(0.06)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_fighting_threads(work(0.02, 0.01))
        warn_of_fighting_threads(long)
        torch.set_num_threads(1)
        warn_of_fighting_threads(work(0.01, 1.0))
    assert calls == [2]


def test_a_run_four_times_slower_than_it_was_says_so_once():
    slowdown = Slowdown(images=100, seconds=5.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slowdown.see(1100, 15.0)  # 100 images per second
        slowdown.see(1101, 20.0)  # too short to tell
        slowdown.see(1400, 25.0)  # 30
    with pytest.warns(UserWarning, match="from 100 to 20 images per second"):
        slowdown.see(1600, 35.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slowdown.see(1601, 55.0)
