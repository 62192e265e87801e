"""MOTChallenge: lines, what is ignored, sequences for several detectors, frames, CVAT's MOT 1.1."""

import pytest
from data_settings import data_settings
from layout_writers import (
    SMALL,
    Annotated,
    datumaro_export,
    write_coco,
    write_image,
    write_mot,
    write_yolo,
)
from raw_reading import boxes, expected, read, reasons

from retinanet_jax.data.annotations.annotation_fields import NO_CLASSES
from retinanet_jax.data.annotations.raw import EVERY_CLASS
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.formats import mot, mot_lines
from retinanet_jax.data.formats.find_layout import FINDERS, find_layout

# frame, id, left, top, width, height, flag, class, visibility: the first object is at the left and
# upper border of the image, whose pixels are numbered from 1.
LINE = "1,1,1,1,20,30,1,1,1\n"
INFO = (
    "[Sequence]\nname={}\nimDir={}\nframeRate=30\nseqLength=3\nimWidth=64\nimHeight=48\nimExt={}\n"
)


@pytest.fixture
def sequence(tmp_path):
    """A function that writes a sequence with its images and returns the folder around train/."""

    def write(text=LINE, name="train/MOT16-02", *, images=("000001.jpg", "000002.jpg"), labels=""):
        folder = tmp_path / "MOT" / name
        for image in images:
            write_image(folder / "img1", Annotated(image, 64, 48))
        info = INFO.format(folder.name, "img1", ".jpg")
        (folder / "seqinfo.ini").write_text(info, encoding="utf-8")
        (folder / "gt").mkdir(exist_ok=True)
        if text is not None:
            (folder / "gt/gt.txt").write_text(text, encoding="utf-8", newline="")
        if labels:
            (folder / "gt/labels.txt").write_text(labels, encoding="utf-8")
        return tmp_path / "MOT"

    return write


def objects(root, **keywords):
    images = read(mot.find, root, **keywords).images
    return [(o.class_name, o.box, o.crowd) for image in images for o in image.objects]


def test_each_split_is_read(tmp_path):
    write_mot(tmp_path, SMALL)
    layout = find_layout(tmp_path).layout
    assert (layout.name, layout.tool) == ("mot", "MOT 1.1 as exported by CVAT")
    assert set(layout.splits) == {"train", "val"}
    for split, images in SMALL.items():
        content = read(mot.find, tmp_path, split)
        found = list(boxes(content).values())
        assert found == [expected(SMALL, split)[image.file_name] for image in images]
        assert content.class_names == ("cat", "dog") and not content.notes
        assert all(image.path.is_file() for image in content.images)


def test_pixels_are_numbered_from_one_and_frames_without_lines_have_no_objects(sequence, tmp_path):
    settings = data_settings("folder", sequence(), tmp_path / "cache", val_share=0.0)
    truth = load_dataset(settings, "train").ground_truth()
    assert [a["bbox"] for a in truth["annotations"]] == [[0, 0, 20, 30]]
    assert [c["name"] for c in truth["categories"]] == ["pedestrian"]
    assert [(i["width"], i["height"]) for i in truth["images"]] == [(64, 48), (64, 48)]


@pytest.mark.parametrize("kind", [2, 7, 8, 12, 6, 13])
def test_distractors_are_ignored_for_each_class(sequence, kind):
    root = sequence(f"{LINE}1,2,31,21,5,6,0,{kind},1\n")
    assert objects(root) == [
        ("pedestrian", (0, 0, 20, 30), False),
        (EVERY_CLASS, (30, 20, 5, 6), True),
    ]


@pytest.mark.parametrize("kind", [3, 4, 5, 9, 10, 11])
def test_other_classes_are_background_and_noted(sequence, kind):
    root = sequence(f"{LINE}1,2,31,21,5,6,0,{kind},1\n")
    assert objects(root) == [("pedestrian", (0, 0, 20, 30), False)]
    content = read(mot.find, root)
    assert reasons(content) == {mot_lines.BACKGROUND: 1} and "line 2" in content.notes[0][1]


def test_pedestrians_with_flag_zero_or_hidden_are_ignored(sequence):
    root = sequence(f"{LINE}1,2,31,21,5,6,0,1,1\n1,3,31,21,5,7,1,1,0.24\n1,4,31,21,5,8,1,1,.25\n")
    assert [(box[3], crowd) for _, box, crowd in objects(root)] == [
        (30, False),
        (6, True),
        (7, True),
        (8, False),
    ]
    assert reasons(read(mot.find, root)) == {mot_lines.HIDDEN: 1}


