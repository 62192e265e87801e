"""CVAT's XML of tracks: frames and their images, subsets, gaps, errors that name the track."""

import pytest
from layout_writers import (
    SMALL,
    Annotated,
    Box,
    cvat_labels,
    cvat_task,
    cvat_track,
    cvat_tracked,
    cvat_video_xml,
    write_cvat_video,
    write_image,
)
from raw_reading import boxes, read, reasons

from retinanet_jax.data.annotations.split_content import NO_BOX, OUTLINE
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import cvat
from retinanet_jax.data.formats.cvat_video import IN_ORDER

BOX = Box("cat", 4, 6, 20, 12)
SIZE = "<original_size><width>64</width><height>48</height></original_size>"
FRAMES = range(5)


@pytest.fixture
def folder(tmp_path):
    """A function that writes annotations.xml of a task with some tracks, and images/ with names."""

    def write(*tracks, names=None, frames=FRAMES, mode="interpolation", place="images"):
        for name in [f"frame_{n:06d}.PNG" for n in frames] if names is None else names:
            write_image(tmp_path / place, Annotated(name, 64, 48))
        labels = cvat_labels(["cat"])
        text = cvat_video_xml(cvat_task(frames, labels + SIZE, mode), list(tracks))
        (tmp_path / "annotations.xml").write_text(text, encoding="utf-8")
        return tmp_path

    return write


def track(*frames, label="cat"):
    """A box that is in these frames, and outside in the one after them."""
    shapes = "".join(cvat_tracked(BOX, frame) for frame in frames)
    return cvat_track(label, shapes + cvat_tracked(BOX, frames[-1] + 1, outside=1))


def frames_with_box(root):
    """The names of the images by frame, those with a box."""
    found = read(cvat.find, root).images
    assert all(image.path.is_file() for image in found)
    return {image.where: image.path.name for image in found if image.objects}


def test_subsets_of_a_project_are_splits(tmp_path):
    write_cvat_video(tmp_path, SMALL)
    layout = cvat.find(tmp_path)
    assert (layout.tool, layout.splits) == ("CVAT for video", ("train", "val"))
    for split, images in SMALL.items():
        content = read(cvat.find, tmp_path, split)
        assert content.class_names == ("cat", "dog")
        found = boxes(content)
        assert list(found) == [f"frame_{n:06d}.PNG" for n in range(len(images))]
        assert list(found.values()) == [[tuple(box) for box in image.boxes] for image in images]
        assert all(image.path == tmp_path / image.file_name for image in content.images)


def test_objects_are_in_the_frames_that_show_them(folder):
    content = read(cvat.find, folder(track(1, 2), track(2)))
    assert [len(image.objects) for image in content.images] == [0, 1, 2, 0, 0]
    assert {image.size for image in content.images} == {(48, 64)}
    assert content.images[2].objects[0].where == "track 0: box"


def test_all_shapes_are_read_as_those_of_images(folder):
    shapes = (
        '<box frame="0" outside="0" xtl="10" ytl="20" xbr="30" ybr="24" rotation="90.0"/>'
        '<polygon frame="1" outside="0" points="1.5,9;5,2;7,8"/>'
        '<mask frame="2" outside="0" rle="1, 2" left="3" top="4" width="5" height="6"/>'
        '<ellipse frame="3" outside="0" cx="10" cy="20" rx="5" ry="2"/>'
        '<skeleton frame="4" keyframe="1"><points label="eye" outside="0" points="1,2"/></skeleton>'
    )
    content = read(cvat.find, folder(cvat_track("cat", shapes)))
    found = [o.box for image in content.images for o in image.objects]
    wanted = [(18, 12, 4, 20), (1.5, 2, 5.5, 7), (3, 4, 5, 6), (5, 18, 10, 4)]
    assert found == list(map(pytest.approx, wanted))
    assert reasons(content) == {OUTLINE: 4, NO_BOX: 1}


def test_frames_begin_and_step_as_the_task_says(folder):
    root = folder(track(20), frames=range(10, 31, 5))
    write_image(root / "images", Annotated("thumbnail.png", 64, 48))
    assert frames_with_box(root) == {"frame 20": "frame_000020.PNG"}
    assert len(read(cvat.find, root).images) == 5


def test_all_frames_of_a_video_are_more_than_those_of_its_task(folder):
    names = [f"clip-{n}.jpg" for n in range(40)]
    root = folder(track(20), frames=range(10, 31, 5), names=names)
    assert frames_with_box(root) == {"frame 20": "clip-20.jpg"}
    assert len(read(cvat.find, root).images) == 5


def test_deleted_frames_are_left_out(folder):
    names = [f"frame_{n:06d}.PNG" for n in (1, 2, 4)]
    root = folder(track(2, 4), names=names)
    assert frames_with_box(root) == {
        "frame 2": "frame_000002.PNG",
        "frame 4": "frame_000004.PNG",
    }
    assert len(read(cvat.find, root).images) == 3


