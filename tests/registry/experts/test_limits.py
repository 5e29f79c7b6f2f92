"""What keeps an expert from being recommended."""

import re
from dataclasses import replace

import pytest
from builders import make_expert
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidQueryError
from registry.experts.limits import Limits

KNOWN = make_expert("known.x", num_params=10, flops=10, input_size=10, license="mit")
UNKNOWN = make_expert("unknown.x", num_params=None, flops=None, input_size=None, license="")


def within(limits, experts):
    return limits.within(experts)[0]


@pytest.mark.parametrize("limit", ["max_params", "max_flops", "input_size"])
def test_a_limit_lets_through_what_is_known_to_keep_within_it(limit):
    assert Limits(**{limit: 10}).within([UNKNOWN, KNOWN]) == ([KNOWN], {limit: 1})
    assert Limits(**{limit: 9.5}).within([UNKNOWN, KNOWN]) == ([], {limit: 2})


def test_a_licence_is_one_of_those_asked_for_whatever_the_case():
    assert Limits(licenses=("MIT", "isc")).within([UNKNOWN, KNOWN]) == ([KNOWN], {"license": 1})
    assert within(Limits(licenses=("isc",)), [UNKNOWN, KNOWN]) == []


def test_without_limits_all_pass_in_order():
    assert Limits().within([UNKNOWN, KNOWN]) == ([UNKNOWN, KNOWN], {})


def test_what_is_not_at_hand_is_left_out_if_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    weights = tmp_path / "a.pth"
    weights.touch()
    here = [make_expert("file.x", loader=f"resnet18@{weights}"), make_expert("resnet14w32.mnist")]
    away = [make_expert("gone.x", loader=f"{here[0].loader}2"), make_expert(cached_as="torch:b.pth")]
    assert Limits(loadable_offline=True).within([*away, *here]) == (here, {"loadable_offline": 2})


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("known.x", {"known.x"}),
        (" KNOWN* ", {"known.x"}),
        ("timm:*", {"unknown.x"}),
        ("*.x", {"known.x", "unknown.x"}),
    ],
)
def test_patterns_match_names_and_aliases_whatever_the_case(pattern, names):
    experts = [replace(UNKNOWN, aliases=("timm:Other",)), KNOWN]
    assert {expert.name for expert in within(Limits(patterns=(pattern,)), experts)} == names


def test_a_pattern_that_matches_nothing_is_told():
    message = "no expert is named swin* or vit*; `t2v expert list` shows the names"
    with pytest.raises(InvalidQueryError, match=f"^{re.escape(message)}$"):
        Limits(patterns=("swin*", "vit*")).within([KNOWN])
    assert Limits(patterns=("swin*",)).within([]) == ([], {"experts": 0})


NUMBERS = st.none() | st.integers(1, 5)


@given(
    experts=st.lists(
        st.builds(
            make_expert,
            num_params=NUMBERS,
            flops=NUMBERS,
            input_size=NUMBERS,
            license=st.sampled_from(["", "mit", "isc"]),
        )
    ),
    limits=st.builds(
        Limits,
        max_params=NUMBERS,
        max_flops=NUMBERS,
        input_size=NUMBERS,
        licenses=st.sampled_from([(), ("mit",), ("ISC", "mit")]),
    ),
)
def test_several_limits_are_each_of_them_in_turn_and_count_what_they_leave_out(experts, limits):
    left, counts = experts, {}
    for name in ("max_params", "max_flops", "input_size", "licenses"):
        left, left_out = Limits(**{name: getattr(limits, name)}).within(left)
        counts |= left_out
    assert limits.within(experts) == (left, counts)