@pytest.mark.parametrize("end", ["", ",-1,-1,-1", ",-4.1554,-7.3591,0"])
def test_lines_without_a_class_are_objects(sequence, end):
    root = sequence(f"1,9,499,158,31.03,75.17,1{end}\r\n2,9,1,1,3,4,0{end}\r\n")
    assert objects(root) == [
        ("object", (498, 157, 31.03, 75.17), False),
        ("object", (0, 0, 3, 4), True),
    ]
    assert reasons(read(mot.find, root)) == {NO_CLASSES: 1}


def test_of_sequences_for_several_detectors_one_is_read(sequence):
    for detector in ("DPM", "FRCNN", "SDP"):
        sequence(name=f"train/MOT17-02-{detector}")
    root = sequence(name="train/MOT17-04-SDP")
    content = read(mot.find, root)
    assert len(content.images) == 4 and reasons(content) == {mot.OTHER_DETECTORS: 2}
    assert {image.path.parts[-3] for image in content.images} == {"MOT17-02-DPM", "MOT17-04-SDP"}
    # Some keep the images of one detector alone.
    for image in (root / "train/MOT17-02-DPM/img1").iterdir():
        image.unlink()
    content = read(mot.find, root)
    assert {image.path.parts[-3] for image in content.images} == {"MOT17-02-FRCNN", "MOT17-04-SDP"}


def test_sequences_without_ground_truth_are_left_out_and_reported(sequence, tmp_path):
    sequence()
    sequence(None, name="train/MOT16-09")
    root = sequence(None, name="test/MOT16-01")
    layout = find_layout(tmp_path).layout
    assert (layout.splits, layout.unlabelled) == (("train",), ("test",))
    assert layout.tool == "MOTChallenge sequences" and layout.suffixes == (".ini",)
    assert reasons(read(mot.find, root)) == {mot.NO_GT: 1}


@pytest.mark.parametrize("place", ["..", ".", "train", "train/MOT16-02"])
def test_the_root_may_be_any_folder_around_a_sequence(sequence, place):
    root = sequence()
    found = find_layout((root / place).resolve())
    assert found.layout.splits == ("train",) and len(found.layout.folders) == 1
    fitting = [name for name, find in FINDERS.items() if find(found.place) is not None]
    assert fitting == ["mot"]


@pytest.mark.parametrize("write, name", [(write_coco, "coco"), (write_yolo, "yolo")])
def test_a_conversion_to_another_layout_is_preferred(sequence, write, name):
    root = sequence()
    write(root, SMALL)
    assert find_layout(root).layout.name == name
    assert find_layout(root, "mot").place == root


def test_whole_sequences_are_held_out(sequence, tmp_path):
    frames = [f"{number:06d}.jpg" for number in range(1, 13)]
    for number in range(4):
        root = sequence(name=f"train/MOT16-0{number}", images=frames)
    settings = data_settings("folder", root, tmp_path / "cache", eval_split="auto", val_share=0.3)
    names = [
        image["file_name"] for image in load_dataset(settings, "auto").ground_truth()["images"]
    ]
    assert len(names) == 12 and len({name.split("/")[1] for name in names}) == 1


def test_labels_beside_the_lines_name_the_classes(sequence):
    root = sequence("1,1,0,0,20,30,1,2,0.0\n2,1,3,4,5,6,0,1,1.0\n", labels="car\ntraffic light\n")
    assert objects(root) == [
        ("traffic light", (0, 0, 20, 30), False),  # occluded, as CVAT marks it
        ("car", (3, 4, 5, 6), True),
    ]
    assert read(mot.find, root).class_names == ("car", "traffic light")


@pytest.mark.parametrize("step", [1, 5])
def test_frames_of_cvat_are_numbered_in_order(sequence, step):
    images = [f"frame_{step * number:06d}.jpg" for number in range(3)]
    root = sequence("3,1,0,0,20,30,1,1,1\n", images=images, labels="car\n")
    content = read(mot.find, root)
    assert [len(image.objects) for image in content.images] == [0, 0, 1]
    assert [image.path.name for image in content.images] == images


def test_frames_of_cvat_have_the_numbers_of_images_that_are_numbered(sequence):
    images = ["000000.jpg", "000007.jpg"]
    root = sequence("0,1,0,0,20,30,1,1,1\n7,1,0,0,5,6,1,1,1\n", images=images, labels="car\n")
    content = read(mot.find, root)
    assert [(i.path.name, i.objects[0].box[3]) for i in content.images] == [
        ("000000.jpg", 30),
        ("000007.jpg", 6),
    ]


