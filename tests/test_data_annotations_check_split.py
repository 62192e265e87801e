"""Checks that are the same for all layouts: EXIF orientation, numbering, categories by name."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from retinanet_jax.data import images
from retinanet_jax.data.annotations.check_split import REPEATED, ImageFacts, check_split
from retinanet_jax.data.annotations.join_categories import join_categories
from retinanet_jax.data.annotations.raw import RawImage, RawObject, RawSplit
from retinanet_jax.data.data_errors import DataError, Guard, Report
from retinanet_jax.data.records import Categories

STORED = (30, 40)  # height, width


def raw_image(name="a.jpg", boxes=((1, 2, 10, 20),), **fields) -> RawImage:
    objects = tuple(RawObject("cat", tuple(map(float, box)), "object") for box in boxes)
    return RawImage(name, Path(name), Path("notes.xml"), objects, **fields)


def check(images, orientation=1, exif="auto", names=("cat",), on_error="strict", **split):
    raw = RawSplit(tuple(images), **split)
    guard = Guard(on_error, Report())
    categories = Categories(tuple(names), tuple(range(1, len(names) + 1)))
    facts = ImageFacts(STORED, orientation)
    records = check_split(raw, lambda _: facts, categories, guard, path=Path("x"), exif=exif)
    return records, guard.report


WIDE, TALL = (31, 2, 8, 20), (2, 31, 20, 8)  # inside 30 x 40 alone, inside 40 x 30 alone


@pytest.mark.parametrize(
    "orientation, size, box, turned",
    [
        (6, STORED, WIDE, False),  # the annotated size fits the stored image alone
        (6, STORED[::-1], TALL, True),  # or the turned one
        (6, STORED, (1, 2, 5, 5), False),
        (6, STORED, TALL, True),  # overruled by the boxes
        (6, None, (1, 2, 5, 5), True),  # no size: as shown
        (6, None, WIDE, False),  # unless boxes fit the stored image alone
        (3, STORED, (1, 2, 5, 5), True),  # both fit: as shown
        (2, STORED, (1, 2, 5, 5), True),
        (1, STORED, WIDE, False),
    ],
)
def test_auto_takes_the_orientation_that_size_and_boxes_fit(orientation, size, box, turned):
    (record,), report = check([raw_image(boxes=[box], size=size)], orientation)
    assert record.orientation == (orientation if turned else 1)
    expected = STORED[::-1] if turned and orientation == 6 else STORED
    assert (record.height, record.width) == expected
    assert report.total == (orientation != 1)
    assert ("as viewers show it" in report.summary()) == turned


def test_an_orientation_can_be_set_for_all_images():
    for exif, expected in (("stored", 1), ("shown", 6)):
        (record,), report = check([raw_image()], 6, exif)
        assert record.orientation == expected and not report.total
    assert check([raw_image(size=STORED)], 6, "shown")[0][0].orientation == 6
    with pytest.raises(DataError, match=r"is 40 x 30, but a\.jpg has 30 x 40 and EXIF orient"):
        check([raw_image(size=STORED[::-1])], 6, "stored")


def test_a_size_that_fits_neither_is_an_error():
    with pytest.raises(DataError, match=r"height x width is 31 x 40, but a\.jpg has 30 x 40"):
        check([raw_image(size=(31, 40))], 6)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_turned_as_pillow_turns_them(kind, orientation):
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, exif=exif, lossless=True)
    data = buffer.getvalue()
    assert images.exif_orientation(data) == orientation
    expected = np.asarray(ImageOps.exif_transpose(Image.open(buffer)).convert("RGB"))
    found = images.decode(data, "x", orientation)
    np.testing.assert_array_equal(found, expected)
    assert found.shape[:2] == images.turned_size((5, 7), orientation)


def test_broken_or_missing_exif_is_no_orientation():
    for orientation in (0, 9, 300):
        exif = Image.Exif()
        exif[0x0112] = orientation
        buffer = io.BytesIO()
        Image.new("RGB", (4, 4)).save(buffer, "JPEG", exif=exif)
        assert images.exif_orientation(buffer.getvalue()) == 1
    assert images.exif_orientation(b"") == images.exif_orientation(b"\xff\xd8\xff\xe1") == 1


def test_shares_are_scaled_to_the_image_as_it_is_used():
    (record,), _ = check([raw_image(boxes=[(0.1, 0.5, 0.2, 0.25)], normalized=True)], 6)
    np.testing.assert_allclose(record.boxes(), [[3, 20, 9, 30]])
    with pytest.raises(DataError, match=r"notes\.xml: object: box .*outside its image"):
        check([raw_image(boxes=[(12, 15, 3, 4)], normalized=True)])


def test_images_without_ids_are_numbered_by_name():
    records, _ = check([raw_image("b.jpg"), raw_image("a.jpg")])
    assert [(r.file_name, r.id) for r in records] == [("b.jpg", 2), ("a.jpg", 1)]
    assert [a.id for r in records for a in r.annotations] == [1, 2]
    records, _ = check([raw_image("b.jpg", id=7), raw_image("a.jpg")])
    assert [r.id for r in records] == [7, 8]


@pytest.mark.parametrize(
    "form, box, message",
    [
        ("size", (25, 10, -9, 10), "box [25, 10, -9, 10] has width -9 and height 10; write sides"),
        (
            "corners",
            (25, 10, -9, 10),
            "box [25, 10, 16, 20] has width -9 and height 10; write xmin",
        ),
        (
            "corners",
            (20, 10, -15, 5),
            "or, if these are x, y, width, height, add x to the width and y to the",
        ),
        ("corners", (50, 10, 9, 9), "box [50, 10, 59, 19] lies outside its image of 40 x 30"),
        ("corners", (50, 10, 9, 9), "write [xmin, ymin, xmax, ymax] in pixels of the image"),
        (
            "corners",
            (0.1, 0.2, 0.22499999999999998, 0.3),
            "box [0.1, 0.2, 0.325, 0.5] is in fractions",
        ),
        ("corners", (0.1, 0.2, 0.2, 0.3), "multiply xmin and xmax by the image's width, ymin and"),
    ],
)
def test_a_box_is_shown_as_its_file_writes_it(form, box, message):
    with pytest.raises(DataError, match=re.escape(message)):
        check([raw_image(boxes=[box])], box_form=form)


def test_a_box_in_shares_is_shown_in_shares():
    shown = r"box \[1\.2, 0\.5, 0\.1, 0\.1\] lies outside .* in fractions of the image, 0 to 1"
    with pytest.raises(DataError, match=shown):
        check([raw_image(boxes=[(1.15, 0.45, 0.1, 0.1)], normalized=True)], box_form="center")


def test_a_box_that_is_there_twice_is_counted_and_kept():
    (record,), report = check([raw_image(boxes=[(1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 3, 4)])])
    assert len(record.annotations) == 3
    assert report.to_json() == {REPEATED: {"count": 1, "names": ["notes.xml: object"]}}


def test_what_was_read_otherwise_is_counted():
    _, report = check([raw_image()], notes=(("polygon", "notes.xml: object 1"),))
    assert report.counts == {"polygon": 1}


def split_of(names, ids=None, used=()):
    found = raw_image()._replace(objects=tuple(RawObject(n, (1, 1, 2, 2)) for n in used))
    return RawSplit((found,), names and tuple(names), ids and tuple(ids))


def test_categories_are_those_of_the_first_split_by_name():
    first = split_of(("dog", "cat"), (90, 4))
    for other in (
        split_of(("cat", "dog"), (4, 90)),  # another order
        split_of(("cat", "dog"), (90, 4)),  # other ids
        split_of(("cat",), (1,)),  # one is missing
        split_of(None, used=("cat", "dog", "cat")),
    ):
        assert join_categories([first, other]) == Categories(("dog", "cat"), (90, 4))
    joined = join_categories([first, split_of(("cow", "dog", "ant"), (4, 1, 7))])
    assert joined == Categories(("dog", "cat", "cow", "ant"), (90, 4, 91, 7))


def test_names_alone_are_sorted_and_numbered():
    joined = join_categories([split_of(None, used=("dog", "cat", "dog")), split_of(None)])
    assert joined == Categories(("cat", "dog"), (1, 2))
    with pytest.raises(DataError, match=r"notes\.xml: no object has a class"):
        join_categories([split_of(None)])


@pytest.mark.parametrize("name", ["Cat", "cat ", "cafe\u0301"])
def test_class_names_that_are_nearly_equal_are_an_error(name):
    first = split_of(("dog", "cat", "café"))
    message = "only in case, spaces or Unicode form; use one spelling"
    with pytest.raises(DataError, match=message):
        join_categories([first, split_of((name,))])
    for one_split in (
        split_of(("dog", "cat", "café", name)),
        split_of(None, used=("café", "cat", name)),
    ):
        with pytest.raises(DataError, match=message):
            join_categories([one_split])
