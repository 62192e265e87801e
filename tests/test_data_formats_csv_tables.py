"""Tables of boxes: the tools' columns, encodings, images by name, errors that name the line."""

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_writers import (
    SMALL,
    Annotated,
    Box,
    globox_annotations,
    write_csv,
    write_csv_keras,
    write_image,
)
from raw_reading import boxes, expected, read, reasons

from retinanet_jax.data.annotations.annotation_fields import NO_CLASSES
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.formats import csv_tables
from retinanet_jax.data.formats.csv_files import UNNAMED

HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax\n"


@pytest.fixture
def folder(tmp_path):
    """A function that writes a table beside a.png and b.png."""

    def write(text: str, name: str = "annotations.csv", encoding: str = "utf-8") -> Path:
        for letter in "ab":
            write_image(tmp_path, Annotated(f"{letter}.png", 64, 48))
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(text.encode(encoding))
        return tmp_path

    return write


def objects(root: Path, split: str = "train") -> list[tuple]:
    """Those of a.png."""
    return boxes(read(csv_tables.find, root, split))["a.png"]


def test_tables_with_a_header_are_read(tmp_path):
    write_csv(tmp_path, SMALL)
    layout = csv_tables.find(tmp_path)
    assert (layout.name, layout.tool, layout.splits) == ("csv", "CSV", ("train", "val"))
    for split in SMALL:
        content = read(csv_tables.find, tmp_path, split)
        wanted = {name: found for name, found in expected(SMALL, split).items() if found}
        assert boxes(content) == wanted
        sizes = [(im.height, im.width) for im in SMALL[split] if im.boxes]
        assert [im.size for im in content.images] == sizes
        assert all(image.path.is_file() for image in content.images)
        assert content.class_names is None and not content.notes


