"""Names to things, ours and those of packages: lazily, and a broken package hurts nobody else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from motoric.hardware.registry import INTERFACES, BrokenPlugin, Table


def install(folder: Path, package: str, points: dict[str, str], **modules: str) -> None:
    """What pip leaves behind: modules, and the metadata of a package with entry points."""
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code)
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[motoric.gaits]", *lines, ""]))


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def ours(tmp_path, monkeypatch) -> str:
    """The dotted name of a folder with two things in it and a module that holds none."""
    folder = tmp_path / "ours_of_a_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "walk.py").write_text("GAIT = 'our walk'\n")
    (folder / "trot.py").write_text("GAIT = 'our trot'\n")
    (folder / "common.py").write_text("WIDTH = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder.name
    for name in [n for n in sys.modules if n.startswith(folder.name)]:
        del sys.modules[name]


def test_a_file_adds_itself(ours):
    table = Table("gait", "gaits", package=ours, attribute="GAIT")
    assert sorted(table) == ["trot", "walk"]
    assert len(table) == 2
    assert table["walk"] == "our walk"
    assert "common" not in table
    assert 3 not in table


def test_nothing_is_imported_but_what_is_asked_for(ours, site):
    install(site, "theirs", {"hop": "theirs_of_a_test:HOP"}, theirs_of_a_test="HOP = 'hop'")
    table = Table("gait", "gaits", package=ours, attribute="GAIT")
    assert set(table.names) >= {"walk", "trot", "hop"}
    assert table["walk"] == "our walk"
    assert not {f"{ours}.trot", "theirs_of_a_test"} & set(sys.modules)
    assert table["hop"] == "hop"
    assert "theirs_of_a_test" in sys.modules


def test_a_name_that_is_none_is_answered_with_those_there_are(ours):
    table = Table("gait", "gaits", package=ours, attribute="GAIT")
    with pytest.raises(ValueError, match="gait 'common' is unknown, expected one of trot, walk"):
        table.find("common")
    with pytest.raises(KeyError):
        table["gallop"]


def test_ours_win_over_a_package_and_a_module_that_holds_none_does_not(ours, site):
    points = {"walk": "theirs_two:WALK", "common": "theirs_two:WALK"}
    install(site, "theirs", points, theirs_two="WALK = 'their walk'")
    table = Table("gait", "gaits", package=ours, attribute="GAIT")
    assert table["walk"] == "our walk"
    assert table.find("common") == "their walk"
    given = Table("gait", "gaits", {"walk": f"{ours}.trot:GAIT"})
    assert given["walk"] == "our trot"


@pytest.mark.parametrize(
    ("value", "code", "reason"),
    [
        (
            "broken:HOP",
            "raise RuntimeError('no licence\\nsecond line')",
            "RuntimeError: no licence",
        ),
        ("broken:HOP", "import a_module_that_nobody_has", "No module named 'a_module_that_nobody"),
        ("broken:HOP", "HIP = 1", "AttributeError: .*HOP"),
        ("broken_and_gone:HOP", "HOP = 1", "No module named 'broken_and_gone'"),
        ("not a value", "HOP = 1", "can't be loaded"),
    ],
)
def test_a_broken_package_is_one_line_and_hurts_no_other(ours, site, value, code, reason):
    install(site, "shaky-gaits", {"hop": value}, broken=code)
    install(site, "good", {"skip": "good_of_a_test:SKIP"}, good_of_a_test="SKIP = 'skip'")
    table = Table("gait", "gaits", package=ours, attribute="GAIT")
    assert list(table) == ["trot", "walk", "hop", "skip"]
    assert table["skip"] == "skip"
    with pytest.raises(
        BrokenPlugin, match=f"gait 'hop' of the package shaky-gaits .*{reason}"
    ) as e:
        table.find("hop")
    assert "\n" not in str(e.value)
    sys.modules.pop("broken", None)
    sys.modules.pop("good_of_a_test", None)


def test_one_that_misses_an_extra_is_listed_and_says_so(ours, tmp_path):
    (tmp_path / ours / "fly.py").write_text("import a_module_of_an_extra\n\nGAIT = 'fly'\n")
    table = Table("gait", "gaits", package=ours, attribute="GAIT")
    assert list(table) == ["fly", "trot", "walk"]
    with pytest.raises(ModuleNotFoundError, match="a_module_of_an_extra"):
        table.find("fly")


def test_a_name_of_two_packages_is_refused(site):
    install(site, "first", {"hop": "one:HOP"}, one="HOP = 1")
    install(site, "second", {"hop": "two:HOP", "skip": "two:HOP"}, two="HOP = 2")
    table = Table("gait", "gaits")
    with pytest.raises(BrokenPlugin, match="'hop' is in each of the packages first, second"):
        table.find("hop")
    assert table.find("skip") == 2


def test_what_is_added_is_for_this_table_alone():
    table = Table("gait", "gaits")
    assert not table
    table.add("crawl", 1)
    assert table.find("crawl") == 1
    assert list(table) == ["crawl"] == table.names
    assert "crawl" not in Table("gait", "gaits")


def test_the_interfaces():
    assert {"joint_targets", "impedance"} <= set(INTERFACES)
    assert not {"base", "terms", "metrics"} & set(INTERFACES)
    for name in INTERFACES:
        assert INTERFACES[name].name == name
