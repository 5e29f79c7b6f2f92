"""Contact sheets: small, the same each time, upright, and with nothing of a file but its pixels."""

import io

import numpy as np
from PIL import Image

from indexer.data.samples import load_sample
from indexer.data.sampling import MOST_BYTES, TILE, contact_sheet
from indexer.records import DatasetDescription, InputTransform

GPS, ORIENTATION, TURNED = 0x8825, 0x0112, 6


def sheet_of(labels, class_names, pixels, kind="single_label", **changes):
    described = DatasetDescription("data", len(labels), class_names, "", kind=kind, **changes)
    return contact_sheet(described, np.asarray(labels), 0, pixels.__getitem__)


def opened(sheet):
    return Image.open(io.BytesIO(sheet.image))


def test_photos_are_upright_and_leave_where_they_were_taken(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            pixels = np.zeros((32, 32, 3), np.uint8)
            pixels[16:] = number + 10 * (name == "a")
            pixels[:16] = 255  # the upper half of the file, which is turned by a quarter to the right
            image, exif = Image.fromarray(pixels), Image.Exif()
            exif[ORIENTATION] = TURNED
            exif.get_ifd(GPS)[1] = "N"
            image.save(tmp_path / name / f"{number}.jpg", exif=exif, comment=b"secret place")
    sample = load_sample(str(tmp_path), InputTransform(32, 32))
    sheet = contact_sheet(sample.description, sample.labels, 0, sample.images.__getitem__)
    picture = opened(sheet)
    assert (sheet.columns, sheet.rows, picture.size) == (("a", "b"), 3, (2 * TILE, 3 * TILE))
    assert not picture.getexif()
    assert picture.info.keys() <= {"loop", "background"}
    assert b"secret" not in sheet.image
    assert b"EXIF" not in sheet.image
    tile = np.asarray(picture.convert("L"))[:TILE, :TILE]
    assert tile[:, TILE // 2 + 8 :].min() > 200 > 60 > tile[:, : TILE // 2 - 8].max()


def test_noise_of_a_thousand_classes_is_small_and_the_same_each_time():
    labels = np.repeat(np.arange(1000), 4)
    noise = np.random.default_rng(0).integers(0, 256, (4000, 3, 96, 96), np.uint8)
    names = tuple(f"class {number}" for number in range(1000))
    sheet = sheet_of(labels, names, noise)
    assert len(sheet.columns) == 12
    assert list(sheet.columns) == sorted(sheet.columns, key=names.index)
    assert 10_000 < len(sheet.image) <= MOST_BYTES
    assert opened(sheet).size == (12 * TILE, 4 * TILE)
    assert sheet_of(labels, names, noise) == sheet


def test_columns_are_classes_labels_or_ranges_of_a_target():
    pixels = np.repeat(np.arange(0, 240, 20, dtype=np.uint8), 3 * 8 * 8).reshape(12, 3, 8, 8)
    many = np.array([[1, 0], [1, 1], [0, 1]] * 4)
    assert sheet_of(many, ("day", "night"), pixels, "multi_label").columns == ("day", "night")
    few = sheet_of([0] * 11 + [1], ("often", "once"), pixels)
    alpha = np.asarray(opened(few).convert("RGBA"))[..., 3]
    assert (few.rows, alpha[-1, 0], alpha[-1, -1]) == (5, 255, 0)  # nothing below a class of one sample
    ages = sheet_of(np.arange(12.0)[::-1, None], ("age",), pixels, "regression")
    assert ages.columns[::5] == ("age 0.5", "age 10.5")
    brightness = np.asarray(opened(ages).convert("L"))[TILE // 2, TILE // 2 :: TILE].astype(int)
    assert (np.diff(brightness) < 0).all()
    assert sheet_of([0, 1], ("a", "b"), pixels, content="texts") is None
