"""The slow tests that a run of CI makes: all in ten days, none twice; and how many examples are drawn."""

import re
from collections import Counter

import pytest
from amounts import EXAMPLES, TENTHS, tenths_of
from markdown_pages import ROOT

IDS = ["a.py::one", *(f"a.py::many[{number}]" for number in range(20)), "b.py::ten[x-1]"]


def test_every_test_is_in_one_tenth_and_cases_are_spread():
    tenths = tenths_of(IDS)
    assert sorted(tenths) == sorted(IDS)
    assert set(tenths.values()) <= set(range(TENTHS))
    assert set(Counter(tenths[node_id] for node_id in IDS[1:-1]).values()) == {2}


def test_a_test_stays_in_its_tenth_while_others_come_and_go():
    assert tenths_of(IDS[1:]).items() <= tenths_of([*IDS, "c.py::new"]).items()


def test_each_run_keeps_a_tenth_and_what_is_not_slow(pytester):
    pytester.makeconftest('pytest_plugins = ["amounts"]')
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


@pytest.mark.parametrize(("options", "number"), [([], EXAMPLES), (["--all-examples"], 60)])
def test_few_examples_are_drawn_unless_all_are_asked_for(pytester, options, number):
    pytester.makeconftest('pytest_plugins = ["amounts"]')
    pytester.makepyfile(
        "from hypothesis import given, settings, strategies as st\n\ndrawn = []\n\n"
        "@settings(max_examples=60, database=None)\n@given(st.integers())\ndef test_property(n):\n"
        f"    drawn.append(n)\n\ndef test_count():\n    assert len(drawn) == {number}\n"
    )
    pytester.runpytest(*options, "-W", "ignore").assert_outcomes(passed=2)


def test_ci_runs_the_tenth_of_the_day():
    assert '--slow-tenth "$(date +%j)"' in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