@pytest.mark.parametrize("mode", ["annotation", "interpolation"])
@pytest.mark.parametrize("pattern", ["frame_{:06d}.png", "IMG 0{}.jpg", "{}/x.png"])
def test_as_many_images_as_frames_are_taken_in_order(folder, mode, pattern):
    names = [pattern.format(n) for n in range(1, 6)]
    root = folder(track(2), names=names, mode=mode)
    content = read(cvat.find, root)
    assert [image.file_name for image in content.images if image.objects] == [f"images/{names[2]}"]
    assert reasons(content) == {IN_ORDER: 1}


@pytest.mark.parametrize(
    "names, mode, message",
    [
        (range(1, 5), "interpolation", "there are 4 images for 5 frames; name the images"),
        (range(4), "annotation", "there are 4 images for 5 frames; export the task as 'CVAT for"),
        ((8, 9, 10, 11, 12), "annotation", "'CVAT for images 1.1', with images"),
    ],
)
def test_frames_that_are_not_clear_are_an_error(folder, names, mode, message):
    root = folder(track(2), names=[f"img_{n}.jpg" for n in names], mode=mode)
    with pytest.raises(DataError, match=rf"annotations\.xml: frames are numbered.*{message}"):
        read(cvat.find, root)


@pytest.mark.parametrize("place", [".", "images", "images/annotations", "frames"])
def test_images_may_be_beside_the_file_or_in_a_folder(folder, place):
    assert frames_with_box(folder(track(2), place=place)) == {"frame 2": "frame_000002.PNG"}


def test_the_file_may_be_in_a_folder_beside_the_images(folder):
    root = folder(track(2))
    (root / "xml").mkdir()
    (root / "annotations.xml").rename(root / "xml/annotations.xml")
    assert frames_with_box(root) == {"frame 2": "frame_000002.PNG"}


def test_a_video_without_its_images_names_the_command_that_writes_them(folder):
    root = folder(track(2), names=())
    with pytest.raises(DataError, match="missing; export the task again with 'Save images'"):
        read(cvat.find, root)
    (root / "my clip.mp4").touch()
    with pytest.raises(
        DataError, match=r"videos, such as my clip\.mp4, are not read; .* -i 'my clip\.mp4' "
    ):
        read(cvat.find, root)


def test_the_missing_image_of_a_frame_with_a_box_is_named(folder):
    root = folder(track(2, 3))
    (root / "images/frame_000002.PNG").unlink()
    images = read(cvat.find, root).images
    assert [im.file_name for im in images if not im.path.is_file()] == ["images/frame_000002.PNG"]


def test_a_track_that_lacks_frames_is_an_error(folder):
    root = folder(track(0), cvat_track("cat", cvat_tracked(BOX, 0) + cvat_tracked(BOX, 3)))
    with pytest.raises(DataError, match="track 0: has shapes for frames 0 and 3 but none for fra"):
        read(cvat.find, root)
    content = read(cvat.find, root, on_error="skip")
    assert [len(image.objects) for image in content.images] == [2, 0, 0, 1, 0]


def test_a_skeleton_may_lack_frames_in_which_no_point_is_visible(folder):
    shapes = "".join(f'<skeleton frame="{frame}" keyframe="1"/>' for frame in (0, 3))
    content = read(cvat.find, folder(cvat_track("cat", shapes)))
    assert reasons(content) == {NO_BOX: 2}


@pytest.mark.parametrize(
    "bad, message",
    [
        (cvat_track("cat", '<box frame="x" outside="0"/>'), "track 0: box: frame is 'x'; write"),
        (cvat_track("cat", '<box outside="0"/>'), "track 0: box: frame is None"),
        (cvat_track("dog", cvat_tracked(BOX, 1)), "frame 1: track 0: box: the class is 'dog'"),
        (cvat_track("cat", '<box frame="1" xtl="3"/>'), "frame 1: track 0: box: ytl is None"),
        (
            cvat_track("cat", 2 * cvat_tracked(BOX, 1)),
            "track 0: box: is the second shape for frame 1",
        ),
    ],
)
def test_a_bad_shape_is_an_error_that_names_it(folder, bad, message):
    root = folder(track(0), bad)
    with pytest.raises(DataError, match=message):
        read(cvat.find, root)
    kept = 2 if "second" in message else 1
    content = read(cvat.find, root, on_error="skip")
    assert sum(len(image.objects) for image in content.images) == kept


def test_a_video_without_any_object_has_empty_images(folder):
    content = read(cvat.find, folder())
    assert len(content.images) == 5 and not any(image.objects for image in content.images)


def test_a_job_is_read_like_a_task(folder):
    root = folder(track(12), frames=range(10, 15))
    text = (root / "annotations.xml").read_text(encoding="utf-8")
    text = text.replace(SIZE, "").replace("<task>", "<job>").replace("</task>", f"</job>{SIZE}")
    (root / "annotations.xml").write_text(text, encoding="utf-8")
    assert frames_with_box(root) == {"frame 12": "frame_000012.PNG"}
    assert {image.size for image in read(cvat.find, root).images} == {(48, 64)}
