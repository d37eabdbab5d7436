"""How a folder of images is to be understood: which folders are splits, and which are classes."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from export.prepared_data import Split
from pipeline.data.class_names import same_name
from pipeline.data.sources.split_names import is_wrapper, lies_beside, splits_by_name
from serve.command import LockstepError

Place = tuple[str, ...]
"""Names of folders, from the root down."""

_MOST_WRAPPERS = 5
_LOOSE_SHARE = 0.1
"""Of the images in a folder of folders, at most so many lie beside these."""


class LayoutError(LockstepError):
    """Folders that can be understood in more than one way, or in none."""


@dataclass
class Tree:
    """The folders with images in them.

    Attributes:
        folders: by name those that hold images at any depth.
        images: how many images lie in this folder itself.
    """

    folders: dict[str, "Tree"] = field(default_factory=dict)
    images: int = 0

    @classmethod
    def of(cls, paths: Iterable[Place]) -> "Tree":
        """Args: paths: each image's folders and its own name."""
        root = cls()
        for *folders, _ in paths:
            node = root
            for name in folders:
                node = node.folders.setdefault(name, cls())
            node.images += 1
        return root

    @property
    def total(self) -> int:
        return self.images + sum(folder.total for folder in self.folders.values())

    def at(self, place: Place) -> "Tree":
        node = self
        for name in place:
            node = node.folders[name]
        return node

    @property
    def holds_folders(self) -> bool:
        """Whether it is a folder of folders, as of classes, rather than one of images."""
        if self.images > _LOOSE_SHARE * self.total:
            return False
        (*inner,) = self.folders.values()
        return len(inner) > 1 or (len(inner) == 1 and inner[0].holds_folders)


@dataclass(frozen=True)
class Layout:
    """Attributes:
    parents: the folders of which the subfolders are the classes, and the split that each is;
        without splits, one whose split is None.
    notes: how that was found, in sentences.
    """

    parents: dict[Place, Split | None]
    notes: tuple[str, ...] = ()


def understand(tree: Tree) -> Layout:
    """Find the classes: below the root, below splits, or in a folder around either.

    Raises:
        LayoutError: it could be meant in more than one way.
    """
    base: Place = ()
    notes: list[str] = []
    for _ in range(_MOST_WRAPPERS):
        node = tree.at(base)
        splits = _splits(node, base)
        if splits:
            parents = {_class_parent(node, base, name): split for name, split in splits.items()}
            used = ", ".join(f"{name}/ → {split}" for name, split in sorted(splits.items()))
            return Layout(dict(parents), (*notes, f"splits by folder: {used}"))
        wrapper = _wrapper(node, base)
        if wrapper is None:
            break
        base = (*base, wrapper)
        notes.append(f"the classes lie in {shown(base)}")
    notes += [
        f"{shown((*base, name))}: the images of its {len(folder.folders)} subfolders count for it"
        for name, folder in sorted(tree.at(base).folders.items())
        if folder.holds_folders
    ]
    return Layout({base: None}, tuple(notes))


def shown(place: Sequence[str]) -> str:
    """A folder, for messages."""
    return "/".join(place) + "/"


def _splits(node: Tree, base: Place) -> dict[str, Split]:
    """The folders that are splits; none where they are classes."""
    names = sorted(node.folders)
    splits = splits_by_name(names)
    with_classes = [name for name in splits if node.folders[name].folders]
    others = [name for name in names if name not in splits]
    trained = [name for name, split in splits.items() if split == "train"]
    if not splits or (others and not with_classes and not (trained and len(splits) > 1)):
        return {}  # one alone may be a class: bus, car, train
    strangers = [name for name in others if not lies_beside(name)]
    if strangers:
        raise LayoutError(
            "expected one subfolder per class, or train/ val/ test/ above them; got both or half "
            f"of it: {_list(base, names)}; move or rename what does not fit"
        )
    if not trained:
        raise LayoutError(
            "expected one subfolder per class, or train/ val/ test/ above them; got "
            f"{_list(base, sorted(splits))} without images to train on: add train/, or name the "
            "folder whose subfolders are the classes"
        )
    if not set(trained) & set(with_classes):
        raise LayoutError(
            f"{_list(base, sorted(trained))}: holds images, but no subfolders with them; expected "
            "one subfolder per class"
        )
    return splits


def _class_parent(node: Tree, base: Place, split: str) -> Place:
    """Where the classes of a split lie: in it, or in one more folder of its kind, `train/train`."""
    place, folder = (*base, split), node.folders[split]
    classes = {inner for name, other in node.folders.items() if name != split
               for inner in other.folders}  # fmt: skip
    while len(folder.folders) == 1:
        ((inner, below),) = folder.folders.items()
        is_split = inner in splits_by_name([inner, *node.folders])
        if inner in classes or not (is_split or (is_wrapper(inner) and below.folders)):
            break
        place, folder = (*place, inner), below
    return place


def _wrapper(node: Tree, base: Place) -> str | None:
    """The folder that has all classes in it, or None where the folders here are the classes."""
    nested = [name for name, folder in node.folders.items() if folder.holds_folders]
    _refuse_unnamed_splits(node, base, nested)
    if len(node.folders) == 1:
        (name,) = node.folders
        inside = node.folders[name]
        is_around = len(inside.folders) > 1 or inside.images <= _LOOSE_SHARE * inside.total
        return name if inside.folders and is_around else None
    if len(nested) != 1:
        candidates = [name for name in node.folders if not lies_beside(name)]
        return candidates[0] if len(candidates) == 1 and candidates[0] in nested else None
    (name,) = nested
    beside = [other for other in node.folders if other != name and not lies_beside(other)]
    inside = node.folders[name]
    holds_splits = any(
        split == "train" and inside.folders[folder].folders
        for folder, split in splits_by_name(inside.folders).items()
    )
    if not beside or is_wrapper(name) or holds_splits:
        return name
    if len(beside) == 1:
        raise LayoutError(
            f"{_list(base, sorted(node.folders))}: {name}/ holds only subfolders "
            f"({_list((), sorted(inside.folders))}), {beside[0]}/ holds images; if the subfolders "
            f"of {name}/ are the classes, give {shown((*base, name))} itself; if {name}/ is a "
            "class, move its images up into it"
        )
    return None


def _refuse_unnamed_splits(node: Tree, base: Place, nested: Sequence[str]) -> None:
    """Several folders with the same subfolders are splits, or a class holds splits."""
    where: dict[str, set[str]] = defaultdict(set)
    for name in nested:
        for inner in node.folders[name].folders:
            where[same_name(inner)].add(name)
    for name in nested:
        mine = {same_name(folder) for folder in node.folders[name].folders}
        for other in nested:
            common = {folder for folder in mine if other in where[folder]}
            smaller = min(len(mine), len(node.folders[other].folders))
            if other != name and 2 * len(common) >= smaller:
                raise LayoutError(
                    f"{_list(base, sorted(nested))} hold the same subfolders "
                    f"({_list((), sorted(common))}); if they are splits, name them train/, val/ "
                    "and test/; if they are classes, move their images up into them, or put the "
                    "splits above the classes: train/CLASS, test/CLASS"
                )


def _list(base: Place, names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown((*base, name)) for name in names[:most]) + more
