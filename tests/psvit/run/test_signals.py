import os
import signal
import threading

import pytest

from psvit.run.signals import StopSignals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_to_stop_and_handlers_are_given_back(number):
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert not signals.requested
        os.kill(os.getpid(), number)
        assert signals.requested
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_raises_at_once():
    with StopSignals():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_second_sigterm_is_the_first_again_at_first_and_ends_at_once_later(monkeypatch):
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.requested
        monkeypatch.setattr(signals, "_asked", signals._asked - 6)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_forked_worker_outlives_ctrl_c_and_dies_of_sigterm():
    with StopSignals() as signals:
        worker = os.fork()
        if worker == 0:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == -signal.SIGTERM
        assert not signals.requested


def test_outside_the_main_thread_it_does_nothing():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with StopSignals() as signals:
            seen.append(signals.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
    assert signal.getsignal(signal.SIGINT) is before
