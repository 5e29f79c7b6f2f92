"""CSV files of results and experts: what they mean, and every way they can be wrong."""

import csv
import re

import pytest
from builders import make_expert, make_result
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import InvalidRecordError, NotFoundError
from registry.gate import EXPERT_PATTERN
from registry.ingest.tables import EXPERT_COLUMNS, MAX_WHOLE, RESULT_COLUMNS, read_experts, read_results
from registry.records import ExpertRecord, ResultRecord

NAMES = st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True)
EXPERT_NAMES = st.from_regex(EXPERT_PATTERN, fullmatch=True)


def accept(result):
    """Take every result."""


EXPECTED = "task,expert,accuracy[,metric,protocol,source,seed,run_id,lower_is_better,task_version]"


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def fields(record, names):
    return [getattr(record, {"expert": "name"}.get(name, name)) for name in names]


def test_results_of_all_columns(tmp_path):
    path = write(
        tmp_path / "r.csv", "source,protocol,metric,accuracy,expert,task\nKim 2024,full,top1,0.5,a.x,birds\n"
    )
    [result], problems = read_results(path, accept)
    expected = make_result("birds", "a.x", 0.5, metric="top1", protocol="full", source="Kim 2024")
    assert problems == []
    assert vars(result) | {"created_at": ""} == vars(expected) | {"created_at": ""}


@pytest.mark.parametrize(
    "text",
    [
        "task,expert,accuracy\nbirds,a.x,0.5\n",
        "\ufefftask,expert,accuracy\r\nbirds,a.x,0.5\r\n",
        " task , expert , accuracy \n birds , a.x , 0.5 \n",
        "task,expert,accuracy,metric,protocol,source\nbirds,a.x,0.5,,,\n",
        "task,expert,accuracy,metric\nbirds,a.x,0.5\n",
        "year,task,expert,accuracy\n2024,birds,a.x,0.5\n",
        "task,expert,accuracy\n\nbirds,a.x,0.5,,\n\n",
        'task,expert,accuracy\n"birds","a.x","5e-1"\n',
        "Task;Expert;Accuracy\nbirds;a.x;0,5\n",
        "task\texpert\taccuracy\nbirds\ta.x\t50 %\n",
        "task,expert,accuracy\nbirds,a.x,50%\n".encode("utf-16"),
        'task,expert,accuracy\nbirds,a.x,"50,0%"\n',
    ],
    ids=[
        "plain",
        "excel",
        "spaces",
        "blank",
        "short",
        "unknown-column",
        "blank-rest",
        "quoted",
        "semicolons",
        "tabs",
        "utf-16",
        "comma",
    ],
)
def test_ways_to_write_one_result(tmp_path, text):
    [result], problems = read_results(write(tmp_path / "r.csv", text), accept)
    assert problems == []
    assert fields(result, ("task", "accuracy", "metric", "protocol", "source", "seed")) == [
        "birds",
        0.5,
        "accuracy",
        "unspecified",
        "",
        None,
    ]
    assert result.expert == "a.x"


