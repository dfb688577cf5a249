from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mbexport.errors import InputError
from mbexport.folders import LabelledPicture, LabelledSet, count_pictures, labelled_set, named_pictures, take_evenly
from mbexport.labels import Label
from tests.colours import LABELS


def make(folder: Path, *names: str) -> Path:
    """Files of that name; their contents are nobody's affair here."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(folder: Path, labelled: LabelledSet) -> dict[str, int]:
    return {each.path.relative_to(folder).as_posix(): each.label for each in labelled.pictures}


def test_folders_named_by_id_or_name(tmp_path: Path) -> None:
    make(tmp_path, "c2/a.jpg", "c2/deep/er/b.PNG", "Fire_Red/c.jpeg", "black/d.webp", "black/.hidden.jpg")
    make(tmp_path, "black/notes.txt", ".cache/e.jpg", "c2/.thumbs/f.jpg", "readme.txt")
    labelled = labelled_set(tmp_path, 4, LABELS)
    assert found(tmp_path, labelled) == {"Fire_Red/c.jpeg": 0, "black/d.webp": 3, "c2/a.jpg": 2, "c2/deep/er/b.PNG": 2}
    assert labelled.note is None


def test_order_does_not_come_from_the_file_system(tmp_path: Path) -> None:
    make(tmp_path, *[f"c1/{name}.jpg" for name in "qwertyuiop"])
    names = [each.path.stem for each in labelled_set(tmp_path, 4, LABELS).pictures]
    assert names == sorted("qwertyuiop")


@pytest.mark.parametrize("labels", [LABELS, None])
def test_sorted_order_counts_where_no_name_fits(labels: list[Label] | None, tmp_path: Path) -> None:
    make(tmp_path, "zebra/a.jpg", "ant/a.jpg", "cow/a.jpg", "bee/a.jpg")
    labelled = labelled_set(tmp_path, 4, labels)
    assert found(tmp_path, labelled) == {"ant/a.jpg": 0, "bee/a.jpg": 1, "cow/a.jpg": 2, "zebra/a.jpg": 3}
    assert labelled.note is not None
    assert "sorted order" in labelled.note


@pytest.mark.parametrize(
    ("folders", "labels", "named"),
    [
        (["c0", "c1", "c2", "tiger"], LABELS, "tiger"),  # as many as classes, but some fit
        (["ant", "bee"], LABELS, "ant"),  # none fits, and they are not one a class
        (["ant", "bee"], None, "ant"),
        (["c0", "c1", "c2", "c3", "c4"], LABELS, "c4"),
        (["a", "b", "c", "d", "e"], LABELS, "a"),
    ],
)
def test_a_folder_that_fits_nothing(folders: list[str], labels: list[Label] | None, named: str, tmp_path: Path) -> None:
    make(tmp_path, *[f"{name}/a.jpg" for name in folders])
    with pytest.raises(InputError, match=f"{named} fits none of the network's 4 classes"):
        labelled_set(tmp_path, 4, labels)


def test_a_name_of_two_classes(tmp_path: Path) -> None:
    labels = [Label(id="n1", name="crane"), Label(id="n2", name="crane")]
    make(tmp_path, "crane/a.jpg")
    with pytest.raises(InputError, match=r"crane is the name of 2 classes; use the id"):
        labelled_set(tmp_path, 2, labels)
    make(tmp_path / "by_id", "n2/a.jpg")
    assert found(tmp_path / "by_id", labelled_set(tmp_path / "by_id", 2, labels)) == {"n2/a.jpg": 1}


def test_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no folders"):
        labelled_set(tmp_path, 4, LABELS)
    make(tmp_path, "c0/notes.txt")
    with pytest.raises(InputError, match="holds no pictures"):
        labelled_set(tmp_path, 4, LABELS)
    with pytest.raises(InputError, match="does not exist"):
        labelled_set(tmp_path / "elsewhere", 4, LABELS)


def test_links_that_lead_back_end(tmp_path: Path) -> None:
    make(tmp_path, "c0/a.jpg")
    (tmp_path / "c0" / "loop").symlink_to(tmp_path)
    (tmp_path / "c1").symlink_to("c1")
    assert found(tmp_path, labelled_set(tmp_path, 4, LABELS)) == {"c0/a.jpg": 0}


def listed(folder: Path, text: str) -> LabelledSet:
    (folder / "list.csv").write_text(text)
    return labelled_set(folder / "list.csv", 4, LABELS)


@pytest.mark.parametrize(
    "text",
    [
        "a.jpg,c2\nsub/b.jpg,Fire_Red\n\nc.jpg,3\n",
        "path,label\na.jpg,2\nsub/b.jpg,c0\nc.jpg,black\n",
        "\ufeffPath,Label\r\na.jpg, blue\r\nsub/b.jpg ,0\r\nc.jpg,c3\r\n",
        'label,split,path\nblue,val,"a.jpg"\n0,val,sub/b.jpg\n3,val,c.jpg\n',
    ],
)
def test_csv(text: str, tmp_path: Path) -> None:
    assert found(tmp_path, listed(tmp_path, text)) == {"a.jpg": 2, "sub/b.jpg": 0, "c.jpg": 3}


def test_pictures_are_counted(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "a/b/2.png", "notes.txt")
    (tmp_path / "list.csv").write_text("path,label\na/1.jpg,0\nlost.jpg,1\n")
    assert count_pictures(tmp_path) == 2
    assert count_pictures(tmp_path / "list.csv") == 1
    with pytest.raises(InputError, match="does not exist"):
        count_pictures(tmp_path / "lost")


def test_csv_with_an_absolute_path(tmp_path: Path) -> None:
    [each] = listed(tmp_path, f"{tmp_path / 'elsewhere' / 'a.jpg'},1\n").pictures
    assert each == LabelledPicture(tmp_path / "elsewhere" / "a.jpg", 1)


def test_a_label_that_is_a_number_and_a_name_is_the_name(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("a.jpg,0\n")
    labels = [Label(name="1"), Label(name="0")]
    assert [each.label for each in labelled_set(tmp_path / "list.csv", 2, labels).pictures] == [1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.jpg,1\nb.jpg,4\n", "line 2: label '4' fits none"),
        ("path,label\na.jpg,1\nb.jpg,-1\n", "line 3: label '-1' fits none"),
        ("a.jpg,tiger\n", "line 1: label 'tiger' fits none"),
        ("a.jpg\n", "line 1: 2 columns"),
        ("a.jpg,1,2\n", "line 1: 2 columns"),
        ("path,label\n", "holds no pictures"),
        ("", "holds no pictures"),
        ('a.jpg,"1\n', "is no CSV"),
    ],
)
def test_csv_that_is_wrong(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        listed(tmp_path, text)


def test_a_csv_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="UTF-8"):
        labelled_set(tmp_path / "list.csv", 4, LABELS)


def several(*counts: int) -> list[LabelledPicture]:
    return [
        LabelledPicture(Path(f"{label}/{number}"), label)
        for label, count in enumerate(counts)
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("counts", "limit", "each"),
    [((9, 9, 9), 6, [2, 2, 2]), ((9, 1, 9), 7, [3, 1, 3]), ((1, 1, 1), 5, [1, 1, 1]), ((9, 9, 9), 4, [2, 1, 1])],
)
def test_a_limit_spreads_over_the_classes(counts: tuple[int, ...], limit: int, each: list[int]) -> None:
    pictures = several(*counts)
    taken = take_evenly(pictures, limit)
    numbers = Counter(picture.label for picture in taken)
    assert [numbers[label] for label in range(len(counts))] == each
    assert taken == sorted(taken, key=pictures.index)
    assert all(int(picture.path.name) < numbers[picture.label] for picture in taken)  # each class's first


def test_a_limit_below_the_classes() -> None:
    assert [each.label for each in take_evenly(several(*[2] * 10), 4)] == [0, 2, 5, 7]
    assert take_evenly(several(2, 2), None) == several(2, 2)
    with pytest.raises(InputError, match="at least 1"):
        take_evenly(several(2), 0)


def test_named_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(Path(), "b.jpg", "a.png", "notes.txt", "sub/c.jpg", "sub/deep/d.jpg", "odd[1].jpg", "no_suffix")
    assert named_pictures(["no_suffix", "missing.jpg"]) == [Path("no_suffix"), Path("missing.jpg")]
    assert named_pictures(["."]) == [Path("a.png"), Path("b.jpg"), Path("odd[1].jpg")]
    assert named_pictures(["b.jpg", "*", str(tmp_path / "s*" / "*.jpg")]) == [
        *(Path("b.jpg"), Path("a.png"), Path("odd[1].jpg")),
        tmp_path / "sub" / "c.jpg",
    ]
    assert named_pictures(["odd[1].jpg"]) == [Path("odd[1].jpg")]
    with pytest.raises(InputError, match=r"no picture fits \*\.gif"):
        named_pictures(["*.gif"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no pictures"):
        named_pictures(["empty"])
