"""Signatures of bundles: Ed25519 over the checksum of the manifest, and by it over everything.

It lies beside the bundle. ``FILE.sig`` or ``FOLDER.sig`` is JSON: the checksum and the time that were signed,
the signature and the public key. Keys are PEM files, as ``openssl genpkey -algorithm ed25519`` writes them. The
newest time that was imported of each signer and registry is a row of ``meta``, as The Update Framework keeps
it, so that nobody passes an old file off as the one of today.
"""

import base64
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from registry.bundles.reader import Bundle
from registry.errors import BundleError, InvalidQueryError, MissingExtraError, StorageError
from registry.files import open_regular, write_atomically
from registry.records import utc_now
from registry.storage.places import storage_errors
from registry.storage.schema import quoted
from registry.storage.store import Store

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
CLOCKS_DIFFER = timedelta(hours=1)
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
    at = utc_now()
    values = {
        "checksum": checksum,
        "signed_at": at,
        "signature": base64.b64encode(key.sign(_said(checksum, at))).decode(),
        "public_key": key.public_key().public_bytes_raw().hex(),
    }
    beside = signature_path(path)
    with storage_errors(f"{beside}: the signature cannot be written"):
        write_atomically(beside, json.dumps(values, indent=1).encode(), durable=True)


def check_signature(store: Store, bundle: Bundle, key: Path, *, allow_older: bool) -> dict[str, str]:
    """Make sure that the holder of a key signed a bundle, not before what was imported here of that registry.

    Args:
        store: The registry, which may not be there.
        bundle: The bundle.
        key: The public key.
        allow_older: Whether it may have been signed before that.

    Returns:
        What is to be remembered in ``meta`` once it is imported.

    Raises:
        BundleError: If it is not signed, by another key, in the future or before; or was changed since.
    """
    path, public = bundle.path, read_public_key(key)
    signed = _signed_at(path, bundle.manifest.digest, public)
    name = f"signed.{public.public_bytes_raw().hex()}.{bundle.manifest.registry_id}"
    rows = (
        store.database.read("meta", where=f"key = {quoted(name)}")["value"].to_pylist() if store.exists else []
    )
    newest = max(rows, default="")
    if signed < newest and not allow_older:
        raise BundleError(
            f"{path} was signed at {signed[:19]}, before what was imported here of that signer and registry, "
            f"signed at {newest[:19]}; nothing was imported: ask for the newest file, or give allow_older=True "
            "to take an older one"
        )
    return {name: max(signed, newest)}


def _signed_at(path: Path, checksum: str, key: "Ed25519PublicKey") -> str:
    """When the holder of a key signed a bundle, ISO 8601, UTC.

    Raises:
        BundleError: If it is not signed, by another key, in the future, or was changed after it was signed.
    """
    from cryptography.exceptions import InvalidSignature

    beside = signature_path(path)
    if not beside.is_file():
        raise BundleError(f"{path} is not signed: there is no {beside}; nothing was imported")
    try:
        values = json.loads(_content(beside))
        at = str(values["signed_at"])
        key.verify(base64.b64decode(values["signature"], validate=True), _said(checksum, at))
        signed = datetime.fromisoformat(at).astimezone(UTC)
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError, InvalidSignature) as err:
        raise BundleError(
            f"{path}: {beside.name} is no signature of it by that key; nothing was imported"
        ) from err
    if signed > datetime.now(UTC) + CLOCKS_DIFFER:
        raise BundleError(
            f"{path} was signed at {at}, which is not yet: set the clocks right; nothing was imported"
        )
    return signed.isoformat(timespec="microseconds")


def _said(checksum: str, at: str) -> bytes:
    return _CONTEXT + f"{checksum} {at}".encode()


def _content(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read(_MAX_BYTES)
    except OSError as err:
        raise StorageError(f"{path}: the file cannot be read: {err.strerror or err}") from err
