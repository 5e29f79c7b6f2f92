"""Model cards: what their YAML says, and what of it is refused or left out."""

import json
import re
import sys

import pytest
from builders_models import CARD
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import InvalidRecordError, MissingExtraError
from registry.experts.model_cards import MAX_CARD_BYTES, CardResult, ModelCard, letters_of, read_card


@pytest.fixture
def card(tmp_path):
    def write(text):
        path = tmp_path / "README.md"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_card(path)

    return write


def head(yaml):
    return f"---\n{yaml}\n---\n# Model\n"


def test_everything_that_a_card_says_is_read(card):
    pets, flowers = ("acme/pets", "pets", "Pets"), ("flowers", "Oxford Flowers")
    assert card(CARD) == ModelCard(
        license="apache-2.0",
        datasets=("acme/pets",),
        base_models=("acme/vit-large",),
        pipeline_tag="image-classification",
        tags=("vision", "vit"),
        metrics=("accuracy",),
        results=(
            CardResult(pets, "test", "accuracy", 0.935),
            CardResult(flowers, "validation", "accuracy", 0.75),
            CardResult(flowers, "validation", "f1", 0.5),
        ),
    )


@pytest.mark.parametrize(
    "text", ["", "# A model\n---\nlicense: mit\n---\n", "---\n---\n", "---\n# none\n---\n"]
)
def test_a_card_that_says_nothing_is_empty(card, text):
    assert card(text) == ModelCard()


@pytest.mark.parametrize(
    "text", ["---\r\nlicense: mit\r\n---\r\n", "\ufeff---\nlicense: mit\n---", "--- \nlicense: [MIT, x]\n---"]
)
def test_other_line_ends_and_lists_will_do(card, text):
    assert card(text).license == "mit"


@pytest.mark.parametrize(
    ("yaml", "license"),
    [
        ("license: other\nlicense_name: Acme-1", "acme-1"),
        ("license: other", "other"),
        ("license: unknown", ""),
        ("license: 2", ""),
        ("license: {a: b}", ""),
    ],
)
def test_licences_are_identifiers(card, yaml, license):
    assert card(head(yaml)).license == license


def test_a_licence_that_is_none_is_left_out(card):
    found = card(head("license: see the file"))
    assert (found.license, found.left_out) == ("", ("its licence is no identifier such as apache-2.0",))


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (head("a: [1"), ", line 3: the head of the model card is not YAML"),
        (head("a: 1\n\tb: 2"), ", line 3: the head of the model card is not YAML"),
        (head(BOMB), ", line 3: the head of the model card has an alias or is nested more than 64 deep"),
        (head("a: " + "[" * 65 + "]" * 65), ", line 2: the head of the model card has an alias"),
        (head("a: " + "[" * 100_000), ", line 2: the head of the model card has an alias"),
        (
            head("a: !!python/object/apply:os.system ['true']"),
            ", line 2: the head of the model card is not YAML",
        ),
        (head("a: 2024-99-99"), ": the head of the model card is not YAML: month must be in 1..12"),
        (head("a: " + "9" * 5000), ": the head of the model card is not YAML: Exceeds the limit"),
        (head("? [a]\n: 1"), ", line 2: the head of the model card is not YAML"),
        (head("- a"), ": the YAML at its head must be names with values, such as license: mit"),
        ("---\nlicense: mit\n", ": the YAML at its head has no end; expected a second line ---"),
        (b"---\n\xff\n---", ": the model card cannot be read: it is not UTF-8 text"),
        (b" " * (MAX_CARD_BYTES + 1), f": the model card is larger than {MAX_CARD_BYTES} bytes"),
    ],
)
def test_heads_that_are_none_are_refused(card, tmp_path, text, message):
    with pytest.raises(InvalidRecordError, match=rf"^{re.escape(f'{tmp_path}/README.md{message}')}") as refused:
        card(text)
    assert "\n" not in str(refused.value)


def test_nothing_is_read_without_the_library(card, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingExtraError, match=r"needs PyYAML; .*task2vec-registry\[hub\]"):
        card(CARD)


def results(card, dataset, metric):
    return card(head(f"model-index: [{{results: [{{dataset: {dataset}, metrics: [{metric}]}}]}}]"))


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        ("{type: cifar10, config: plain_text}", ("cifar10",)),
        ("{type: glue, config: sst2}", ("glue-sst2",)),
        ("{type: glue, args: sst2, name: GLUE SST2}", ("glue-sst2", "GLUE SST2")),
        ("{type: uoft-cs/cifar10, config: cifar10}", ("uoft-cs/cifar10", "cifar10")),
        ("{type: imagefolder, name: imagefolder, config: default}", ()),
        ("{type: imagefolder, name: Pets}", ("Pets",)),
        ("{type: '///', name: ''}", ()),
    ],
)
def test_names_of_a_dataset_tell_which_part_was_used(card, dataset, names):
    found = results(card, dataset, "{type: accuracy, value: 1}")
    assert [it.datasets for it in found.results] == ([names] if names else [])
    assert len(found.left_out) == (not names)


@pytest.mark.parametrize(
    ("value", "share"),
    [("0.5", 0.5), ("'0.5'", 0.5), ("1", 1.0), ("1.5", 0.015), ("100", 1.0), ("0", 0.0)]
    + [(bad, None) for bad in ("101", "-0.1", ".nan", ".inf", "true", "none", "[1]", "null")],
)
def test_scores_are_shares_or_percent(card, value, share):
    found = results(card, "{type: pets}", f"{{type: Accuracy, value: {value}}}")
    assert [it.accuracy for it in found.results] == ([] if share is None else [pytest.approx(share)])
    if share is None:
        assert "accuracy must be from 0 to 1 or in percent" in found.left_out[0]


PLAIN = (
    st.none() | st.booleans() | st.integers(-9, 200) | st.floats() | st.text("ab: -{}[]\u00e9\x1b", max_size=8)
)
NAMES = st.sampled_from(["results", "dataset", "metrics", "type", "value", "name", "split", "config"])
TREES = st.recursive(
    PLAIN, lambda below: st.lists(below, max_size=3) | st.dictionaries(NAMES, below, max_size=4)
)


@settings(deadline=None, max_examples=60)
@given(TREES)
def test_any_index_is_read_or_left_out(tmp_path_factory, index):
    path = tmp_path_factory.getbasetemp() / "any.md"
    values = {"model-index": index, "license": index, "datasets": index, "tags": index}
    path.write_text(head(json.dumps(values)))
    found = read_card(path)
    assert all(0 <= result.accuracy <= 1 and result.datasets for result in found.results)


def test_names_are_compared_by_letters_and_digits():
    assert letters_of("ImageNet-1k") == letters_of("imagenet_1K") == "imagenet1k"