@pytest.mark.parametrize(
    "images, message",
    [
        (
            ("a.jpg", "b.jpg"),
            "gt.txt: numbers frames, but images in .* are called 'a.jpg', 'b.jpg'",
        ),
        (("frame_000000.jpg", "frame_000001.jpg", "frame_000003.jpg"), "are called 'frame_000000"),
        (("000001.jpg", "frame_000002.jpg"), "name the image of frame 1 000001 and so on"),
        (("000001.jpg", "1.jpg"), "have the number of 000001.jpg; keep one"),
    ],
)
def test_images_that_are_not_numbered_are_an_error(sequence, images, message):
    root = sequence(images=images)
    sequence(name="train/MOT16-04")
    with pytest.raises(DataError, match=message):
        read(mot.find, root)
    assert len(objects(root, on_error="skip")) == 1


def test_a_missing_image_is_named(sequence, tmp_path):
    root = sequence(f"{LINE}3,1,1,1,20,30,1,1,1\n")
    settings = data_settings("folder", root, tmp_path / "cache", val_share=0.0)
    with pytest.raises(DataError, match=r"gt\.txt: frame 3: .*img1/000003\.jpg"):
        load_dataset(settings, "train")


def test_the_size_in_seqinfo_is_checked(sequence, tmp_path):
    root = sequence()
    write_image(root / "train/MOT16-02/img1", Annotated("000002.jpg", 60, 48))
    settings = data_settings("folder", root, tmp_path / "cache", val_share=0.0)
    with pytest.raises(DataError, match=r"frame 2: height x width is 48 x 64, but .* has 48 x 60"):
        load_dataset(settings, "train")


@pytest.mark.parametrize(
    "info, place, name",
    [
        (INFO.format("a", "frames", ".PNG"), "frames", "000002.png"),
        (None, "img1", "000002.png"),
    ],
)
def test_images_are_where_seqinfo_says(sequence, info, place, name):
    root = sequence(f"{LINE}2,1,1,1,20,30,1,1,1\n")
    folder = root / "train/MOT16-02"
    for image in ("000001.png", "000002.png"):
        write_image(folder / "images", Annotated(image, 64, 48))
    for image in (folder / "img1").iterdir():
        image.unlink()
    (folder / "img1").rmdir()
    (folder / "images").rename(folder / place)
    (folder / "seqinfo.ini").unlink()
    if info:
        (folder / "seqinfo.ini").write_text(info, encoding="utf-8")
    assert [image.path for image in read(mot.find, root).images][1] == folder / place / name


def test_a_broken_seqinfo_is_an_error(sequence):
    root = sequence()
    (root / "train/MOT16-02/seqinfo.ini").write_text("imDir=img1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"seqinfo\.ini: cannot be read .*; write the line .Sequen"):
        read(mot.find, root)


@pytest.mark.parametrize(
    "bad, message",
    [
        ("1,2,3,4,5,6\n", "line 2: is '1,2,3,4,5,6'; write frame,id,left,top,width,height,flag"),
        ("1,2,3,4,x,6,1,1,1\n", "line 2: is '1,2,3,4,x,6,1,1,1'"),
        ("0,2,3,4,5,6,1,1,1\n", "line 2: the frame is 0; number the frames from 1"),
        ("1.5,2,3,4,5,6,1,1,1\n", "line 2: the frame is 1.5"),
        ("1,2,3,4,5,6,0.7,1,1\n", "line 2: the flag is 0.7; write 1, or 0"),
        (
            "1,2,3,4,5,6,1,2,1\n",
            "line 2: class 2 with the flag 1 is not one of MOTChallenge; write",
        ),
        ("1,2,3,4,5,6,0,14,1\n", "line 2: class 14 with the flag 0"),
        ("1,2,3,4,5,6,1,4,0,1\n", "line 2: has 10 numbers, of which the eighth looks like a class"),
    ],
)
def test_a_bad_line_is_an_error_that_names_it(sequence, bad, message):
    root = sequence(LINE + bad)
    with pytest.raises(DataError) as error:
        read(mot.find, root)
    assert message in str(error.value) and "gt/gt.txt" in str(error.value)
    assert objects(root, on_error="skip") == [("pedestrian", (0, 0, 20, 30), False)]


@pytest.mark.parametrize("end, shown", [(",3,1", "is 3"), (",-1,1", "is -1"), ("", "is missing")])
def test_a_class_that_is_not_among_the_labels_is_an_error(sequence, end, shown):
    root = sequence(f"1,1,0,0,20,30,1{end}\n", labels="car\nbus\n")
    with pytest.raises(DataError, match=f"line 1: the class {shown}, but gt/labels.txt has the cl"):
        read(mot.find, root)


def test_files_written_by_datumaro_read_back_equal(tmp_path):
    datumaro_export(
        tmp_path,
        [im._replace(file_name=f"{n:06d}.png") for n, im in enumerate(SMALL["train"], 1)],
        "mot_seq_gt",
    )
    content = read(mot.find, tmp_path / "out")
    wanted = expected(SMALL)
    assert [found for found in boxes(content).values()] == list(wanted.values())
