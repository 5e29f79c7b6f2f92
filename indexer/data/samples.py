"""Datasets as the embedding needs them: a class-balanced sample, decoded, checked and fingerprinted.

Samples are images, which become pixels, or texts, which become tokens. A network takes one or the other.

What a dataset may be is described in ``indexer.data.specs``. Only the sampled files are read, and a listing is
not held, so a folder of a million images costs little more than one of a thousand, and no more memory.

Axes: n samples drawn, C classes or labels, T targets, L tokens of the longest text.
"""

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from indexer.data.images import UnfitPixelsError, UnreadableImageError, image_input
from indexer.data.listings import Entry, Listing, printable, system_errors
from indexer.data.sampling import (
    NUM_NAMED,
    Survey,
    check_labels,
    count_alike,
    counted_faults,
    digest_of,
    draw_checked,
    fingerprint_of,
    label_array,
    survey,
)
from indexer.data.specs import open_dataset
from indexer.errors import DataError, SettingsError, UnreadableFilesError
from indexer.networks.tokens import Tokenizer, UnreadableTextError, decode_text
from indexer.records import (
    DatasetDescription,
    EmbeddingSettings,
    InputTransform,
    TextTransform,
    Transform,
    content_of,
)

Decoder = Callable[[int, bytes | np.ndarray], None]
"""Takes the place of a sample, and the bytes of its file or its pixels, and keeps what it decodes."""

IMAGE_OPTIONS = {"channels": "auto", "value_range": None}
"""Settings that say what images look like, and what they are by default."""


@dataclass(frozen=True, eq=False)
class Sample:
    """The drawn and decoded samples of a dataset, in order of name.

    Attributes:
        inputs: Images, ``[n, 3, crop, crop]`` uint8, RGB; or encoded texts, ``[n, 2, L]`` int32, see
            ``indexer.networks.tokens``.
        labels: By kind of task: ``[n]`` int64, indices into ``description.class_names``, at least two of each;
            ``[n, C]`` uint8 of 0 and 1, at least two of each label; or ``[n, T]`` float64, finite, no target
            constant.
        description: What is known of the whole dataset.
    """

    inputs: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    description: DatasetDescription

    @property
    def images(self) -> np.ndarray:
        """The inputs of a sample of images."""
        return self.inputs


def load_sample(
    spec: str,
    transform: Transform,
    *,
    threads: int | None = None,
    tokenizer: Tokenizer | None = None,
    progress: Callable[[int, int], None] | None = None,
    **said: Any,
) -> Sample:
    """``read_sample`` with what is said of the settings, by field of ``EmbeddingSettings``."""
    return read_sample(
        spec, transform, EmbeddingSettings(**said), threads=threads, tokenizer=tokenizer, progress=progress
    )


