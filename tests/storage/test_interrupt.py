"""Stop signals: held back where a file is half done, answered at once elsewhere."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from medtl.storage.interrupt import STOP_SIGNALS, Listener, Stopped, held


@pytest.fixture
def listener() -> Iterator[Listener]:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    listener = Listener()
    listener.listen()
    yield listener
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_stops_with_the_status_of_a_shell(listener: Listener, number: int) -> None:
    with pytest.raises(Stopped) as stop:
        signal.raise_signal(number)
    assert stop.value.code == 128 + number
    assert listener.heard == number


def test_a_held_signal_waits_for_the_end_of_the_block(listener: Listener) -> None:
    done = []

    def work() -> None:
        with held() as is_waiting:
            assert not is_waiting()
            signal.raise_signal(signal.SIGTERM)
            assert is_waiting()
            with held():
                done.append("the inner block too")
        done.append("never")

    with pytest.raises(Stopped) as stop:
        work()
    assert stop.value.code == 143
    assert done == ["the inner block too"]
    assert listener.heard == signal.SIGTERM


def test_a_signal_in_an_inner_block_waits_for_the_outer_one(listener: Listener) -> None:
    seen = []

    def work() -> None:
        with held() as is_waiting:
            with held():
                signal.raise_signal(signal.SIGINT)
            seen.append(is_waiting())

    with pytest.raises(Stopped):
        work()
    assert seen == [True]


def test_without_a_listener_ctrl_c_is_what_it_always_was() -> None:
    def work() -> None:
        with held():
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_block_that_fails_fails_with_its_own_error_when_no_signal_came() -> None:
    with pytest.raises(ValueError, match="own"), held():
        raise ValueError("own")


def test_other_threads_have_nothing_to_hold() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with held() as is_waiting:
            seen.append((is_waiting(), signal.getsignal(signal.SIGINT) is before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, True)]


TWICE = """
import os, signal, sys
from medtl.storage.interrupt import Listener, held
Listener().listen()
with {block}:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    print("not reached")
"""


def test_a_second_signal_ends_the_process_at_once() -> None:
    code = TWICE.format(block="held()")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_second_signal_during_the_way_out_ends_it_too() -> None:
    code = """
import os, signal
from medtl.storage.interrupt import Listener
Listener().listen()
try:
    os.kill(os.getpid(), signal.SIGINT)
finally:
    os.kill(os.getpid(), signal.SIGINT)
    print("not reached")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_when_the_end_is_decided_a_signal_changes_nothing(listener: Listener) -> None:
    """Python gives its handlers back while it ends: a finished run would die of the signal."""
    listener.close()
    for number in STOP_SIGNALS:
        signal.raise_signal(number)
    assert listener.heard is None


def test_what_the_parent_ignores_stays_ignored() -> None:
    """`nohup` and a shell's background jobs rely on it."""
    code = """
import os, signal
from medtl.storage.interrupt import Listener, held
signal.signal(signal.SIGHUP, signal.SIG_IGN)
Listener().listen()
with held():
    os.kill(os.getpid(), signal.SIGHUP)
os.kill(os.getpid(), signal.SIGHUP)
print("reached")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "reached\n")
