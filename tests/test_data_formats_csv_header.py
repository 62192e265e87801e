"""Columns of boxes and image sizes by their names: what is read, and what is ambiguous."""

import itertools
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_settings import data_settings
from layout_writers import Annotated, write_image
from raw_reading import read, reasons

from retinanet_jax.data.annotations.outlines import ROTATED
from retinanet_jax.data.annotations.split_content import OUTLINE
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.formats import csv_tables
from retinanet_jax.data.formats.csv_header import find_box

WIDTH, HEIGHT = 64, 48
BOXES = [(4, 6, 20, 12), (30, 8, 10, 32)]


def values(x, y, width, height) -> dict:
    """What a column may have: L(eft), T(op), R, B, W(idth), H, CX, CY; in small letters as shares
    of the image's size; and the image's own IW, IH."""
    sides = {"L": x, "R": x + width, "CX": x + width / 2, "W": width}
    heights = {"T": y, "B": y + height, "CY": y + height / 2, "H": height}
    shares = {k.lower(): v / WIDTH for k, v in sides.items()}
    shares |= {k.lower(): v / HEIGHT for k, v in heights.items()}
    return {**sides, **heights, **shares, "IW": WIDTH, "IH": HEIGHT}


def write(root: Path, columns: str, rows: list[dict] | None = None) -> Path:
    """A table with the columns 'name=what', see `values`; `rows` has what else they may have."""
    pairs = [column.rpartition("=") for column in columns.split(",")]
    lines = [",".join(["filename", *(name for name, _, _ in pairs)])]
    for row in rows or [values(*box) for box in BOXES]:
        lines.append(",".join(["a.png", *(str(row.get(what, what)) for _, _, what in pairs)]))
    write_image(root, Annotated("a.png", WIDTH, HEIGHT))
    (root / "train.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


@pytest.fixture
def objects(tmp_path):
    """A function that returns (x, y, width, height) by folder to ground truth."""

    def load(root: Path) -> list[tuple]:
        settings = data_settings("folder", root, tmp_path / "cache", eval_split="train")
        truth = load_dataset(settings, "train").ground_truth()
        return [tuple(a["bbox"]) for a in truth["annotations"]]

    return load


@pytest.mark.parametrize(
    "columns",
    [
        "width=IW,height=IH,label=cat,x=L,y=T,w=W,h=H",
        "w=IW,h=IH,x=L,y=T,width=W,height=H",
        "width=IW,height=IH,class=cat,xmin=L,ymin=T,w=W,h=H",
        "width=IW,height=IH,x_center=CX,y_center=CY,w=W,h=H",
        "width=IW,height=IH,x_center=CX,y_center=CY,bbox_width=W,bbox_height=H",
        "width=IW,height=IH,left=L,top=T,box_width=W,box_height=H",
        "w=IW,h=IH,left=L,top=T,bbox_w=W,bbox_h=H",
        "image_width=IW,image_height=IH,x=L,y=T,width=W,height=H",
        "x=L,y=T,width=W,height=H,img_w=IW,img_h=IH",
        "x1=L,y1=T,width=W,height=H",
        "x_1=L,y_1=T,width=W,height=H",
        "x_min=L,y_min=T,bbox_width=W,bbox_height=H,image_width=IW,image_height=IH",
        "xmin_norm=l,ymin_norm=t,xmax_norm=r,ymax_norm=b",
        "norm_x_center=cx,norm_y_center=cy,norm_w=w,norm_h=h,width=IW,height=IH",
        "x_rel=l,y_rel=t,w_rel=w,h_rel=h,image_width=IW,image_height=IH",
        "xmin=L,ymin=T,xmax=R,ymax=B,xmin_norm=l,ymin_norm=t,xmax_norm=r,ymax_norm=b",
        "xmin=L,ymin=T,xmax=R,ymax=B,width=IW,height=IH",
        "xmin=L,ymin=T,xmax=R,ymax=B,width=W,height=H",
        "xmin_px=L,ymin_px=T,xmax_px=R,ymax_px=B",
        "Roi.X1=L,Roi.Y1=T,Roi.X2=R,Roi.Y2=B,Width=IW,Height=IH",
        "bbox_x=L,bbox_y=T,bbox_w=W,bbox_h=H,x1=1,y1=2,x2=3,y2=4,x3=5,y3=6",
        "bounding_box_x_min=L,bounding_box_y_min=T,bounding_box_x_max=R,bounding_box_y_max=B",
        "Upper left corner X=L,Upper left corner Y=T,Lower right corner X=R,Lower right corner Y=B",
        "topleft_x=L,topleft_y=T,bottomright_x=R,bottomright_y=B",
        "ymin=T,xmin=L,ymax=B,xmax=R,x1=1,y1=2,x2=3,y2=4,x3=5,y3=6",
        "x1=L,y1=T,x2=R,y2=B,width=IW,height=IH,angle=0",
        "xmin=L,ymin=T,xmax=R,ymax=B,angle=left",
        "x=L,y=T,w=W,h=H,image_x=900,image_y=900",
    ],
)
def test_headers_with_one_meaning(tmp_path, objects, columns):
    assert objects(write(tmp_path, columns)) == BOXES


POSITIONS = {
    "x=L,y=T": "size",
    "xmin=L,ymin=T": "size",
    "left=L,top=T": "size",
    "x1=L,y1=T": "size",
    "bbox_x=L,bbox_y=T": "size",
    "x_center=CX,y_center=CY": "center",
    "bbox_cx=CX,bbox_cy=CY": "center",
}
PLAIN = {"w": "w,h", "width": "width,height"}
OF_BOX = ["bbox_width,bbox_height", "box_w,box_h", "bboxWidth,bboxHeight", "roi_w,roi_h"]
OF_IMAGE = ["image_width,image_height", "img_w,img_h", "ImageWidth,ImageHeight", "w_img,h_img"]
# Pairs of names for the sides of the box and of the image.
SIDES = [
    *itertools.product(OF_BOX, [*OF_IMAGE, *PLAIN.values()]),
    *itertools.product(PLAIN.values(), OF_IMAGE),
    *itertools.permutations(PLAIN.values()),
]


@pytest.mark.parametrize("sides", SIDES, ids="|".join)
@pytest.mark.parametrize("position", POSITIONS)
def test_a_box_never_has_the_size_of_its_image(tmp_path, position, sides):
    """All names of a position with all pairs of names, with the image's columns first and last."""
    (w, h), (iw, ih) = (pair.split(",") for pair in sides)
    box, image = f"{position},{w}=W,{h}=H", f"{iw}=IW,{ih}=IH"
    for columns in (f"{image},{box}", f"{box},{image}"):
        (found,) = read(csv_tables.find, write(tmp_path, columns)).images
        assert [o.box for o in found.objects] == BOXES
        assert found.size in (None, (HEIGHT, WIDTH))
        if sides[1] != PLAIN["w"] or sides[0] == PLAIN["width"]:
            assert found.size == (HEIGHT, WIDTH)  # and is checked against the file


@pytest.mark.parametrize(
    "columns, message",
    [
        ("x=L,y=T,w=9,h=40,width=40,height=9", "has w, h and width, height, which may both be of"),
        (
            "x=L,y=T,w=W,h=H,width=8,height=6,image_width=IW,image_height=IH",
            "has w, h and width, height, which may both be of the box; rename those of the box to",
        ),
        (
            "x=L,y=T,w=W,h=H,x1=1,y1=2,x2=3,y2=4,x3=5,y3=6",
            "has a box in x, y, w, h and points in x1, y1, x2, y2, x3, y3; rename the columns that",
        ),
        ("width=IW,height=IH,x=L,y=T", "2 of 2 boxes have the width and height of their image"),
        ("width=IW,height=IH,cx=L,cy=T", "train.csv: 2 of 2 boxes have the width and height of"),
        ("w=IW,h=IH,x1=L,y1=T", "write the width and height of each box; in a table, name"),
        ("x=L,y=T,w=W,h=H,width=99,height=98", "height x width is 98 x 99, but"),
        ("x=l,y=t,width=w,height=h,w=IW,h=IH", "is in fractions of the image, not in pixels"),
        ("xmin_norm=L,ymin_norm=T,xmax_norm=R,ymax_norm=B", "not fractions of the image size"),
    ],
)
def test_ambiguous_columns_are_an_error(tmp_path, objects, columns, message):
    with pytest.raises(DataError) as error:
        objects(write(tmp_path, columns))
    assert message in str(error.value) and "train.csv" in str(error.value)


def test_boxes_as_large_as_their_image_are_read(tmp_path, objects):
    root = write(tmp_path, "x=L,y=T,width=IW,height=IH", [{"L": 0, "T": 0, "IW": 64, "IH": 48}])
    assert objects(root) == [(0, 0, 64, 48)]
    root = write(tmp_path, "x=L,y=T,w=W,h=H,width=IW,height=IH", [values(0, 0, 64, 48)])
    assert objects(root) == [(0, 0, 64, 48)]


CORNERS = [[(20, 10), (60, 25), (50, 40), (12, 30)], [(5, 5), (9, 6), (8, 20)]]


@pytest.mark.parametrize("first", [0, 1])
def test_points_are_read_as_the_box_around_them(tmp_path, objects, first):
    """A quadrilateral, and a triangle in the same table, whose last point is empty."""
    names = [f"{axis}{n}" for n in range(first, first + 4) for axis in "xy"]
    rows = [dict(zip(names, itertools.chain(*points), strict=False)) for points in CORNERS]
    rows[1] |= dict.fromkeys(names[6:], "")
    columns = ",".join(f"{name}={name}" for name in names)
    root = write(tmp_path, f"width=64,height=48,{columns}", rows)
    wanted = []
    for points in map(np.array, CORNERS):
        wanted.append((*points.min(axis=0).tolist(), *np.ptp(points, axis=0).tolist()))
    assert objects(root) == wanted
    content = read(csv_tables.find, root)
    assert reasons(content)[OUTLINE] == 2 and content.images[0].size == (48, 64)


def around(x, y, width, height, degrees) -> tuple:
    corners = cv2.boxPoints(((x, y), (width, height), degrees))
    return (*corners.min(axis=0), *np.ptp(corners, axis=0))


@pytest.mark.parametrize(
    "name, factor",
    [("angle", 1), ("theta", 1), ("rotation_deg", 1), ("angle_rad", math.pi / 180),
     ("theta (radians)", math.pi / 180)],
)  # fmt: skip
def test_rotated_boxes(tmp_path, objects, name, factor):
    boxes = [(30, 24, 20, 8, 90), (32, 20, 16, 10, 30), (32, 20, 16, 10, -45), (30, 24, 20, 8, 0)]
    keys = ("CX", "CY", "W", "H", "A")
    rows = [dict(zip(keys, (*box[:4], box[4] * factor), strict=True)) for box in boxes]
    root = write(tmp_path, f"x_center=CX,y_center=CY,width=W,height=H,{name}=A", rows)
    for one, other in zip(objects(root), boxes, strict=True):
        assert one == pytest.approx(around(*other), abs=1e-4)
    assert reasons(read(csv_tables.find, root))[ROTATED] == 3


@pytest.mark.parametrize(
    "columns, message",
    [
        ("cx=CX,cy=CY,w=W,h=H,theta=1.5", "angles up to 1.5 in 'theta', which may be degrees or"),
        ("x=L,y=T,w=W,h=H,angle=45", "has angles in 'angle', but not the centres of the boxes"),
        (
            "xmin=L,ymin=T,xmax=R,ymax=B,rotation=30",
            "or rename 'rotation' if the boxes are",
        ),
        ("cx=CX,cy=CY,w=W,h=H,angle_deg=x,label=cat", None),
    ],
)
def test_rotations_that_are_unclear_are_an_error(tmp_path, columns, message):
    root = write(tmp_path, columns)
    if message is None:  # no angle at all
        assert [o.box for o in read(csv_tables.find, root).images[0].objects] == BOXES
        return
    with pytest.raises(DataError) as error:
        read(csv_tables.find, root)
    assert message in str(error.value)


def test_an_angle_that_is_no_number_is_an_error_of_its_row(tmp_path):
    rows = [values(*BOXES[0]) | {"A": 45}, values(*BOXES[1]) | {"A": "x"}]
    root = write(tmp_path, "cx=CX,cy=CY,w=W,h=H,angle=A", rows)
    with pytest.raises(DataError, match=r"line 3: the angle is 'x'; write a number"):
        read(csv_tables.find, root)


@pytest.mark.parametrize(
    "header, cell",
    [
        ("bbox_xyxy", '"[4, 6, 24, 18]"'),
        ("bbox_xywh", "4 6 20 12"),
        ("bbox_ltrb", '"(4, 6, 24, 18)"'),
        ("bbox_cxcywh", '"14,12,20,12"'),
        ("bbox", "\"{'x': 4, 'y': 6, 'width': 20, 'height': 12}\""),
        ("bbox", '"{""xmin"": 4, ""ymin"": 6, ""xmax"": 24, ""ymax"": 18}"'),
        ("bbox", "\"{'x1': 4, 'x2': 24, 'y1': 6, 'y2': 18.0, 'label': 'cat'}\""),
        ("bbox", "\"{'left': 4, 'top': 6, 'width': 20, 'height': 12, 'rotation': 0}\""),
    ],
)
def test_a_box_in_one_cell(tmp_path, objects, header, cell):
    write(tmp_path, "label=cat")
    (tmp_path / "train.csv").write_text(f"filename,label,{header}\na.png,cat,{cell}\n")
    assert objects(tmp_path) == [(4, 6, 20, 12)]


@pytest.mark.parametrize(
    "cell", ["{'x': 4, 'y': 6}", "{'x': 4", "{}", "{'x': 4, 'y': 6, 'w': 20, 'h': None}",
             "{'x': 4, 'y': 6, 'w': 20, 'h': 12, 'angle': 30}", "{4, 6, 20, 12}"]
)  # fmt: skip
def test_other_content_of_a_cell_is_an_error(tmp_path, cell):
    write(tmp_path, "label=cat")
    (tmp_path / "train.csv").write_text(f'filename,bbox\na.png,"{cell}"\n')
    with pytest.raises(DataError, match="line 2: the box is"):
        read(csv_tables.find, tmp_path)


def test_rows_of_a_class_without_boxes_are_images_without_objects(tmp_path):
    """VinBigData's 'No finding'; a class that has boxes elsewhere lacks one."""
    header = "image_id,class_name,class_id,x_min,y_min,x_max,y_max\n"
    rows = "a,No finding,14,,,,\na,No finding,14,nan,NaN,,\nb,cat,0,4,6,24,18\n"
    for name in ("a.png", "b.png"):
        write_image(tmp_path, Annotated(name, WIDTH, HEIGHT))
    (tmp_path / "train.csv").write_text(header + rows)
    content = read(csv_tables.find, tmp_path)
    assert [[o.class_name for o in image.objects] for image in content.images] == [[], ["cat"]]
    assert reasons(content) == {csv_tables.EMPTY_BOX: 2}
    (tmp_path / "train.csv").write_text(f"{header}{rows}a,cat,0,,,,\n")
    with pytest.raises(DataError, match="line 5: has no box for the class 'cat', which has boxes"):
        read(csv_tables.find, tmp_path)


@pytest.mark.parametrize(
    "header", ["image_width,image_height,x,y", "x,y", "x_norm,y,w,h", "x,ymin,w,height", "w,h", ""]
)
def test_headers_without_a_box(header):
    assert find_box(header.split(",")) is None