def read_sample(
    spec: str,
    transform: Transform,
    settings: EmbeddingSettings,
    *,
    threads: int | None = None,
    tokenizer: Tokenizer | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sample:
    """Draw a class-balanced sample of a dataset and decode it.

    Unreadable files among the sampled are skipped and counted. The result depends on the arguments and the
    data only: not on the folder's place, the order in which the system lists it, nor the number of threads.

    Args:
        spec: A data spec, see ``indexer.data.specs``.
        transform: How an image or a text becomes an input; of images, mean and standard deviation are not
            applied here.
        settings: How many samples are drawn, at least 2 per class or label, the seed, and how data is read.
        threads: How many decode; ``None`` for one per processor, at most 8.
        tokenizer: What encodes texts; images need none.
        progress: Called as ``progress(done, total)`` after each sample, from the calling thread.

    Raises:
        DataSpecError: If the spec names nothing of a supported kind.
        DataError: If the data is there but is not laid out as its kind asks, has no such split, is not what the
            transform takes, has not the channels or the range of values that are asked for, or a target that is
            constant.
        TooFewSamplesError: If there are fewer than two classes or labels, or too few samples of one.
        UnreadableFilesError: If more than a tenth of the sampled files cannot be decoded.
        SettingsError: If a setting is out of its range.
    """
    _check_settings(transform, threads)
    drawn = draw_sample(spec, transform, settings)
    decoded = decode_entries(
        drawn.dataset,
        drawn.entries,
        transform,
        settings,
        threads=threads,
        tokenizer=tokenizer,
        progress=progress,
    )
    labels, description = described_sample(drawn, [decoded])
    return Sample(decoded.inputs, labels, description)


@dataclass(frozen=True, eq=False)
class DrawnSample:
    """Which samples are drawn, nothing decoded."""

    dataset: Listing
    survey: Survey = field(repr=False)
    entries: Sequence[Entry] = field(repr=False)
    labels: np.ndarray = field(repr=False)


def draw_sample(spec: str, transform: Transform, settings: EmbeddingSettings) -> DrawnSample:
    """Draw a class-balanced sample; errors are those of ``load_sample``."""
    dataset = open_dataset(spec, settings)
    _check_content(dataset, transform, settings)
    with system_errors(spec):
        counted = survey(dataset)
    entries = draw_checked(dataset, counted, settings.max_samples, settings.seed)
    labels = label_array(dataset, entries)
    check_labels(dataset, labels, "drawn sample")
    return DrawnSample(dataset, counted, entries, labels)


@dataclass(frozen=True, eq=False)
class Decoded:
    """Some drawn samples, decoded."""

    inputs: np.ndarray = field(repr=False)  # those that can be read, as in ``Sample``
    readable: np.ndarray = field(repr=False)  # which samples can be read, ``[n]`` bool
    digests: list[bytes] = field(repr=False)
    faults: list[str] = field(repr=False)  # what is wrong with those that cannot be read, in their order


def decode_entries(
    dataset: Listing,
    entries: Sequence[Entry],
    transform: Transform,
    settings: EmbeddingSettings,
    *,
    threads: int | None = None,
    tokenizer: Tokenizer | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Decoded:
    """Read and decode some samples of a listing; arguments as in ``load_sample``.

    Raises:
        DataError: If pixels have not the channels or the range of values that are asked for.
        SettingsError: If texts come without a tokenizer.
    """
    if isinstance(transform, TextTransform):
        texts = [""] * len(entries)

        def decode(place: int, raw: bytes | np.ndarray) -> None:
            texts[place] = decode_text(bytes(raw))

    else:
        inputs = np.zeros((len(entries), 3, transform.crop, transform.crop), np.uint8)

        def decode(place: int, raw: bytes | np.ndarray) -> None:
            inputs[place] = image_input(raw, transform, settings.channels, settings.value_range)

    faults, digests = _decode(dataset, entries, decode, threads, progress)
    if isinstance(transform, TextTransform):
        inputs = _encode(texts, faults, tokenizer)
    readable = np.array([not fault for fault in faults], bool)
    if isinstance(transform, InputTransform) and not readable.all():
        inputs = inputs[readable]
    return Decoded(inputs, readable, digests, [fault for fault in faults if fault])


def described_sample(drawn: DrawnSample, parts: Sequence[Decoded]) -> tuple[np.ndarray, DatasetDescription]:
    """Labels of the readable samples of all parts, in order, and what is known of the whole dataset.

    Raises:
        UnreadableFilesError: If more than a tenth of the samples cannot be decoded.
        TooFewSamplesError: If too few are left.
    """
    dataset, labels = drawn.dataset, drawn.labels
    readable = np.concatenate([part.readable for part in parts])
    skipped = [_shown(entry.name) for entry, good in zip(drawn.entries, readable, strict=True) if not good]
    why = counted_faults(skipped, [fault for part in parts for fault in part.faults])
    if 10 * len(skipped) > len(labels):
        problem = f"{len(skipped)} of {len(labels)} sampled files cannot be decoded, more than a tenth"
        raise UnreadableFilesError(dataset.spec, f"{problem}: {why}; repair or remove them")
    if skipped:
        labels = labels[readable]
        check_labels(dataset, labels, "readable sample")
    digests = [digest for part in parts for digest in part.digests]
    num_alike = count_alike(dataset, [digest for digest, good in zip(digests, readable, strict=True) if good])
    description = DatasetDescription(
        spec=dataset.spec,
        num_samples=drawn.survey.num_samples,
        class_names=dataset.class_names,
        fingerprint=fingerprint_of(dataset, drawn.survey, digests),
        num_skipped=len(skipped),
        skipped_files=tuple(skipped[:NUM_NAMED]),
        skipped_why=why,
        num_alike=num_alike,
        kind=dataset.kind,
        class_sizes=drawn.survey.sizes,
        content=dataset.content,
        taken=dataset.taken,
        passed_over=tuple(dataset.passed_over.items()),
    )
    return labels, description


def _shown(name: str) -> str:
    row = re.fullmatch("([0-9]+)(:[0-9a-f]+)?", name)
    return f"row {row[1]}" if row else printable(name)


def _encode(texts: Sequence[str], faults: list[str], tokenizer: Tokenizer | None) -> np.ndarray:
    """Tokens of the texts without fault; a text of which no token is left becomes one with a fault.

    Raises:
        SettingsError: If there is no tokenizer.
    """
    if tokenizer is None:
        raise SettingsError("texts need the tokenizer of the network that is to see them; give it as tokenizer")
    rows = [row for row, fault in enumerate(faults) if not fault]
    encoded = tokenizer.encode([texts[row] for row in rows])
    has_tokens = tokenizer.has_tokens(encoded)
    for row in np.flatnonzero(~has_tokens):
        faults[rows[row]] = "text of which the tokenizer leaves no token"
    return np.asarray(encoded[has_tokens])


def _check_content(dataset: Listing, transform: Transform, settings: EmbeddingSettings) -> None:
    """Refuse texts for a network of images, images for one of texts, and options of images for texts.

    Raises:
        DataError: If one does not go with the other.
    """
    takes = content_of(transform)
    if dataset.content == "texts" and takes == "images":
        raise DataError(
            dataset.spec, "holds texts, and the network takes images; use a text encoder, such as hf:./encoder"
        )
    if dataset.content == "images" and takes == "texts":
        raise DataError(
            dataset.spec,
            "holds images, and the network is a text encoder; use one of images, such as the built-in one",
        )
    given = [name for name, unset in IMAGE_OPTIONS.items() if getattr(settings, name) != unset]
    if takes == "texts" and given:
        raise DataError(
            dataset.spec, f"holds texts, of which {' and '.join(given)} would change nothing; leave it out"
        )


def fingerprint_dataset(spec: str, settings: EmbeddingSettings) -> str:
    """The fingerprint that ``load_sample`` would give: the sampled files are read, and not decoded."""
    return SurveyedDataset.open(spec, settings).fingerprint()


@dataclass(frozen=True, eq=False)
class SurveyedDataset:
    """A dataset of which the listing is counted, and no file has been read yet."""

    listing: Listing
    survey: Survey
    settings: EmbeddingSettings

    @classmethod
    def open(cls, spec: str, settings: EmbeddingSettings) -> "SurveyedDataset":
        """List and count a dataset; arguments and errors are those of ``fingerprint_dataset``."""
        listing = open_dataset(spec, settings)
        with system_errors(spec):
            return cls(listing, survey(listing), settings)

    def fingerprint(self) -> str:
        """The fingerprint, for which the samples are drawn and their files read."""
        chosen = draw_checked(self.listing, self.survey, self.settings.max_samples, self.settings.seed)

        def digest_one(entry: Entry) -> bytes:
            try:
                return digest_of(self.listing.read(entry))
            except OSError:
                return b""

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            return fingerprint_of(self.listing, self.survey, list(pool.map(digest_one, chosen)))


def _check_settings(transform: Transform, threads: int | None) -> None:
    crop = transform.crop if isinstance(transform, InputTransform) else None
    for name, value in (("threads", threads), ("crop of the input transform", crop)):
        if value is not None and value < 1:
            raise SettingsError(f"{name} must be at least 1, got {value}")
    if isinstance(transform, InputTransform) and transform.resize < transform.crop:
        raise SettingsError(
            f"resize of the input transform must be at least its crop, got resize {transform.resize} "
            f"and crop {transform.crop}"
        )


def _decode(
    dataset: Listing,
    chosen: Sequence[Entry],
    decode: Decoder,
    threads: int | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[str], list[bytes]]:
    """Decode samples; returns what is wrong with each, empty if nothing is, and a digest of each file.

    Raises:
        DataError: If pixels have not the channels or the range of values that are asked for.
    """

    def decode_one(position: int) -> tuple[str, bytes]:
        try:
            raw = dataset.read(chosen[position])
        except OSError as error:
            return error.strerror or str(error), b""
        try:
            decode(position, raw)
        except (UnreadableImageError, UnreadableTextError) as error:
            return str(error), digest_of(raw)
        except UnfitPixelsError as error:
            raise DataError(dataset.spec, f"sample {printable(chosen[position].name)} {error}") from error
        return "", digest_of(raw)

    outcomes: list[tuple[str, bytes]] = []
    with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1)) as pool:
        for outcome in pool.map(decode_one, range(len(chosen))):
            outcomes.append(outcome)
            if progress:
                progress(len(outcomes), len(chosen))
    return [fault for fault, _ in outcomes], [digest for _, digest in outcomes]
