"""What keeps an expert from being recommended."""

import pytest
from builders import make_expert
from hypothesis import given
from hypothesis import strategies as st

from registry.experts.limits import Limits

KNOWN = make_expert("known.x", num_params=10, flops=10, input_size=10, license="mit")
UNKNOWN = make_expert("unknown.x", num_params=None, flops=None, input_size=None, license="")


@pytest.mark.parametrize("limit", ["max_params", "max_flops", "input_size"])
def test_a_limit_lets_through_what_is_known_to_keep_within_it(limit):
    assert Limits(**{limit: 10}).within([UNKNOWN, KNOWN]) == [KNOWN]
    assert Limits(**{limit: 9.5}).within([UNKNOWN, KNOWN]) == []


def test_a_licence_is_one_of_those_asked_for_whatever_the_case():
    assert Limits(licenses=("MIT", "isc")).within([UNKNOWN, KNOWN]) == [KNOWN]
    assert Limits(licenses=("isc",)).within([UNKNOWN, KNOWN]) == []


def test_without_limits_all_pass_in_order():
    assert Limits().within([UNKNOWN, KNOWN]) == [UNKNOWN, KNOWN]


def test_what_is_not_at_hand_is_left_out_if_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    weights = tmp_path / "a.pth"
    weights.touch()
    here = [make_expert("file.x", loader=f"resnet18@{weights}"), make_expert("resnet14w32.mnist")]
    away = [make_expert("gone.x", loader=f"{here[0].loader}2"), make_expert(cached_as="torch:b.pth")]
    assert Limits(loadable_offline=True).within([*away, *here]) == here


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
def test_several_limits_are_each_of_them_in_turn(experts, limits):
    one_by_one = experts
    for name in ("max_params", "max_flops", "input_size", "licenses"):
        one_by_one = Limits(**{name: getattr(limits, name)}).within(one_by_one)
    assert limits.within(experts) == one_by_one
