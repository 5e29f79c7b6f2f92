"""The grammar of loaders: what a text that names a network means. Loads no torch.

resnet14w32.tiny_imagenet      weights that ship with this package
tf_efficientnet_lite0.in1k     weights of a pip package that the extra ``zoo`` brings
resnet18.IMAGENET1K_V1         torchvision's weights, downloaded and cached by torchvision
resnet18@my.safetensors        an architecture of this package or of torchvision, weights of a local file
vit_h_14.NAME@my.safetensors   the same, with the input transform of torchvision's weights NAME
timm:resnet18.a1_in1k          timm's weights, downloaded and cached by the Hugging Face hub
timm:resnet18@my.safetensors   an architecture of timm, weights of a local file
hf:google/vit-base-patch16-224 an image model of the Hugging Face hub, or ``hf:./folder`` of a local one
hf:./encoder?pooling=cls       a text encoder; ``?pooling=mean`` by default, and ``&max_tokens=128``
my_package.my_module:build     a Python function that returns a network; importing it runs its code
torchscript:my.pt              a network saved by ``torch.jit.save``
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from indexer.errors import SettingsError, UnknownNameError
from indexer.records import TextPooling

BUILTIN_FOLDER = Path(__file__).parents[1] / "builtin"

Source = Literal["named", "timm", "hf", "python", "torchscript"]

LOADER_FORMS = {
    "ARCHITECTURE.WEIGHTS": "weights that ship with this package, those of the extra zoo, or torchvision's",
    "ARCHITECTURE@FILE": "weights of a local file",
    "timm:NAME": "timm's weights by name",
    "timm:ARCHITECTURE@FILE": "timm's architecture, weights of a local file",
    "hf:ORG/NAME": "image model or text encoder of the Hugging Face hub",
    "hf:./FOLDER": "image model or text encoder in a local folder",
    "hf:...?pooling=cls": "text encoder of which the first state is taken, not the mean of all",
    "MODULE:FUNCTION": "network that a Python function returns; importing it runs its code",
    "torchscript:FILE": "network saved by torch.jit.save",
}
"""Every way to name a network, and what it stands for."""

_PREFIX = re.compile(r"([A-Za-z][\w+-]+):(.+)", re.DOTALL)  # of two characters or more: C:\ is a drive
_PYTHON = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_FOLDER = re.compile(r"[./~\\]|[A-Za-z]:[\\/]")
_TEXT_OPTIONS = re.compile(r"\?((?:\w+=[^&=?/]*)(?:&\w+=[^&=?/]*)*)\Z")
POOLINGS: tuple[TextPooling, ...] = get_args(TextPooling)


@dataclass(frozen=True)
class Loader:
    """A loader taken apart.

    Attributes:
        name: ``architecture`` or ``architecture.weights``, ``ORG/NAME`` of a hub, a folder,
            ``module:function``, or a TorchScript file.
    """

    text: str
    source: Source
    name: str
    file: Path | None = None  # weights that replace those of the source
    pooling: TextPooling | None = None  # how a text encoder pools, if the loader says so
    max_tokens: int | None = None  # most tokens of a text, at least 3, if the loader says so

    @property
    def tells_of_texts(self) -> bool:
        """Whether it says how texts are read, as only the loader of a text encoder does."""
        return self.pooling is not None or self.max_tokens is not None

    @property
    def architecture(self) -> str:
        """What comes before the first dot of the name."""
        return self.name.partition(".")[0]

    @property
    def weights(self) -> str:
        """What comes after the first dot of the name; empty where there is none."""
        return self.name.partition(".")[2]

    @property
    def is_folder(self) -> bool:
        """Whether a Hugging Face name is that of a local folder: by how it is written, or since it is there."""
        return bool(_FOLDER.match(self.name)) or Path(self.name).is_dir()


def list_builtin() -> list[str]:
    """Names of the networks whose weights ship with this package, sorted."""
    return sorted(path.name.removesuffix(".safetensors") for path in BUILTIN_FOLDER.glob("*.safetensors"))


def parse_loader(text: str) -> Loader:
    """Take a loader apart; nothing is looked up, so that the network may still not exist.

    A colon is that of a prefix only before any ``@``, and after two characters or more: paths may hold both.

    Raises:
        UnknownNameError: If it begins with a prefix that is none of ours and is no Python function.
        SettingsError: If what it says of texts is not understood.
    """
    before_file, at, _ = text.partition("@")
    prefixed = _PREFIX.fullmatch(text)
    prefix, rest = prefixed.groups() if prefixed else ("", text)
    if prefix == "hf":
        return _hugging_face(text, rest)
    if prefix == "torchscript":
        return Loader(text, "torchscript", rest, Path(rest).expanduser())
    if prefix == "timm":
        return _with_file(text, "timm", rest)
    if at and ":" not in before_file:
        return _with_file(text, "named", text)
    if _PYTHON.fullmatch(text):
        return Loader(text, "python", text)
    if prefix:
        raise UnknownNameError(
            "kind of loader", f"{prefix}:", ["hf:", "timm:", "torchscript:", "MODULE:FUNCTION"]
        )
    return Loader(text, "named", text)


def names_only(text: str) -> bool:
    """Whether a loader is but a name that a library knows: it opens no path and runs nobody's code."""
    try:
        loader = parse_loader(text)
    except (UnknownNameError, SettingsError):
        return False
    plain = re.fullmatch(r"[\w.-]+", loader.name)  # timm reads "hf-hub:" and "local-dir:" in its names
    return loader.source in {"named", "timm"} and loader.file is None and plain is not None


