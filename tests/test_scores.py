import csv
import os
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonaface.errors import ScoresError
from bonaface.scores import COLUMNS, META, Scores, paired, read_scores, write_scores

HEADER = ",".join(COLUMNS)


def make(rows, **meta):
    """Scores from (path, label, score) rows."""
    paths, labels, scores = zip(*rows, strict=True) if rows else ((), (), ())
    return Scores(paths, np.array(labels), np.array(scores), np.array(scores) * 2 - 1, meta)


def same(a, b):
    return (
        a.path == b.path
        and a.label.tobytes() == b.label.tobytes()
        and a.score.tobytes() == b.score.tobytes()
        and a.logit.tobytes() == b.logit.tobytes()
        and a.meta == b.meta
    )


# Whatever a file system may hold: commas, quotes, line ends, and bytes that are not UTF-8.
names = st.text(
    st.one_of(
        st.sampled_from(',"\n\r\t =+é\udcff\u2028\ufeff'), st.sampled_from(string.ascii_letters)
    ),
    min_size=1,
    max_size=8,
)
rows = st.lists(
    st.tuples(
        names,
        st.integers(0, 1),
        st.floats(0, 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.one_of(st.none(), names),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda row: row[0],
)


@settings(max_examples=150, deadline=None)
@given(rows)
def test_a_round_trip_gives_every_bit_again(tmp_path_factory, table):
    path, label, score, logit, group = zip(*table, strict=True)
    before = Scores(path, label, score, logit, {"group": group})
    file = tmp_path_factory.mktemp("scores") / "scores.csv"
    write_scores(file, before)
    assert same(read_scores(file), before)


def test_the_file_is_what_csv_readers_expect(tmp_path):
    write_scores(tmp_path / "s.csv", make([("b,1\n", 1, 0.1), ("a", 0, 1.0)], age=("x", None)))
    with (tmp_path / "s.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["path"] for row in read] == ["a", "b,1\n"]
    assert read[1] == {
        "path": "b,1\n",
        "label": "1",
        **dict.fromkeys(META, ""),
        "age": "x",
        "logit": "-0.8",
        "score": "0.1",
    }
    assert (tmp_path / "s.csv").read_bytes().startswith(HEADER.encode() + b"\n")


def test_bytes_that_are_not_utf8_come_back(tmp_path):
    name = os.fsdecode(b"real/caf\xe9.png")
    write_scores(tmp_path / "s.csv", make([(name, 0, 0.5)]))
    assert b"real/caf\xe9.png" in (tmp_path / "s.csv").read_bytes()
    assert read_scores(tmp_path / "s.csv").path == (name,)


def test_columns_may_be_in_any_order_and_a_mark_may_stand_before_them(tmp_path):
    (tmp_path / "s.csv").write_text(
        "score,logit,race,gender,age,source,generator,group,label,path\r\n"
        "0.25,-1,,,,,gan,g,1,x.png\r\n\r\n",
        encoding="utf-8-sig",
    )
    read = read_scores(tmp_path / "s.csv")
    assert (read.path, read.score.tolist(), read.logit.tolist()) == (("x.png",), [0.25], [-1.0])
    assert (read.meta["generator"], read.meta["group"], read.meta["race"]) == (
        ("gan",),
        ("g",),
        (None,),
    )


def line(path="p", label="1", score="0.5", logit="0"):
    return f"{path},{label},,,,,,,{logit},{score}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "empty"),
        (HEADER + "\n", "no rows"),
        (HEADER + ",colour\n" + line() + ",red", "line 1: unknown column 'colour'"),
        (HEADER.replace(",race", "") + "\n", "line 1: missing column 'race'"),
        (HEADER + ",age\n", "line 1: repeated column 'age'"),
        (f"{HEADER}\n{line()}\n{line('q', label='fake')}", "line 3: label must be 0 .* 'fake'"),
        (f"{HEADER}\n{line(score='1.5')}", r"line 2: score must lie in \[0, 1\], got 1.5"),
        (f"{HEADER}\n{line(score='nan')}", "line 2: score must be a finite number, got 'nan'"),
        (f"{HEADER}\n{line(logit='inf')}", "line 2: logit must be a finite number, got 'inf'"),
        (f"{HEADER}\n{line(logit='')}", "line 2: logit must be a finite number, got ''"),
        (f"{HEADER}\n{line(path='')}", "line 2: path is empty"),
        (f"{HEADER}\n{line()},7", "line 2: expected 10 values, got 11"),
        (f"{HEADER}\n{line()}\n{line()}", "line 3: path 'p' is already on line 2"),
        # The first path spans two lines, so the wrong row begins on line 4.
        (
            f"{HEADER}\n{line(chr(34) + 'a' + chr(10) + chr(34))}\n{line(label='2')}",
            "line 4: label",
        ),
        (f'{HEADER}\n"p"x,1', "line 2: not valid CSV"),
        (f'{HEADER}\n"p', "not valid CSV"),
    ],
)
def test_a_bad_table_is_refused_with_its_line(tmp_path, body, message):
    (tmp_path / "s.csv").write_text(body)
    with pytest.raises(ScoresError, match=message) as caught:
        read_scores(tmp_path / "s.csv")
    assert str(tmp_path / "s.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_an_error_of_ours(tmp_path):
    with pytest.raises(ScoresError, match="No such file"):
        read_scores(tmp_path / "none.csv")


@given(st.permutations(range(6)))
def test_rows_are_sorted_by_path_whatever_their_order(order):
    table = [(f"p{i}", i % 2, i / 10) for i in order]
    scores = make(table, group=tuple(f"g{i}" for i in order))
    assert scores.path == tuple(f"p{i}" for i in range(6))
    assert scores.label.tolist() == [0, 1, 0, 1, 0, 1]
    assert scores.score.tolist() == [i / 10 for i in range(6)]
    assert scores.meta["group"] == tuple(f"g{i}" for i in range(6))


def test_the_table_cannot_be_changed():
    scores = make([("a", 0, 0.5)])
    with pytest.raises(ValueError, match="read-only"):
        scores.score[0] = 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((("a", "a"), [0, 1], [0, 0], [0, 0]), "'a' is there twice"),
        ((("a",), [0, 1], [0], [0]), "label must hold 1 values"),
        ((("a",), [2], [0], [0]), "label must be 0"),
        ((("a",), [0.5], [0], [0]), "label must be 0"),
        ((("a",), [0], [np.nan], [0]), "score must lie"),
        ((("a",), [0], [-0.1], [0]), "score must lie"),
        ((("a",), [0], [0], [np.inf]), "logit must be finite"),
        ((("a",), [0], [0], [0], {"hair": ("x",)}), "hair"),
        ((("a",), [0], [0], [0], {"age": ()}), "age must hold 1"),
    ],
)
def test_bad_columns_are_refused(columns, message):
    with pytest.raises(ScoresError, match=message):
        Scores(*columns)


