"""Outputs that are complete or absent."""

import os
from pathlib import Path

import pytest

from serve.atomic import atomic_path, remove, write_text


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_name_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "result.csv"
    with atomic_path(target) as temporary:
        temporary.write_text("all of it")
        assert not target.exists()
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".csv"
    assert target.read_text() == "all of it"
    assert names_in(tmp_path) == ["result.csv"]


def test_an_old_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "result.csv"
    target.write_text("old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
def test_a_failure_keeps_the_old_and_leaves_nothing(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "result.csv"
    target.write_text("old")
    with pytest.raises(error), atomic_path(target) as temporary:
        temporary.write_text("half of")
        raise error
    assert target.read_text() == "old"
    assert names_in(tmp_path) == ["result.csv"]


def test_a_failure_leaves_no_file_where_none_was(tmp_path: Path) -> None:
    with pytest.raises(ValueError), atomic_path(tmp_path / "new" / "result.csv") as temporary:
        temporary.write_text("half of")
        raise ValueError
    assert names_in(tmp_path / "new") == []


def test_a_block_that_writes_nothing_is_a_failure(tmp_path: Path) -> None:
    target = tmp_path / "result.csv"
    target.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(target):
        pass
    assert target.read_text() == "old"


def test_parent_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "text")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "text"


def fill(folder: Path, *names: str) -> None:
    (folder / "inner").mkdir(parents=True)
    for name in names:
        (folder / "inner" / name).write_text(name)


def test_a_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "saved"
    fill(target, "old", "both")
    with atomic_path(target) as temporary:
        fill(temporary, "new", "both")
        assert names_in(target / "inner") == ["both", "old"]
    assert names_in(target / "inner") == ["both", "new"]
    assert names_in(tmp_path) == ["saved"]


def test_a_failure_keeps_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "saved"
    fill(target, "old")
    with pytest.raises(ValueError), atomic_path(target) as temporary:
        fill(temporary, "new")
        raise ValueError
    assert names_in(target / "inner") == ["old"]
    assert names_in(tmp_path) == ["saved"]


def test_a_file_does_not_replace_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "saved"
    fill(target, "old")
    with pytest.raises(IsADirectoryError):
        write_text(target, "text")
    assert names_in(target / "inner") == ["old"]
    assert names_in(tmp_path) == ["saved"]


@pytest.mark.parametrize("left", ["file", "folder"])
def test_what_a_killed_process_left_behind_is_in_nobodys_way(tmp_path: Path, left: str) -> None:
    target = tmp_path / "result.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("first")
    if left == "folder":
        fill(temporary, "left over")
    else:
        temporary.write_text("left over")
    write_text(target, "second")
    assert target.read_text() == "second"
    assert names_in(tmp_path) == ["result.txt"]


def test_text_is_utf8_with_its_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "text", "ä\n犬\n")
    assert (tmp_path / "text").read_bytes() == "ä\n犬\n".encode()


def test_remove_takes_files_folders_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fill(tmp_path / "folder", "inside")
    for name in ("file", "folder", "absent"):
        remove(tmp_path / name)
    assert names_in(tmp_path) == []


def test_remove_takes_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    fill(tmp_path / "folder", "inside")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    remove(tmp_path / "link")
    remove(tmp_path / "broken")
    assert names_in(tmp_path) == ["folder"]
    assert names_in(tmp_path / "folder" / "inner") == ["inside"]


@pytest.mark.skipif(os.name != "posix", reason="needs a name that is too long")
def test_a_name_that_cannot_be_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        write_text(tmp_path / ("x" * 300), "text")
    assert names_in(tmp_path) == []


def test_a_directory_that_cannot_take_its_name_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one steps aside for a moment, and comes back."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").touch()
    rename = Path.replace

    def refuse(source: Path, target: Path) -> Path:
        if source.name.startswith(".partial-"):
            raise OSError(5, "Input/output error")
        return rename(source, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="Input/output"), atomic_path(path) as temporary:
        temporary.mkdir()
    assert [file.name for file in path.iterdir()] == ["old"]
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