_SEARCHED: ContextVar[str | None] = ContextVar("searched", default=None)


@contextmanager
def searching_modules(folder: str) -> Iterator[None]:
    """Within the block, look for modules of Python loaders on Python's path and in one folder, if any.

    Without it, the working folder is that folder. With it, the working folder is not searched, not even where
    Python has it on its path.
    """
    token = _SEARCHED.set(folder)
    try:
        yield
    finally:
        _SEARCHED.reset(token)


def searched_folder() -> str:
    """The folder that is searched beside Python's path, or that none is, in words."""
    folder = _SEARCHED.get()
    return str(Path.cwd()) if folder is None else folder or "the folder it was registered from"


@contextmanager
def importable_modules() -> Iterator[None]:
    """Let imports of the block find modules where ``searching_modules`` says, after all others."""
    folder, here = _SEARCHED.get(), Path.cwd()
    before = list(sys.path)
    if folder is not None:
        sys.path[:] = [place for place in before if place and Path(place).resolve() != here]
    extra = str(here) if folder is None else folder
    added = [extra] if extra and extra not in sys.path else []
    sys.path += added
    try:
        yield
    finally:
        sys.path[:] = before


def module_folder(text: str) -> str:
    """The working folder, if the module of a Python loader that was just loaded lies in it; else empty."""
    if not _PYTHON.fullmatch(text):
        return ""
    module = sys.modules.get(text.partition(":")[0].partition(".")[0])
    file = Path(getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "") + "/x")
    folder = file.parent.parent if file.name in {"__init__.py", "x"} else file.parent
    return str(Path.cwd()) if folder.resolve() == Path.cwd() else ""


def absolute_loader(text: str, folder: Path | None = None) -> str:
    """A loader that means the same from every working folder; of a Python function, itself.

    Args:
        text: The loader; a path in it may be relative.
        folder: Where such a path is looked for first; then in the working folder.

    Raises:
        UnknownNameError: If the kind of loader is unknown.
        SettingsError: If what it says of texts is not understood.
    """
    loader = parse_loader(text)
    if loader.source == "hf" and loader.is_folder:
        place = _absolute(Path(loader.name).expanduser(), folder)
        return f"hf:{place}{text_options(loader.pooling, loader.max_tokens)}"
    if loader.file is None:
        return text
    prefix = {"timm": f"timm:{loader.name}@", "torchscript": "torchscript:"}.get(
        loader.source, f"{loader.name}@"
    )
    return f"{prefix}{_absolute(loader.file, folder)}"


def _absolute(path: Path, folder: Path | None) -> Path:
    return (folder / path if folder and (folder / path).exists() else path).resolve()


def text_options(pooling: str | None, max_tokens: int | None) -> str:
    """The end of a loader that says how texts are read; empty where nothing is said."""
    said = {"pooling": pooling, "max_tokens": max_tokens}
    options = "&".join(f"{name}={value}" for name, value in said.items() if value is not None)
    return f"?{options}" if options else ""


def takes_texts(text: str) -> bool:
    """Whether a loader, as networks are registered under it, is that of a text encoder; nothing is opened."""
    try:
        return text.startswith("hf:") and parse_loader(text).tells_of_texts
    except SettingsError:
        return False


def is_meant(asked: str, registered: str) -> bool:
    """Whether a loader means a registered text encoder, without saying all that is said there of texts."""
    one, other = parse_loader(asked), parse_loader(registered)
    same = one.source == other.source == "hf" and one.name == other.name and other.tells_of_texts
    return same and (one.pooling or "mean") == other.pooling and one.max_tokens in {None, other.max_tokens}


def _hugging_face(text: str, rest: str) -> Loader:
    """A loader of Hugging Face; what follows the last question mark are options if it looks like some.

    Raises:
        SettingsError: If an option is none of ours, or its value is not allowed.
    """
    said = _TEXT_OPTIONS.search(rest)
    if said is None:
        return Loader(text, "hf", rest)
    options: dict[str, Any] = dict(option.split("=") for option in said[1].split("&"))
    if unknown := sorted(options.keys() - {"pooling", "max_tokens"}):
        raise SettingsError(f"{text}: no option is named {unknown[0]!r}; known are pooling and max_tokens")
    if (pooling := options.get("pooling")) is not None and pooling not in POOLINGS:
        raise SettingsError(f"{text}: pooling must be {' or '.join(POOLINGS)}, got {pooling!r}")
    max_tokens = options.get("max_tokens")
    if max_tokens is not None and not (re.fullmatch(r"\d{1,6}", max_tokens) and int(max_tokens) >= 3):
        raise SettingsError(f"{text}: max_tokens must be a whole number of at least 3, got {max_tokens!r}")
    name = rest[: said.start()]
    return Loader(text, "hf", name, None, pooling, None if max_tokens is None else int(max_tokens))


def _with_file(text: str, source: Source, rest: str) -> Loader:
    name, at, file = rest.partition("@")
    return Loader(text, source, name, Path(file).expanduser() if at else None)
