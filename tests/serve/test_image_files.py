"""Which files in a folder count as images."""

import os
from pathlib import Path

from serve.image_files import find_image_files


def names(paths: list[Path], folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in paths]


def test_images_and_others_are_told_apart_by_name(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", "notes.txt", "x/c.webp", ".hidden.png", ".cache/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    images, others = find_image_files(tmp_path)
    assert names(images, tmp_path) == ["a.PNG", "b.jpg", "x/c.webp"]
    assert names(others, tmp_path) == [
        ".cache/d.png",
        ".hidden.png",
        "dangling.png",
        "notes.txt",
        "pipe.png",
    ]


def test_links_to_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").touch()
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "cats").symlink_to(tmp_path / "elsewhere")
    (photos / "loop").symlink_to(photos)
    images, others = find_image_files(photos)
    assert names(images, photos) == ["cats/a.png"]
    assert names(others, photos) == ["loop"]


def test_a_folder_above_may_be_hidden(tmp_path: Path) -> None:
    folder = tmp_path / ".photos"
    folder.mkdir()
    (folder / "a.png").touch()
    assert names(find_image_files(folder)[0], folder) == ["a.png"]
