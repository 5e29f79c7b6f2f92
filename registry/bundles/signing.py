"""Signatures of bundles: Ed25519 over the checksum of the manifest, and by it over everything.

It lies beside the bundle. ``FILE.sig`` or ``FOLDER.sig`` is JSON: the checksum that was signed, the signature
and the public key. Keys are PEM files, as ``openssl genpkey -algorithm ed25519`` writes them.
"""

import base64
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import BundleError, InvalidQueryError, MissingExtraError, StorageError
from registry.files import open_regular, write_atomically

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_MAX_BYTES = 2**16
_CONTEXT = b"task2vec-registry bundle "


def signature_path(path: Path) -> Path:
    """Where the signature of a bundle lies."""
    path = path if path.name not in {"", ".."} else path.resolve()
    return path.with_name(f"{path.name}.sig")


def read_private_key(path: Path) -> "Ed25519PrivateKey":
    """The key in a PEM file.

    Raises:
        InvalidQueryError: If it is no private Ed25519 key without a password.
        MissingExtraError: If cryptography is not installed.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as err:
        raise MissingExtraError("signing", "cryptography", "sign") from err
    key: object = None
    with suppress(ValueError, TypeError):
        key = serialization.load_pem_private_key(_content(path), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidQueryError(
            f"{path} is no Ed25519 private key without a password; make one with "
            "`openssl genpkey -algorithm ed25519 -out KEY.pem`"
        )
    return key


def read_public_key(path: Path) -> "Ed25519PublicKey":
    """The public key in a PEM file, which may be that of a private key.

    Raises:
        InvalidQueryError: If there is none.
        MissingExtraError: If cryptography is not installed.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as err:
        raise MissingExtraError("checking a signature", "cryptography", "sign") from err
    content = _content(path)
    if b"PRIVATE KEY" in content:
        return read_private_key(path).public_key()
    key: object = None
    with suppress(ValueError, TypeError):
        key = serialization.load_pem_public_key(content)
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidQueryError(
            f"{path} is no Ed25519 public key; `openssl pkey -in KEY.pem -pubout -out KEY.pub` makes one"
        )
    return key


def sign(path: Path, checksum: str, key: "Ed25519PrivateKey") -> None:
    """Write the signature of a bundle beside it."""
    values = {
        "checksum": checksum,
        "signature": base64.b64encode(key.sign(_CONTEXT + checksum.encode())).decode(),
        "public_key": key.public_key().public_bytes_raw().hex(),
    }
    write_atomically(signature_path(path), json.dumps(values, indent=1).encode(), durable=True)


def check_signature(path: Path, checksum: str, key: "Ed25519PublicKey") -> None:
    """Make sure that the holder of a key signed a bundle.

    Raises:
        BundleError: If it is not signed, by another key, or was changed after it was signed.
    """
    from cryptography.exceptions import InvalidSignature

    beside = signature_path(path)
    if not beside.is_file():
        raise BundleError(f"{path} is not signed: there is no {beside}; nothing was imported")
    try:
        values = json.loads(_content(beside))
        key.verify(base64.b64decode(values["signature"], validate=True), _CONTEXT + checksum.encode())
    except (ValueError, TypeError, LookupError, RecursionError, InvalidSignature) as err:
        raise BundleError(
            f"{path}: {beside.name} is no signature of it by that key; nothing was imported"
        ) from err


def _content(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read(_MAX_BYTES)
    except OSError as err:
        raise StorageError(f"{path}: the file cannot be read: {err.strerror or err}") from err