def test_one_column_with_a_box_and_none_with_a_class_are_read(folder):
    """Tables of Kaggle: names without a suffix; a row without a box is an image without objects."""
    rows = 'a,64,48,"[3.0, 4, 20, 10.5]",usask\na,64,48,"[1, 2, 9, 8]",usask\nb,64,48,,ethz\n'
    root = folder(f"image_id,width,height,bbox,source\n{rows}", "train.csv")
    content = read(csv_tables.find, root)
    wanted = [("object", 3.0, 4.0, 20.0, 10.5), ("object", 1.0, 2.0, 9.0, 8.0)]
    assert boxes(content) == {"a.png": wanted, "b.png": []}
    assert reasons(content) == {NO_CLASSES: 1}
    (root / "classes.txt").write_text("wheat head\n", encoding="utf-8")
    assert [name for name, *_ in objects(root)] == ["wheat head"] * 2
    (root / "train.csv").write_text('image_id,bbox,label\na,"3 4 20",x\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"line 2.*the box is '?3 4 20"):
        objects(root)


def test_tables_of_keras_retinanet_are_read(tmp_path):
    write_csv_keras(tmp_path, SMALL)
    layout = csv_tables.find(tmp_path)
    assert layout.tool == "CSV as keras-retinanet reads it"
    for split in SMALL:
        content = read(csv_tables.find, tmp_path, split)
        assert boxes(content) == expected(SMALL, split)  # also the image without objects
        assert content.class_names == ("cat", "dog")
        assert all(image.path.is_file() for image in content.images)


@pytest.mark.parametrize(
    "header, row",
    [
        ("file_name,label,x1,y1,x2,y2", "a.png,cat,4,6,24,18"),
        ("image_path,xmin,ymin,xmax,ymax,label", "a.png,4,6,24,18,cat"),
        ("Image,Name,Left,Top,Right,Bottom", "a.png,cat,4,6,24,18"),
        ("image,category,left,top,width,height", "a.png,cat,4,6,20,12"),
        ("path;x;y;w;h;class", "a.png;4,0;6.0;20;12;cat"),
        ("ImagePath\tClass Name\tx_min\ty_min\tx_max\ty_max", "a.png\tcat\t4\t6\t24\t18"),
        ("image_name,class_name,x_center,y_center,width,height", "a.png,cat,14,12,20,12"),
        (
            "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height",
            "cat,4,6,20,12,a.png,64,48",
        ),
        ("xmin,filename,ymax,ymin,class,xmax", "4,a.png,18,6,cat,24"),
        (",filename,class,xmin,ymin,xmax,ymax", "0,a.png,cat,4,6,24,18"),
    ],
)
def test_columns_by_their_usual_names(folder, header, row):
    assert objects(folder(f"{header}\n{row}\n")) == [("cat", 4, 6, 20, 12)]


def test_a_table_of_makesense_without_a_header(folder):
    root = folder("cat,4,6,20,12,a.png,64,48\n")
    content = read(csv_tables.find, root)
    assert objects(root) == [("cat", 4, 6, 20, 12)] and content.images[0].size == (48, 64)


@pytest.mark.parametrize(
    "text",
    [
        "a,b,c\n1,2,3\n",
        "id,label\n1,cat\n",  # a submission
        "ImageID,Source,LabelName,Confidence\n01,verification,/m/1,1\n",  # of whole images
        "filename,class,xmin,ymin,xmax\na.png,cat,1,2,3\n",
        "a.png,1,2,3,four,cat\n",
        "",
        "\n\n",
        "\0\0\0",
    ],
)
def test_other_tables_are_not_recognized(folder, text):
    assert csv_tables.find(folder(text)) is None


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_encodings(folder, encoding):
    text = f"{HEADER}a.png,64,48,größe 猫,4,6,24,18\r\n"
    if encoding == "utf-16-le":
        text = "\ufeff" + text
    assert objects(folder(text, encoding=encoding)) == [("größe 猫", 4, 6, 20, 12)]


def test_a_file_that_is_not_utf_8_is_an_error(folder):
    root = folder(f"{HEADER}a.png,64,48,größe,4,6,24,18\n", encoding="latin-1")
    with pytest.raises(DataError, match=r"annotations\.csv: .* save it as CSV in UTF-8"):
        read(csv_tables.find, root)


def test_open_images(folder):
    header = (
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,"
        "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
    )
    rows = "a,xclick,/m/1,1,0.25,0.5,0.1,0.6,0,0,0,0,0\na,xclick,/m/2,1,0,1,0,1,0,0,1,0,0\n"
    root = folder(header + rows, "train-annotations-bbox.csv")
    (root / "class-descriptions-boxable.csv").write_text("/m/1,Cat\n/m/2,Dog\n")
    content = read(csv_tables.find, root)
    (image,) = content.images
    assert image.normalized and image.path == root / "a.png"
    assert image.objects[0].class_name == "Cat"
    assert image.objects[0].box == pytest.approx((0.25, 0.1, 0.25, 0.5))
    assert [o.crowd for o in image.objects] == [False, True]
    folder(header + "a,xclick,/m/1,1,25,50,10,60,0,0,0,0,0\n", "train-annotations-bbox.csv")
    with pytest.raises(DataError, match=r"line 2: .* not fractions of the image size"):
        read(csv_tables.find, root)
    folder(header + rows.replace("/m/2", "/m/3"), "train-annotations-bbox.csv")
    with pytest.raises(DataError, match="line 3: class '/m/3' has no name"):
        read(csv_tables.find, root)


@pytest.mark.parametrize(
    "header", ["", "set,path,label,x_min,y_min,,,x_max,y_max,,\n"], ids=["bare", "header"]
)
def test_automl(folder, header):
    root = folder(
        header
        + "TRAIN,gs://bucket/some/a.png,cat,0.25,0.1,,,0.5,0.6,,\n"
        + "VALIDATION,gs://bucket/b.png,dog,0.1,0.1,0.3,0.1,0.3,0.4,0.1,0.4\n"
        + "UNASSIGNED,gs://bucket/b.png,,,,,,,,,\n"
    )
    layout = csv_tables.find(root)
    assert layout.tool == "CSV of AutoML" and set(layout.splits) == {"train", "validation"}
    content = read(csv_tables.find, root)
    assert content.images[0].normalized
    found = boxes(content)
    assert found["a.png"][0][1:] == pytest.approx((0.25, 0.1, 0.25, 0.5)) and found["b.png"] == []
    found = boxes(read(csv_tables.find, root, "validation"))
    assert found["b.png"][0][1:] == pytest.approx((0.1, 0.1, 0.2, 0.3))


def test_an_image_of_automl_may_have_no_further_columns(folder):
    root = folder("training,gs://bucket/b.png\ntraining,gs://bucket/a.png,cat,.25,.1,,,.5,.6\n")
    found = boxes(read(csv_tables.find, root, "training"))
    assert found == {"b.png": [], "a.png": [("cat", 0.25, 0.1, 0.25, 0.5)]}
    assert csv_tables.find(folder("training,gs://bucket/b.png\n")) is None


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_first_line_by_which_excel_knows_the_delimiter_is_passed_over(folder, delimiter):
    text = HEADER.replace(",", delimiter) + "a.png,64,48,cat,4,6,24,18\n".replace(",", delimiter)
    assert objects(folder(f"sep={delimiter}\r\n{text}")) == [("cat", 4, 6, 20, 12)]


def test_automl_without_sets(folder):
    root = folder("gs://bucket/a.png,cat,0.25,0.1,,,0.5,0.6,,\n")
    assert objects(root)[0][1:] == pytest.approx((0.25, 0.1, 0.25, 0.5))


def test_a_box_of_zeros_is_an_empty_image_for_deepforest_alone(folder):
    root = folder("image_path,xmin,ymin,xmax,ymax,label\na.png,0,0,0,0,cat\n")
    content = read(csv_tables.find, root)
    assert boxes(content) == {"a.png": []} and reasons(content) == {csv_tables.ZERO_BOX: 1}
    assert objects(folder(f"{HEADER}a.png,64,48,cat,0,0,0,0\n")) == [("cat", 0, 0, 0, 0)]


def test_splits_by_file_by_folder_and_by_column(folder):
    row = "a.png,64,48,cat,4,6,24,18\n"
    root = folder(HEADER + row, "oidv6_validation-boxes.csv")
    assert csv_tables.find(root).splits == ("validation",)
    folder(HEADER + row, "test/_annotations.csv")
    assert set(csv_tables.find(root).splits) == {"validation", "test"}
    folder(HEADER + row, "train.csv")
    folder(HEADER + row, "all.csv")
    assert set(csv_tables.find(root).splits) == {"train", "validation", "test"}
    assert reasons(read(csv_tables.find, root, "test")) == {UNNAMED: 1}
    text = "filename,split,class,xmin,ymin,xmax,ymax\n"
    (root / "column.csv").write_text(f"{text}a.png,train,x,1,2,3,4\nb.png,Val,x,1,2,3,4\n")
    assert csv_tables.find(root / "column.csv").splits == ("train", "val")
    assert boxes(read(csv_tables.find, root / "column.csv", "val")).keys() == {"b.png"}
    (root / "column.csv").write_text(f"{text}a.png,3,x,1,2,3,4\nb.png,7,x,1,2,3,4\n")
    assert csv_tables.find(root / "column.csv").splits == ("train",)  # numbers of folds


@pytest.mark.parametrize("other", ["val_annotations.csv", "test.csv"])
def test_the_table_without_a_split_is_train_beside_one_of_another_split(folder, other):
    root = folder(f"{HEADER}a.png,64,48,cat,4,6,24,18\nb.png,64,48,cat,4,6,24,18\n")
    folder(f"{HEADER}b.png,64,48,cat,4,6,24,18\n", other)
    content = read(csv_tables.find, root, "train")
    assert boxes(content).keys() == {"a.png", "b.png"} and not content.notes
    folder(f"{HEADER}b.png,64,48,cat,4,6,24,18\n", "boxes.csv")
    wanted = r"whose names contain no split: annotations\.csv, boxes\.csv; name them after"
    with pytest.raises(DataError, match=wanted):
        csv_tables.find(root)


def test_a_column_of_splits_with_a_value_that_is_none_is_an_error(folder):
    text = "filename,split,class,xmin,ymin,xmax,ymax\na.png,train,x,1,2,3,4\n"
    root = folder(f"{text}b.png,holdout,x,1,2,3,4\n")
    wanted = r"annotations\.csv: line 3: the split is 'holdout', but 'train' in line 2; write"
    with pytest.raises(DataError, match=wanted):
        csv_tables.find(root)
    assert csv_tables.find(folder(f"{text}b.png,,x,1,2,3,4\n")).splits == ("train",)


def test_tables_that_could_be_one_split_are_ambiguous(folder):
    row = "a.png,64,48,cat,4,6,24,18\n"
    root = folder(HEADER + row, "one.csv")
    folder(HEADER + row, "two.csv")
    with pytest.raises(DataError, match=r"whose names contain no split: one\.csv, two\.csv"):
        csv_tables.find(root)
    folder(HEADER + row, "train.csv")
    folder(HEADER + row, "labels_train.csv")
    with pytest.raises(DataError, match=r"both labels_train\.csv and train\.csv"):
        csv_tables.find(root)
    assert csv_tables.find(root / "train.csv").splits == ("train",)


@pytest.mark.parametrize(
    "stated, found",
    [
        ("images/a.png", "images/a.png"),
        ("a.png", "images/a.png"),
        ("./images/a.png", "images/a.png"),
        ("C:\\work\\images\\a.png", "images/a.png"),
        ("/home/me/a.png", "images/a.png"),
        ("../images/a.png", "images/a.png"),
        ("deep/b.png", "images/x/deep/b.png"),
        ("c.png", "test/c.png"),
        ("images/c.png", "images/c.png"),  # missing: the folder exists, the file does not
        ("a.jpg", "a.jpg"),  # missing
        ("A.PNG", "images/a.png"),
    ],
)
def test_images_are_found(tmp_path, stated, found):
    for name in ("images/a.png", "images/x/deep/b.png", "test/c.png"):
        write_image(tmp_path, Annotated(name, 64, 48))
    (tmp_path / "boxes.csv").write_text(f"{HEADER}{stated},64,48,cat,4,6,24,18\n")
    (image,) = read(csv_tables.find, tmp_path).images
    assert image.path == tmp_path / found and image.file_name == found


def test_an_image_of_another_split_is_not_taken(tmp_path):
    write_image(tmp_path, Annotated("train/a.png", 64, 48))
    for split in ("train", "val"):
        (tmp_path / f"{split}.csv").write_text(f"{HEADER}a.png,64,48,cat,4,6,24,18\n")
    assert read(csv_tables.find, tmp_path, "train").images[0].path.is_file()
    with pytest.raises(DataError, match=r"'a\.png' is missing; train/a\.png is of another split"):
        read(csv_tables.find, tmp_path, "val")


def test_two_images_of_one_name_are_ambiguous(tmp_path):
    for width, folder in enumerate(("x", "y"), 64):
        write_image(tmp_path / folder, Annotated("a.png", width, 48))
    (tmp_path / "boxes.csv").write_text(f"{HEADER}a.png,64,48,cat,4,6,24,18\n")
    with pytest.raises(DataError, match=r"line 2: 'a\.png' may mean x/a\.png, y/a\.png"):
        read(csv_tables.find, tmp_path)


@pytest.mark.parametrize(
    "row, message",
    [
        ("a.png,64,48,cat,x,6,24,18", "line 3: the box is 'x 6 24 18'"),
        ("a.png,64,48,cat,nan,6,24,18", "line 3: the box is 'nan 6 24 18'"),
        ("a.png,64,48,cat,1e999,6,24,18", "line 3: the box is"),
        ("a.png,64,48,cat,4,,24,18", "line 3: the box is '4  24 18'"),
        ("a.png,64,48,cat,,,,", "line 3: has no box for the class 'cat'"),
        ("a.png,64,48,,4,6,24,18", "line 3: the class is ''"),
        (",64,48,cat,4,6,24,18", "line 3: the image name is ''"),
        ("a.png,64,48,cat,4,6", "line 3: has 6 columns, but at least 7 are needed"),
    ],
)
def test_a_bad_row_is_an_error_that_names_its_line(folder, row, message):
    root = folder(f"{HEADER}a.png,64,48,cat,4,6,24,18\n{row}\n")
    with pytest.raises(DataError) as error:
        read(csv_tables.find, root)
    assert message in str(error.value) and "annotations.csv" in str(error.value)
    assert len(read(csv_tables.find, root, on_error="skip").images[0].objects) == 1


def test_a_quote_that_never_ends_is_an_error(folder):
    text = HEADER + "a.png,64,48,cat,4,6,24,18\n" * 3000 + '"a.png,64\n' + "x,1,2\n" * 30_000
    with pytest.raises(DataError, match=r"annotations\.csv: cannot be read as CSV"):
        read(csv_tables.find, folder(text))


def test_class_lists(folder):
    root = folder("a.png,4,6,24,18,cat\n", "train.csv")
    (root / "classes.csv").write_text("dog,1\ncat,0\n")
    assert read(csv_tables.find, root).class_names == ("cat", "dog")
    (root / "classes.csv").write_text("dog,0\n")
    with pytest.raises(DataError, match=r"the class is 'cat'; .* add it to the list of classes"):
        read(csv_tables.find, root)
    (root / "classes.csv").write_text("dog,1\ncat,1\n")
    with pytest.raises(DataError, match=r"classes\.csv: .* number the classes from 0"):
        read(csv_tables.find, root)


@pytest.mark.parametrize(
    "name, text", [("classes.csv", "cat,0\ndog,1\n"), ("classes.txt", "cat\ndog\n")]
)
def test_class_numbers_are_those_of_the_list(folder, name, text):
    root = folder("filename,class_id,x1,y1,x2,y2\na.png,1,4,6,24,18\na.png,0.0,1,2,3,4\n")
    (root / name).write_text(text)
    assert objects(root) == [("dog", 4, 6, 20, 12), ("cat", 1, 2, 2, 2)]
    assert reasons(read(csv_tables.find, root)) == {csv_tables.NUMBERED: 2}
    folder("filename,class_id,x1,y1,x2,y2\na.png,2,4,6,24,18\n")
    with pytest.raises(DataError, match="line 2: the class is '2'"):
        objects(root)


def test_digits_are_names_in_a_list_of_digits(folder):
    root = folder("filename,class,x1,y1,x2,y2\na.png,1,4,6,24,18\n")
    (root / "classes.txt").write_text("1\n2\nother\n")
    assert objects(root) == [("1", 4, 6, 20, 12)]


names = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1)
numbers = st.floats(0, 1000)
written = st.lists(st.builds(Box, names, numbers, numbers, numbers, numbers), max_size=4)


@settings(max_examples=30, deadline=None)
@given(written)
def test_boxes_and_names_come_back(tmp_path_factory, found):
    root = tmp_path_factory.mktemp("csv")
    first = Box("cat", 1, 2, 3, 4)
    write_csv(root, {"train": [Annotated("a.png", 64, 48, (first, *found))]})
    for one, other in zip(objects(root), (first, *found), strict=True):
        assert one[0] == other.name and one[1:] == pytest.approx(other[1:], abs=1e-9)


def test_files_written_by_globox_for_open_images_read_back_equal(tmp_path):
    annotations = globox_annotations(tmp_path, SMALL["train"])
    annotations.save_openimage(tmp_path / "train-annotations-bbox.csv")
    with (tmp_path / "train-annotations-bbox.csv").open(newline="") as file:
        assert "IsGroupOf" in next(csv.reader(file))
    found = boxes(read(csv_tables.find, tmp_path))
    wanted = expected(SMALL, shares=True)
    for name in found:
        for one, other in zip(found[name], wanted[name], strict=True):
            assert one[0] == other[0] and one[1:] == pytest.approx(other[1:], abs=1e-6)
    assert found.keys() == {"a.png", "b 1.png"}
