import threading
import time

import pytest

from registry.caching import Together


def in_threads(count, ask):
    found = []
    threads = [threading.Thread(target=lambda: found.append(ask())) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, found


def joined(threads):
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_those_who_wait_share_one_answer():
    together, made, gate = Together(), [], threading.Event()

    def make():
        made.append(len(made))
        gate.wait(10)
        return made[-1]

    first, of_first = in_threads(1, lambda: together.ask(make))
    while not made:
        time.sleep(0.001)
    others, of_others = in_threads(20, lambda: together.ask(make))
    time.sleep(0.1)
    gate.set()
    joined(first + others)
    assert of_first == [0]
    assert len(of_others) == 20
    assert 0 not in of_others, "an answer was begun before it was asked for"
    assert len(made) <= 4


def test_no_answer_is_older_than_its_question():
    """A counter that only rises, asked for by many threads while it does."""
    together, counter, lock = Together(), [0], threading.Lock()

    def make():
        seen = counter[0]
        time.sleep(0.0005)
        return seen

    def ask():
        for _ in range(50):
            with lock:
                counter[0] += 1
                before = counter[0]
            assert together.ask(make) >= before
        return True

    threads, found = in_threads(8, ask)
    joined(threads)
    assert found == [True] * 8


def test_one_after_the_other_each_makes_its_own():
    together, made = Together(), []
    assert [together.ask(lambda: made.append(1) or len(made)) for _ in range(3)] == [1, 2, 3]


def test_what_is_raised_is_raised_to_one_and_the_next_tries():
    together, gate, begun = Together(), threading.Event(), threading.Event()

    def fail():
        begun.set()
        gate.wait(10)
        raise ValueError("broken")

    def ask_failing():
        with pytest.raises(ValueError, match="broken"):
            together.ask(fail)

    failing, _ = in_threads(1, ask_failing)
    begun.wait(10)
    others, found = in_threads(3, lambda: together.ask(lambda: "well"))
    gate.set()
    joined(failing + others)
    assert found == ["well"] * 3
