"""Signals: raised, or noted inside a step; the second one ends the process."""

import os
import signal
import threading

import pytest

from retinanet_jax.runtime.preemption import Preempted, Preemption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_noted_or_raised_and_the_second_ends_the_process(number):
    before = signal.getsignal(number)
    with Preemption() as preemption, preemption.deferred():
        os.kill(os.getpid(), number)
        assert preemption.requested == signal.Signals(number).name
        assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert signal.getsignal(number) == before
    with pytest.raises(Preempted, match=signal.Signals(number).name), Preemption():
        os.kill(os.getpid(), number)
    with (
        pytest.raises(Preempted),
        Preemption() as preemption,
        preemption.deferred(),
        preemption.deferred(False),
    ):
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_outside_the_main_thread_it_does_nothing():
    before, failures = signal.getsignal(signal.SIGTERM), []

    def work():
        try:
            with Preemption() as preemption:
                assert not preemption.requested
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures and signal.getsignal(signal.SIGTERM) == before


def test_except_exception_does_not_catch_it():
    assert not issubclass(Preempted, Exception)
