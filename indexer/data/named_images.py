"""The images below a folder, looked up as files of annotations name them."""

from collections import Counter
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from indexer.data.images import is_image_name
from indexer.data.listings import Tree, is_mask
from indexer.layouts.folders import Node
from indexer.layouts.names import is_hidden, split_kind


class Image(NamedTuple):
    """An image of a tree: its path there, where it is, and the split that a folder around it names."""

    path: str
    where: Any
    split: str


class Images:
    """The images below a folder, looked up as files of annotations name them."""

    def __init__(self, tree: Tree, root: Node) -> None:
        self._by_name: dict[str, list[Image]] = {}
        self._by_stem: dict[str, list[Image]] = {}
        self.count = 0
        for node in root.walk():
            split = next((part.lower() for part in node.path.split("/") if split_kind(part)), "")
            for name, kind, where in tree.items(node.path) if node.samples else ():
                if kind == "file" and is_image_name(name) and not is_hidden(name) and not is_mask(node, name):
                    image = Image(f"{node.path}/{name}" if node.path else name, where, split)
                    self.count += 1
                    self._by_name.setdefault(name, []).append(image)
                    self._by_stem.setdefault(name.rpartition(".")[0], []).append(image)

    @property
    def splits(self) -> Counter[str]:
        """How many images lie in folders of each split; in none is ""."""
        return Counter(image.split for images in self._by_name.values() for image in images)

    def find(self, named: str, base: str = "") -> list[Image]:
        """The images that a path means: the one that is there from ``base``, else those whose path ends alike.

        A path that speaks of a split means no image of another.
        """
        path = PurePosixPath(named.replace("\\", "/"))
        alike = self._by_name.get(path.name) or self._by_stem.get(path.name, [])
        here = [image for image in alike if _bare(image.path) == _bare(str(PurePosixPath(base) / path))]
        if here:
            return here
        split = next((kind for part in path.parent.parts if (kind := split_kind(part))), None)
        alike = [image for image in alike if split is None or split_kind(image.split) in (None, split)]
        scores = [_shared_end(image.path, str(PurePosixPath(base) / path)) for image in alike]
        return [image for image, score in zip(alike, scores, strict=True) if score == max(scores)]

    def only(self, named: str, base: str = "") -> Image | None:
        """The image that a path means; ``None`` if it is not there, or if several could be meant."""
        alike = self.find(named, base)
        return alike[0] if len(alike) == 1 else None


def _shared_end(path: str, other: str) -> int:
    """How many folders before the name are the same, from the image upwards."""
    pairs = list(zip(path.split("/")[-2::-1], other.split("/")[-2::-1], strict=False))
    return next((number for number, (one, two) in enumerate(pairs) if one != two), len(pairs))


def _bare(path: str) -> str:
    return path[: -len(PurePosixPath(path).suffix)] if is_image_name(path) else path
