"""What names of folders and files usually mean: splits, masks, images, counted things."""

import re
import unicodedata
from collections.abc import Collection

_AS_ARRAYS = "give it in Python as arrays, add_task(NAME, (images, labels)), or write these with np.savez"
_PICKLE = f"a Python pickle, which could run code and is not read; {_AS_ARRAYS}"
UNREAD = {
    **dict.fromkeys((".pkl", ".pickle", ".pt", ".pth", ".joblib"), _PICKLE),
    **dict.fromkeys(
        (".tfrecord", ".tfrecords", ".rec", ".beton"),
        "a file of records that only its own library reads; give it in Python as pairs, "
        "add_task(NAME, [(image, label), ...]), or write the images to class folders",
    ),
    **dict.fromkeys((".mdb", ".lmdb"), "a database, which is not read; write the images to class folders"),
    ".bin": f"bytes of which nothing says what they are; {_AS_ARRAYS}",
    **dict.fromkeys((".rar", ".7z"), "an archive that is not read; unpack it, and give the folder"),
    ".arff": "a table of Weka, which is not read; write it as CSV",
    ".xls": "an old workbook, which is not read; save it as .xlsx or CSV",
}
"""What files are that are not read, and what to do, by suffix."""

UNLABELLED = frozenset(("unsup", "unlabeled", "unlabelled", "unsupervised", "nolabel", "nolabels"))
"""Names of folders whose samples have no class."""

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
"""Words that mean a split, and which."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FILLERS = _words("set sets data dataset images image imgs img pics photos split samples folder seg final")
_GLUED = re.compile(rf"({'|'.join(SPLIT_WORDS)})(set|data|images|imgs|img|pics)")
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^\W\d_]+")
_YEAR = re.compile(r"(19|20)\d\d")

PLURAL_MASK_NAMES = _words("masks segmentations annotations labels groundtruth trimaps")
MASK_NAMES = PLURAL_MASK_NAMES | _words("mask segmentation annotation label gt")
_MASK_WORDS = MASK_NAMES - _words("annotation annotations label labels")
IMAGE_NAMES = _words(
    "image images img imgs photo photos picture pictures pics jpg jpeg png jpegimages original originals input "
    "inputs data dataset raw rgb frames"
)
ODD_NAMES = MASK_NAMES | _words("image images img imgs data dataset")
"""Names that are hardly ever those of a class."""

ASIDE_NAMES = MASK_NAMES | _words(
    "meta metadata doc docs script scripts code src xml json csv lists splits bbox attributes parts "
    "devkit imagesets imagelists"
)
"""Names of folders beside class folders that are no class where they hold no samples."""

MASK_STEM = re.compile(
    r"(.+?)[ _.-]*(?:mask|segmentation|seg|gt|label|annotation)(?:[ _-]?\d+)?", re.IGNORECASE
)
"""Names of masks that lie beside their images, and what their images are called."""

_COUNTED = re.compile(
    r"(?:patient|subject|subj|case|person|session|scan|seq|sequence|slide|video|clip|pid|id|p|s)?[ _-]?\d+",
    re.IGNORECASE,
)
_HIDDEN = frozenset(("__macosx", "thumbs.db", "desktop.ini", "@eadir", "__pycache__"))


def split_kind(name: str) -> str | None:
    """The split that a name means: ``train``, ``val`` or ``test``; ``None`` for no split."""
    words = [word.lower() for word in _WORDS.findall(name)]
    words = [glued[1] if (glued := _GLUED.fullmatch(word)) else word for word in words]
    kinds = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    rest = [
        word for word in words if word not in SPLIT_WORDS and word not in _FILLERS and not _YEAR.match(word)
    ]
    return kinds.pop() if len(kinds) == 1 and not rest else None


def split_in(name: str) -> str | None:
    """The only split of which a name speaks among other things, such as ``train_labels``."""
    kinds = {SPLIT_WORDS[word.lower()] for word in _WORDS.findall(name) if word.lower() in SPLIT_WORDS}
    return kinds.pop() if len(kinds) == 1 else None


def without_split(name: str) -> str:
    """The rest of a name in which the only split is left out, such as ``cars_`` of ``cars_train``."""
    words = [word for word in _WORDS.findall(name) if word.lower() not in SPLIT_WORDS]
    return " ".join(words).lower()


_PART_WORDS = _words("part parts image images img imgs batch chunk shard archive")


def are_parts(names: Collection[str]) -> bool:
    """Whether folders only number the parts of one thing: ``images_part_1``, ``images_part_2``."""
    same = {re.sub(r"\d+", "", name) for name in names}
    words = {word.lower() for name in names for word in _WORDS.findall(name)}
    return len(names) > 1 and len(same) == 1 and bool(words & _PART_WORDS)


def plain(name: str) -> str:
    """Letters and digits of a name, lower case, so that ``Ground-Truth`` is ``groundtruth``."""
    return "".join(character for character in name.lower() if character.isalnum())


def speaks_of_masks(name: str) -> bool:
    """Whether a name holds a word for masks, such as ``train_masks`` or ``no_mask``."""
    return any(word.lower() in _MASK_WORDS for word in _WORDS.findall(name))


def may_be_mask(name: str) -> bool:
    """Whether a name is worth a look at ``MASK_STEM``; of a million names hardly one is."""
    low = name.lower()
    return "mask" in low or "seg" in low or "gt" in low or "label" in low or "annotation" in low


def counts_people(name: str) -> bool:
    """Whether a name counts people, scans and the like by a word: ``patient_7``, but not ``0012``."""
    return is_counted(name) and not name[0].isdigit()


def is_counted(name: str) -> bool:
    """Whether a name counts things rather than names a class: ``0012``, ``patient_7``."""
    return _COUNTED.fullmatch(name) is not None


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the data: a hidden one, or one that operating systems add."""
    return name.startswith(".") or name.lower() in _HIDDEN


def class_name(folder: str) -> str:
    """What a class folder is called; letters with accents are composed, however the system spells them."""
    return unicodedata.normalize("NFC", folder)