def test_bad_rows_are_named_with_their_line_and_good_ones_kept(tmp_path):
    def check(result):
        if result.task == "birdz":
            raise NotFoundError("task", "birdz", ["birds"])

    path = write(
        tmp_path / "r.csv",
        "task,expert,accuracy\nbirds,a.x,0.5\nbirdz,a.x,0.5\n\nbirds,a.x,95.3\nbirds,a.x,good\n"
        'birds,a.x,0.5,a,b\n"b i",a.x,1\nbirds,b.x,1\n',
    )
    results, problems = read_results(path, check)
    assert [(result.expert, result.accuracy) for result in results] == [("a.x", 0.5), ("b.x", 1.0)]
    percent = "if it is in per cent, write 0.953"
    assert problems == [
        f"{path}, line 3: no task is named 'birdz'; did you mean birds?",
        f"{path}, line 5: result of a.x on birds: accuracy must be from 0 to 1, got 95.3; {percent}",
        f"{path}, line 6: accuracy must be a number from 0 to 1, got 'good'",
        f"{path}, line 7: there are more fields than columns; put quotes around a field with a comma",
        (f"{path}, line 8: 'b i' cannot name a task: allowed are 1 to 128 of the characters A-Z a-z 0-9 . _ -"),
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", f"there is no column task; expected {EXPECTED}, found an empty"),
        (
            "task/expert/accuracy\n",
            (f"there is no column task; expected {EXPECTED}, found task/expert/accuracy"),
        ),
        ("task,expert\na,b\n", f"there is no column accuracy; expected {EXPECTED},"),
        (b"task,expert,accuracy\nb\xfcrds,a.x,1\n", "cannot be read as CSV: it is not UTF-8 text"),
        (
            f"task,expert,accuracy\n{'x' * 200_000},a.x,1\n",
            "cannot be read as CSV: line 2: a cell is larger than 131072 characters; a quote",
        ),
    ],
    ids=["empty", "slashes", "column", "latin-1", "endless-field"],
)
def test_a_file_that_is_no_table_of_results(tmp_path, content, problem):
    path = write(tmp_path / "r.csv", content)
    with pytest.raises(InvalidRecordError, match="^" + re.escape(f"{path}: {problem}")):
        read_results(path, accept)


@pytest.mark.parametrize(
    ("name", "problem"), [("none.csv", "no such file or directory"), ("", "is a directory")]
)
def test_a_file_that_is_not_there(tmp_path, name, problem):
    path = tmp_path / name
    with pytest.raises(InvalidRecordError, match=f"^{re.escape(f'{path}: cannot be read as CSV: {problem}')}$"):
        read_experts(path)


def test_experts_of_all_columns_and_of_one(tmp_path):
    path = write(
        tmp_path / "e.csv",
        f"{','.join(EXPERT_COLUMNS)}\na.x,resnet18@/w.pt,birds,11e6,1.8e9,224,MIT,.95\nb.x,,,,,,,\n",
    )
    (full, bare), problems = read_experts(path)
    assert problems == []
    assert fields(full, EXPERT_COLUMNS) == [
        "a.x",
        "resnet18@/w.pt",
        "birds",
        11_000_000,
        1_800_000_000,
        224,
        "mit",
        0.95,
    ]
    assert fields(bare, EXPERT_COLUMNS) == ["b.x", "b.x", "", None, None, None, "", None]


@pytest.mark.parametrize(
    "text", ["25,557,032", "25.557.032", "25 557 032", "25'557'032", "25557032.0", "25557.032k"]
)
def test_sizes_with_their_thousands_apart(tmp_path, text):
    path = write(tmp_path / "e.csv", f'expert,num_params\na.x,"{text}"\n')
    ([expert], problems) = read_experts(path)
    assert (expert.num_params, problems) == (25_557_032, [])


def test_rows_that_a_quote_swallows_are_no_field(tmp_path):
    head = "task,expert,accuracy,source\nbirds,a.x,0.1,"
    for rest, problem in (
        (
            '"run 1\nbirds,b.x,0.2,run 2\nbirds,c.x,0.3,run 3"\n',
            ", line 4: a field of several lines holds what",
        ),
        (
            '"run 1\nbirds,b.x,0.2,run 2\n',
            ": cannot be read as CSV: line 2: a quote is opened and never closed",
        ),
        ('"run" 1\nbirds,b.x,0.2,run 2\n', ": cannot be read as CSV: line 2: a quote is closed within a cell"),
    ):
        path = write(tmp_path / "r.csv", head + rest)
        with pytest.raises(InvalidRecordError, match=f"^{re.escape(f'{path}{problem}')}"):
            read_results(path, accept)
    [result], problems = read_results(write(path, f'{head}"two lines,\nas people write"\n'), accept)
    assert (result.source, problems) == ("two lines,\nas people write", [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "task,expert,accuracy,accuracy\nbirds,a.x,1,0\n",
            "there are several columns accuracy; keep the one that is",
        ),
        (
            'task,expert,accuracy\nbirds,a.x,"1,234"\n',
            "accuracy '1,234' could mean two numbers; write it with a point",
        ),
    ],
)
def test_what_could_mean_two_things_is_refused(tmp_path, text, problem):
    path = write(tmp_path / "r.csv", text)
    try:
        results, problems = read_results(path, accept)
    except InvalidRecordError as error:
        results, problems = [], [str(error)]
    assert results == []
    assert len(problems) == 1
    assert problem in problems[0]


