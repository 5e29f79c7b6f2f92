import re

import numpy as np
import pytest

from registry.web.pages import drawings


def values(svg: str, name: str) -> list[float]:
    return [float(number) for number in re.findall(rf' {name}="([-\d.]+)"', svg)]


def test_interval_stands_where_it_is_on_its_line():
    svg = drawings.interval(0.5, 0.25, 0.75, (0.0, 1.0), "accuracy")
    left = values(svg, "x")[0]
    assert left == pytest.approx(4 + 152 * 0.25)
    assert values(svg, "width")[1] == pytest.approx(152 * 0.5)
    assert values(svg, "cx") == [80.0]
    assert 'aria-label="accuracy 0.500, from 0.250 to 0.750"' in svg


def test_interval_ends_with_its_line():
    svg = drawings.interval(2.0, -1.0, 3.0, (0.0, 1.0), "norm")
    assert values(svg, "x")[0] == 4
    assert values(svg, "width")[1] == 152
    assert values(svg, "cx") == [156.0]


@pytest.mark.parametrize(("value", "largest", "length"), [(0.5, 1.0, 76.0), (0.0, 0.0, 1.0), (9.0, 1.0, 152.0)])
def test_bar_is_as_long_as_its_value(value, largest, length):
    assert values(drawings.bar(value, largest, "distance"), "width")[1] == length


def test_span_reaches_to_the_next_twentieth():
    assert drawings.span_of([0.813, 0.9], [0.9, 0.93]) == (0.8, 0.95)
    assert drawings.span_of([0.0], [1.0]) == (0.0, 1.0)
    low, high = drawings.span_of([0.8], [0.8])
    assert low < high


def test_map_of_a_task_draws_a_sample_and_names_what_is_near():
    positions = np.random.default_rng(0).normal(size=(5000, 2))
    svg = drawings.task_map(positions, 7, [1, 2], ["<task>", "near", "other"])
    assert svg.count("h0") == drawings.MAP_POINTS
    assert svg.count("<circle") == 3
    assert "&lt;task&gt;" in svg
    assert "<task>" not in svg
    svg = drawings.task_map(positions[:3], None, [0, 2], ["new", "newer"])
    assert (svg.count("<circle"), svg.count("<text")) == (2, 2)


def test_map_of_a_task_draws_the_highest_on_top():
    svg = drawings.task_map(np.array([[0.0, 0.0], [0.0, 5.0]]), 0, [1], ["low", "high"])
    assert values(svg, "cy") == [drawings.MAP_EDGE, drawings.MAP_HEIGHT - drawings.MAP_EDGE]


def test_the_front_is_who_no_smaller_one_reaches():
    generator = np.random.default_rng(0)
    points = [
        (f"net{number}", f"/experts/net{number}", int(size), float(value))
        for number, (size, value) in enumerate(
            zip(10 ** generator.uniform(5, 8, 60), generator.uniform(0.5, 0.9, 60), strict=True)
        )
    ]
    points.append(("twin", "/experts/twin", points[0][2], points[0][3] - 0.01))
    svg = drawings.scatter(points, "accuracy")
    front = {
        name
        for name, _, size, value in points
        if not any(other[2] <= size and other[3] > value for other in points)
    }
    assert set(re.findall(r'href="/experts/(\w+)"', svg)) == front
    assert svg.count("<circle") == len(points)
    assert all(56 <= x <= 840 for x in values(svg, "cx"))
    assert all(16 <= y <= 336 for y in values(svg, "cy"))