def test_where_keeps_the_rows_asked_for():
    scores = make([("a", 0, 0.1), ("b", 1, 0.2), ("c", 1, 0.3)], age=("1", "2", None))
    kept = scores.where(scores.label == 1)
    assert (kept.path, kept.score.tolist(), kept.meta["age"]) == (
        ("b", "c"),
        [0.2, 0.3],
        ("2", None),
    )
    assert len(scores.where(np.zeros(3, dtype=bool))) == 0
    with pytest.raises(ScoresError, match="3 booleans"):
        scores.where(np.array([0, 1, 2]))


def test_an_unknown_group_is_a_group_of_its_own():
    # The fourth row's group bears the name of the first row's path, and is not that row's group.
    scores = make(
        [("a", 0, 0), ("b", 0, 0), ("c", 0, 0), ("d", 0, 0), ("e", 0, 0)],
        group=(None, "x", None, "a", "x"),
    )
    assert scores.groups().tolist() == [0, 1, 2, 3, 1]


def test_tables_are_joined_by_path():
    first = make([("a", 0, 0.1), ("b", 1, 0.2)])
    second = make([("b", 1, 0.8), ("a", 0, 0.9)])
    left, right = paired(first, second)
    assert left.path == right.path
    assert right.score.tolist() == [0.9, 0.8]


def test_a_table_without_groups_takes_those_of_the_other():
    bare = make([("a", 0, 0.1), ("b", 1, 0.2)])
    grouped = make([("a", 0, 0.3), ("b", 1, 0.4)], group=("g", "g"))
    for one, other in (paired(bare, grouped), paired(grouped, bare)):
        assert one.meta["group"] == other.meta["group"] == ("g", "g")
    assert paired(bare, grouped)[0].score.tolist() == [0.1, 0.2]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            make([("a", 0, 0), ("x", 1, 0)]),
            r"4 of the first .*'b', 'c', 'd', \.\.\.\); 1 of the second .*'x'\)",
        ),
        (make([(p, p != "a", 0) for p in "abcd"]), r"1 of the first .*\('e'\)"),
        (make([(p, p in "ab", 0) for p in "abcde"]), r"label of 4 of 5 .*'a', 'c', 'd', \.\.\."),
        (
            make([(p, p in "bcde", 0) for p in "abcde"], group=("g", None, None, None, "h")),
            r"group of 2 of 5 samples \('a', 'e'\)",
        ),
    ],
)
def test_tables_of_different_samples_are_refused(second, message):
    first = make([(p, p in "bcde", 0) for p in "abcde"], group=("k", None, None, None, None))
    with pytest.raises(ScoresError, match=message):
        paired(first, second)
