"""The slow tests that a run of CI makes: all of them in ten days, none twice."""

import re
from collections import Counter

from markdown_pages import ROOT
from slow_tenth import TENTHS, tenths_of

IDS = ["a.py::one", *(f"a.py::many[{number}]" for number in range(20)), "b.py::ten[x-1]"]


def test_every_test_is_in_one_tenth_and_cases_are_spread():
    tenths = tenths_of(IDS)
    assert sorted(tenths) == sorted(IDS)
    assert set(tenths.values()) <= set(range(TENTHS))
    assert set(Counter(tenths[node_id] for node_id in IDS[1:-1]).values()) == {2}


def test_a_test_stays_in_its_tenth_while_others_come_and_go():
    assert tenths_of(IDS[1:]).items() <= tenths_of([*IDS, "c.py::new"]).items()


def test_each_run_keeps_a_tenth_and_what_is_not_slow(pytester):
    pytester.makeconftest('pytest_plugins = ["slow_tenth"]')
    pytester.makepyfile(
        "import pytest\n\ndef test_quick():\n    pass\n\n@pytest.mark.slow\n"
        "@pytest.mark.parametrize('n', range(10))\ndef test_slow(n):\n    pass\n"
    )
    ran = [pytester.runpytest("--slow-tenth", str(number), "-v", "-W", "ignore") for number in (3, 13, 4)]
    slow = [re.findall(r"test_slow\[\d\] PASSED", done.stdout.str()) for done in ran]
    assert [len(names) for names in slow] == [1, 1, 1]
    assert slow[0] == slow[1] != slow[2]
    assert all("test_quick PASSED" in done.stdout.str() for done in ran)
    late = pytester.runpytest("--slow-tenth", "3", "--slow-seconds", "0", "-rs", "-W", "ignore")
    late.assert_outcomes(passed=1, skipped=1, deselected=9)
    late.stdout.fnmatch_lines(["*the 0 seconds for slow tests are over"])


def test_ci_runs_the_tenth_of_the_day():
    assert '--slow-tenth "$(date +%j)"' in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
