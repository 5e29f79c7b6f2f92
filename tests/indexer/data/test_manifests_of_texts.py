"""Manifests of texts: what is listed, what a sample of them is, and what is refused."""

import json
import re
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders_datasets import fails, listed
from builders_texts import Row, sentences, write_texts

from indexer.data.images import InputTransform
from indexer.data.samples import Sample, load_sample
from indexer.data.specs import open_dataset
from indexer.errors import DataError, SettingsError, TooFewSamplesError, UnreadableFilesError
from indexer.networks import tokens
from indexer.networks.load import load_network
from indexer.records import TextTransform

ROWS: list[Row] = [("good film", "yes"), ("a bad plot", "no"), ("great cast", "yes"), ("awful", "no")]


def write(path: Path, rows: list[tuple], columns: tuple[str, ...] = ("text", "label")) -> str:
    """A manifest of the kind that its suffix names."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table(dict(zip(columns, zip(*rows, strict=True), strict=True))), path)
    elif path.suffix == ".jsonl":
        lines = (json.dumps(dict(zip(columns, row, strict=True))) for row in rows)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        write_texts(path, rows, columns)
    return str(path)


SUFFIXES = pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])


@SUFFIXES
def test_manifest_lists_its_texts(tmp_path: Path, suffix: str):
    found = listed(write(tmp_path / f"a{suffix}", [*ROWS, ('of "quotes",\nlines and é', "yes")]))
    assert (found.dataset.content, found.kind, found.class_names) == ("texts", "single_label", ("no", "yes"))
    assert found.labels.tolist() == [1, 0, 1, 0, 1]
    assert [found.read(row).decode() for row in range(5)] == [
        *(text for text, _ in ROWS),
        'of "quotes",\nlines and é',
    ]
    assert [name.partition(":")[0] for name in found.names] == ["1", "2", "3", "4", "5"]
    assert found.sizes[0] == 9


@SUFFIXES
def test_labels_between_bars_targets_and_splits(tmp_path: Path, suffix: str):
    several = [("a", "x|y"), ("b", "y"), ("c", ""), ("d", "x|y")]
    found = listed(write(tmp_path / f"several{suffix}", several))
    assert (found.kind, found.class_names, found.labels.tolist()) == (
        "multi_label",
        ("x", "y"),
        [[1, 1], [0, 1], [0, 0], [1, 1]],
    )
    numbers = [("a", "1.5|2"), ("b", "3|4")]
    found = listed(write(tmp_path / f"numbers{suffix}", numbers, ("text", "target")))
    assert (found.kind, found.class_names, found.labels.tolist()) == (
        "regression",
        ("target_0", "target_1"),
        [[1.5, 2.0], [3.0, 4.0]],
    )
    rows = [("a", "x", "Train"), ("b", "y", "test"), ("c", "y", "train")]
    spec = write(tmp_path / f"split{suffix}", rows, ("text", "label", "split"))
    assert [listed(spec).read(row) for row in range(2)] == [b"a", b"c"]
    assert listed(spec, split="test").class_names == ("y",)


def test_equal_texts_are_samples_of_their_own(tmp_path: Path):
    assert len(set(listed(write(tmp_path / "a.csv", [("same", "x")] * 3)).names)) == 3


@pytest.mark.parametrize(
    ("rows", "columns", "problem"),
    [
        ([(" ", "x")], ("text", "label"), "no row is left: 1 row without a text (on line 2)"),
        ([("a", "")], ("text", "label"), "no row is left: 1 row without a label (on line 2)"),
        (
            [("a", "x||y")],
            ("text", "label"),
            "line 2: label 'x||y' must be names between bars, each of them once",
        ),
        (
            [("a", "1"), ("b", "1|2")],
            ("text", "target"),
            "line 3: target '1|2' holds 2 numbers where line 2 holds 1; give every sample the same targets",
        ),
        (
            [("a", "1|one")],
            ("text", "target"),
            "line 2: target '1|one' must be a number, or several between bars such as 1.5|2",
        ),
        ([], ("text", "label"), "lists no samples; expected a row with text and label for each"),
        (
            [("a", "b", "c")],
            ("text", "class", "category"),
            "the labels could be in the columns class, category; say which by label_col='class'",
        ),
        (
            [("a", "b", "x")],
            ("path", "text", "label"),
            (
                "has both a column 'path' and a column 'text'; say what the samples are by image_col='path' or "
                "text_col='text'"
            ),
        ),
        (
            [("a", "b", "1")],
            ("text", "label", "target"),
            (
                "has both a column 'label' and a column 'target'; say which is the task by label_col='label' "
                "or target_col='target'"
            ),
        ),
        ([("a", "x", "")], ("text", "label", "split"), "line 2: split is empty"),
    ],
)
def test_manifest_refuses(tmp_path: Path, rows: list[tuple], columns: tuple[str, ...], problem: str):
    path = write_texts(tmp_path / "a.csv", rows, columns)
    with fails(DataError, path, problem):
        open_dataset(str(path))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"text": "a", "label": "x"}\n[1]\n', "line 2 is no JSON object; expected one on each line"),
        (b'{"text": ["a"], "label": "x"}\n', "line 1: text must be text or a number"),
        (b'{"text": "\\ud800", "label": "x"}\n', "line 1: text is no valid Unicode: surrogates not allowed"),
        (b"", "is empty; expected a header such as path,label and a row for each sample"),
    ],
)
def test_json_lines_are_refused(tmp_path: Path, content: bytes, problem: str):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with fails(DataError, path, problem):
        open_dataset(str(path))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.jsonl", b'{"text": \n', "line 1 is no JSON, of which each line is an object: "),
        (
            "a.jsonl",
            b'{"text": "a", "text": "b"}\n',
            "line 1 is no JSON, of which each line is an object: 'text' is",
        ),
        (
            "a.csv",
            b"text,label\ncaf\x81,x\n",
            "is not a text file in UTF-8: line 2 has the byte 0x81; name its",
        ),
        (
            "a.csv",
            b"text,label\n" + b"x" * 200_000 + b",x\n",
            "line 2: a cell is larger than 131072 characters",
        ),
    ],
)
def test_wrong_encoding_and_damage_are_refused(tmp_path: Path, name: str, content: bytes, problem: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"^{re.escape(f'{tmp_path / name}: {problem}')}"):
        open_dataset(str(tmp_path / name))


def test_folders_of_text_files(tmp_path: Path):
    for label, text in (("no", "bad"), ("yes", "good"), ("yes", "fine"), ("no", "poor")):
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / label / f"{text}.TXT").write_text(f"a {text} film\n")
    found = listed(tmp_path)
    assert (found.dataset.content, found.names) == (
        "texts",
        ["no/bad.TXT", "no/poor.TXT", "yes/fine.TXT", "yes/good.TXT"],
    )
    (tmp_path / "maybe").mkdir()
    with pytest.raises(DataError, match=r"class folder 'maybe' holds no texts \(.txt\); put some into it"):
        open_dataset(str(tmp_path))


# --- samples ---------------------------------------------------------------------------------------------


def sample_of(encoder: Path, spec: object, **options) -> Sample:
    network = load_network(f"hf:{encoder}")
    options = {"max_samples": 100, "seed": 0} | options
    return load_sample(str(spec), network.transform, tokenizer=network.tokenizer, **options)


def test_sample_is_balanced_encoded_and_described(encoder: Path, tmp_path: Path):
    rows = [(text, "rare" if place % 10 == 0 else "often") for place, text in enumerate(sentences(60))]
    sample = sample_of(encoder, write(tmp_path / "a.csv", rows), max_samples=12)
    assert sample.inputs.shape[:2] == (12, 2)
    assert [int((sample.labels == label).sum()) for label in (0, 1)] == [6, 6]
    assert (sample.description.content, sample.description.num_samples) == ("texts", 60)
    assert sample.description.class_sizes == (54, 6)
    tokenizer = load_network(f"hf:{encoder}").tokenizer
    chosen = [row for row, (text, _) in enumerate(rows) if tokenizer.encode([text])[0, 0].tolist() in [
        encoded[0, : encoded[1].sum()].tolist() for encoded in sample.inputs
    ]]  # fmt: skip
    assert len(chosen) >= 12


def test_fingerprint_is_of_the_contents_of_all_texts(encoder: Path, tmp_path: Path):
    rows = [(text, ("x", "y")[place % 2]) for place, text in enumerate(sentences(12))]
    one = sample_of(encoder, write(tmp_path / "a.csv", rows), max_samples=4).description.fingerprint
    same = sample_of(encoder, write(tmp_path / "b.parquet", rows), max_samples=4).description.fingerprint
    assert one == same  # whatever file they are in
    prints = {one}
    for row in range(12):  # a letter of any text, sampled or not; of the same length
        changed = [
            (f"{text[:-1]}#", label) if row == place else (text, label)
            for place, (text, label) in enumerate(rows)
        ]
        prints.add(
            sample_of(encoder, write(tmp_path / "c.csv", changed), max_samples=4).description.fingerprint
        )
    assert len(prints) == 13


def test_texts_are_not_held(encoder: Path, tmp_path: Path):
    """A sample of 10 MB of texts holds its own texts only."""
    path = tmp_path / "a.csv"
    write_texts(path, [(f"{place} " + "word " * 4000, ("x", "y")[place % 2]) for place in range(500)])
    network = load_network(f"hf:{encoder}")
    tracemalloc.start()
    load_sample(str(path), network.transform, tokenizer=network.tokenizer, max_samples=10, seed=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 10_000_000
    assert peak < 3_000_000


def test_unreadable_text_files_are_skipped_up_to_a_tenth(encoder: Path, tmp_path: Path):
    for label in ("no", "yes"):
        (tmp_path / label).mkdir()
        for number in range(10):
            (tmp_path / label / f"{number}.txt").write_text(f"film {number}")
    (tmp_path / "no/0.txt").write_bytes(b"caf\xe9")
    sample = sample_of(encoder, tmp_path)
    assert (len(sample.inputs), sample.description.skipped_files) == (19, ("no/0.txt",))
    for number in range(3):
        (tmp_path / f"yes/{number}.txt").write_text(" \n")
    with pytest.raises(UnreadableFilesError, match=r"4 of 20 sampled files cannot be decoded"):
        sample_of(encoder, tmp_path)


def test_texts_and_images_do_not_mix(encoder: Path, tmp_path: Path, images: Path):
    path = write(tmp_path / "a.csv", ROWS)
    problem = "holds texts, and the network takes images; use a text encoder, such as hf:./encoder"
    with fails(DataError, path, problem):
        load_sample(path, InputTransform(8, 8), max_samples=10, seed=0)
    problem = "holds images, and the network is a text encoder; use one of images, such as the built-in one"
    with fails(DataError, images, problem):
        sample_of(encoder, images)
    with fails(DataError, path, "holds texts, of which channels would change nothing; leave it out"):
        sample_of(encoder, path, channels="mean")
    with pytest.raises(SettingsError, match=r"texts need the tokenizer of the network"):
        load_sample(path, TextTransform("", 8), max_samples=10, seed=0)


def test_too_few_texts_of_a_class(encoder: Path, tmp_path: Path):
    path = write(tmp_path / "a.csv", [*ROWS, ("one", "only")])
    with fails(TooFewSamplesError, path, "class 'only' has one sample; every class needs at least two"):
        sample_of(encoder, path)


def test_decode_text_drops_a_byte_order_mark_and_blanks():
    assert tokens.decode_text(b"\xef\xbb\xbf a b \r\n") == "a b"