@pytest.mark.parametrize("text", ["2.5", "many", "nan", "inf", "1e30", "9007199254740994"])
def test_a_size_that_is_no_whole_number(tmp_path, text):
    path = write(tmp_path / "e.csv", f"expert,num_params\na.x,{text}\n")
    assert read_experts(path) == (
        [],
        [f"{path}, line 2: num_params must be a whole number up to 2**53, got {text!r}"],
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("most", "source_accuracy must be a number from 0 to 1, got 'most'"),
        ("95", "expert a.x: source_accuracy must be from 0 to 1, got 95.0"),
        ("nan", "expert a.x: source_accuracy must be from 0 to 1, got nan"),
    ],
)
def test_an_accuracy_that_is_none(tmp_path, text, problem):
    path = write(tmp_path / "e.csv", f"expert,source_accuracy\na.x,{text}\n")
    assert read_experts(path) == ([], [f"{path}, line 2: {problem}"])


@pytest.mark.parametrize("text", ["0", "-5"])
def test_a_size_that_is_not_positive(tmp_path, text):
    path = write(tmp_path / "e.csv", f"expert,flops\na.x,{text}\n")
    assert read_experts(path) == ([], [f"{path}, line 2: expert a.x: flops must be at least 1, got {text}"])


def test_an_expert_given_twice_is_a_bad_row(tmp_path):
    path = write(tmp_path / "e.csv", "expert,license\na.x,mit\na.x,isc\n")
    experts, problems = read_experts(path)
    assert [expert.license for expert in experts] == ["mit"]
    assert problems == [f"{path}, line 3: expert a.x is given twice"]


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(
        st.builds(
            ResultRecord,
            NAMES,
            EXPERT_NAMES,
            st.floats(0, 1),
            metric=NAMES,
            protocol=NAMES,
            seed=st.none() | st.integers(0, MAX_WHOLE),
            lower_is_better=st.booleans(),
            run_id=NAMES | st.just(""),
            source=st.text(st.characters(codec="utf-8", exclude_characters="\0")).map(str.strip),
        ),
        max_size=5,
    )
)
def test_results_written_as_csv_are_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "r.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [RESULT_COLUMNS, *([getattr(row, c) for c in RESULT_COLUMNS] for row in rows)]
        )
    found, problems = read_results(path, accept)
    assert problems == []
    assert [fields(row, RESULT_COLUMNS[2:]) for row in found] == [
        fields(row, RESULT_COLUMNS[2:]) for row in rows
    ]
    assert [(row.task, row.expert) for row in found] == [(row.task, row.expert) for row in rows]


WHOLES = st.none() | st.integers(1, MAX_WHOLE)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(
        st.builds(
            ExpertRecord,
            EXPERT_NAMES,
            EXPERT_NAMES,
            source_task=NAMES | st.just(""),
            num_params=WHOLES,
            flops=WHOLES,
            input_size=WHOLES,
            license=st.text("abc-.0123456789", max_size=12),
            source_accuracy=st.none() | st.floats(0, 1),
        ),
        max_size=5,
        unique_by=lambda row: row.name,
    )
)
def test_experts_written_as_csv_are_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "e.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([EXPERT_COLUMNS, *(fields(row, EXPERT_COLUMNS) for row in rows)])
    found, problems = read_experts(path)
    assert problems == []
    assert [fields(row, EXPERT_COLUMNS) for row in found] == [fields(row, EXPERT_COLUMNS) for row in rows]


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, MAX_WHOLE))
def test_any_size_up_to_the_limit_is_read_exactly(tmp_path_factory, size):
    path = write(tmp_path_factory.mktemp("csv") / "e.csv", f"expert,num_params\na.x,{size}\n")
    [expert], _ = read_experts(path)
    assert expert.num_params == size == make_expert(num_params=size).num_params
