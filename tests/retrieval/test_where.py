"""Conditions of --where: what they become, and what is refused."""

from __future__ import annotations

import pytest

from sfsc_timm.retrieval.where import Kind, compile_where

COLUMNS: dict[str, Kind] = {'path': 'text', 'camera': 'text', 'width': 'number'}


@pytest.mark.parametrize('condition, compiled', [
    ('camera = 3', "(`camera` = '3')"),
    ('camera<>"it\'s" AND width >= .5', "((`camera` != 'it''s') AND (`width` >= .5))"),
    ("not (camera in (1, 'b') or width is not null)", "(NOT ((`camera` IN ('1', 'b')) OR (`width` IS NOT NULL)))"),
    ("path not like 'a/%' and width between 0.25 and 1",
     "((`path` NOT LIKE 'a/%') AND (`width` BETWEEN 0.25 AND 1))"),
    ("camera = '3; drop'", "(`camera` = '3; drop')"),
])  # fmt: skip
def test_what_a_condition_becomes(condition: str, compiled: str) -> None:
    assert compile_where(condition, COLUMNS) == compiled


@pytest.mark.parametrize('condition, reason', [
    ('', 'a column, got the end'),
    ('camera', 'a comparison'),
    ('camera = 3; drop', "got '; drop'"),
    ('1=1) or (1=1', "a column, got '1'"),
    ('camera = 3) or (camera = 4', r"the end, or .* got '\)'"),
    ('camera = (select 1)', 'a number, or a text in quotes'),
    ('camera = north', "a text in quotes, got 'north'"),
    ('town = 3', "one of path, camera, width, got 'town'"),
    ("width = 'wide'", "a number, got 'wide'"),
    ('camera < 3', 'by which texts are ordered'),
    ('camera = 3 limit 1', "got 'limit'"),
    ('camera in (1', "'\\)', got the end"),
    ('(' * 99 + 'camera = 3' + ')' * 99, 'at most 40'),
    ('not ' * 99 + 'camera = 3', 'at most 40'),
])  # fmt: skip
def test_what_is_no_condition(condition: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as raised:
        compile_where(condition, COLUMNS)
    assert '--where must be a condition such as "camera = 3"' in str(raised.value)
