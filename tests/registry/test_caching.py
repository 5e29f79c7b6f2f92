import threading

import pytest

from registry.caching import LastAnswers


def test_an_answer_is_made_once_for_each_key():
    kept, made = LastAnswers(), []

    def make():
        made.append(1)
        return len(made)

    assert [kept.get(("a", "v1"), make), kept.get(("a", "v1"), make), kept.get(("a", "v2"), make)] == [1, 1, 2]


def test_what_was_asked_for_least_lately_goes_first():
    kept = LastAnswers(size=2)
    for key in ("a", "b", "a", "c"):
        kept.get(key, lambda key=key: key)
    assert kept.get("a", lambda: "made again") == "a"
    assert kept.get("b", lambda: "made again") == "made again"


def test_long_work_is_waited_for_and_done_once():
    kept, begun, go_on = LastAnswers(), [], threading.Event()

    def make():
        begun.append(1)
        assert go_on.wait(10)
        return "answer"

    assert kept.wait("key", make, 0.01) is None
    assert kept.wait("key", make, 0.01) is None
    go_on.set()
    assert kept.wait("key", make, 10) == "answer"
    assert kept.wait("key", make, 0) == "answer"
    assert len(begun) == 1


@pytest.mark.parametrize("error", [ValueError("not so"), TimeoutError("its own")])
def test_an_error_is_told_and_the_work_tried_again(error):
    kept, outcomes = LastAnswers(), [error, "answer"]

    def make():
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with pytest.raises(type(error), match=str(error)):
        kept.wait("key", make, 10)
    assert kept.wait("key", make, 10) == "answer"


def test_long_work_is_done_one_after_the_other():
    kept, at_once, most = LastAnswers(), [], []

    def make():
        at_once.append(1)
        most.append(len(at_once))
        threading.Event().wait(0.02)
        at_once.pop()
        return True

    waiting = [threading.Thread(target=kept.wait, args=(key, make, 10)) for key in range(5)]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()
    assert most == [1] * 5
