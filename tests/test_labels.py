from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mbexport.labels import Label, LabelFinder, imagenet_labels

if TYPE_CHECKING:
    from pathlib import Path


def test_imagenet() -> None:
    """A few classes that every list of ImageNet's classes agrees on."""
    labels = imagenet_labels()
    assert len(labels) == 1000
    known = {0: ("n01440764", "tench"), 207: ("n02099601", "golden retriever"), 281: ("n02123045", "tabby")}
    known |= {1: ("n01443537", "goldfish"), 999: ("n15075141", "toilet tissue")}
    assert {index: (labels[index].id, labels[index].name) for index in known} == known
    ids = [label.id or "" for label in labels]
    assert ids == sorted(set(ids))  # the classes are numbered in the synsets' order


def test_imagenet_is_the_given_list(real_data: Path) -> None:
    given = json.loads((real_data / "imagenet_classes.json").read_text())
    assert [(entry["synset"], entry["name"]) for entry in given] == [
        (label.id, label.name) for label in imagenet_labels()
    ]


def test_finding_a_class() -> None:
    finder = LabelFinder(imagenet_labels())
    for text in ("n02099601", "N02099601", "golden retriever", "Golden_Retriever", " golden  retriever "):
        assert finder.find(text) == [207]
    assert finder.find("crane") == [134, 517]  # the bird and the machine
    assert finder.find("golden") == []
    assert finder.find("207") == []


def test_an_id_goes_before_a_name() -> None:
    finder = LabelFinder([Label(id="a", name="b"), Label(id="b", name="c")])
    assert finder.find("b") == [1]
