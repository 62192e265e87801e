"""The error for a folder that no layout fits."""

import collections
import json
import re
from pathlib import Path

from retinanet_jax.data.annotations.annotation_fields import short
from retinanet_jax.data.annotations.file_names import ARCHIVE_SUFFIXES
from retinanet_jax.data.annotations.folder_files import (
    Listing,
    annotation_folders,
    list_folder,
    read_head,
    relative_name,
    suffix_of,
    text_encoding,
    walk,
)
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.image_headers import IMAGE_SUFFIXES
from retinanet_jax.data.record_files import without_shard
from retinanet_jax.runtime.wording import counted

_UNDERSTOOD = """\
  coco         annotations/instances_<split>.json, <split>/_annotations.coco.json (Roboflow),
               result.json + images/ (Label Studio), labels.json + data/ (FiftyOne), any COCO file
  yolo         data.yaml, or images/ + labels/
  voc          Annotations/ + JPEGImages/, or XML beside the images
  labelme      one JSON file per image
  supervisely  meta.json, and img/ + ann/ in each dataset
  via          VGG Image Annotator's JSON or CSV
  createml     CreateML's JSON
  bdd100k      Scalabel's JSON, such as BDD100K's labels/det_20/det_train.json
  label_studio Label Studio's JSON
  labelbox     Labelbox's export as NDJSON or JSON
  darwin       V7's Darwin JSON: annotations/ or releases/ beside images/
  cvat         CVAT's annotations.xml ('CVAT for images', 'CVAT for video')
  datumaro     Datumaro's JSON: annotations/<subset>.json + images/<subset>
  kitti        label_2/ + image_2/
  visdrone     VisDrone2019-DET-train/ with annotations/ + images/
  dota         labelTxt/ + images/, annfiles/ + images/ (MMRotate)
  widerface    wider_face_split/wider_face_train_bbx_gt.txt + WIDER_train/
  csv          a CSV file with columns for file, box and class
  imagefolder  metadata.jsonl or metadata.csv beside the images (Hugging Face)
  tfrecord     train.tfrecord or train.record with images and boxes (TensorFlow, Roboflow)
  image_list   text files with a line 'image x1,y1,x2,y2,class ...' for each image (keras-yolo3)
  sagemaker    output.manifest of SageMaker Ground Truth, manifests of Rekognition
  mot          <sequence>/ with gt/gt.txt and img1/ (MOTChallenge, CVAT's MOT 1.1)
  oidv4        <split>/<class>/ with images and Label/ (OIDv4_ToolKit)
  crowdhuman   annotation_train.odgt + Images/ (CrowdHuman)
  vott         VoTT's NAME-export.json or <id>-asset.json
  cloud_jsonl  JSON lines of Azure ML or Vertex AI
  gtsdb        gt.txt + 00000.ppm (GTSDB)"""
_SHOWN, _FILES, _HEAD = 8, 3, 1 << 16
_UNPACK = ("archives", "extract them and set data.root to that folder")
# Files of formats that are not read, and how to read their content.
_OTHER_FORMATS = {
    **dict.fromkeys(ARCHIVE_SUFFIXES, _UNPACK),
    ".parquet": (
        "Parquet files, as on the Hugging Face hub",
        "read them with retinanet_jax.data.from_huggingface, or save them as an imagefolder",
    ),
    ".arrow": (
        "files of the datasets library",
        "read them with retinanet_jax.data.from_huggingface, or save them as an imagefolder",
    ),
    ".tfrecord": (
        "TFRecord files of TensorFlow Datasets",
        "convert the folder of dataset_info.json: retinanet-jax prepare --convert=FOLDER "
        "--data_dir=NEW",
    ),
    ".mp4": ("videos", "extract their frames and export the annotations of the frames as COCO"),
}


def unrecognized(root: Path, what: str) -> DataError:
    """Returns the error for a folder or file: what is there, and why no layout fits.

    Args:
      what: beginning of the message, which says that no layout fits.
    """
    folders, kinds, first = _content(root)
    for suffix, (kind, fix) in _OTHER_FORMATS.items():
        if suffix in first:
            what += f"; {kind} such as {first[suffix]} are not read"
            return DataError("layout", root, "", what, fix)
    if root.is_dir() and set(kinds) <= IMAGE_SUFFIXES:
        if not kinds:
            return DataError("layout", root, "", "has no files", "name the folder of your images")
        verb = "is" if kinds.total() == 1 else "are"
        what = f"there {verb} {counted(kinds.total(), 'image')} but no annotations"
        return DataError("layout", root, "", what, "add the files from the annotation tool")
    fix = f"arrange it as one of these, or set data.layout:\n{_UNDERSTOOD}"
    named = ", ".join(f"{name}/" for name in folders) or "no folders"
    by_number = sorted(kinds.items(), key=lambda pair: (-pair[1], pair[0]))[:_SHOWN]
    listed = ", ".join(f"{n} x {kind}" for kind, n in by_number) or "no files"
    there = "it is a single file" if root.is_file() else f"there are {named} and {listed}"
    looked_at = [f"{relative_name(path, root)} {_state(path)}" for path in _annotations(root)]
    return DataError("layout", root, "", "; ".join([what, there, *looked_at]), fix)


def _content(root: Path) -> tuple[list[str], collections.Counter[str], dict[str, str]]:
    """The first few folders; by their suffix, the number of files and the first one."""
    listings = [Listing(str(root.parent), [], [root.name])] if root.is_file() else walk(root)
    folders, kinds, first = [], collections.Counter(), {}
    for listing in listings:
        folders += listing.folders
        for name in listing.files:
            kind = suffix_of(without_shard(name)) or "no suffix"
            kinds[kind] += 1
            first.setdefault(kind, name)
        if len(folders) > _SHOWN:
            break
    return folders[:_SHOWN], kinds, first


def _annotations(root: Path) -> list[Path]:
    """The first few files that may be annotations."""
    if root.is_file():
        return [root] if suffix_of(root.name) in _STATES else []
    folders = [root, *annotation_folders(root)]
    found = [f / name for f in folders for name in list_folder(f).with_suffix(*_STATES)]
    return found[:_FILES]


def _state(path: Path) -> str:
    """What a file has, in which no layout was recognized."""
    head = read_head(path, _HEAD)
    text = head.decode(text_encoding(head), "replace").strip()
    return _STATES[suffix_of(path.name)](text) if text else "is empty"


def _json_state(text: str) -> str:
    """By the keys of an object, or the first entry of a list."""
    what = "is a list of entries with the keys" if text.startswith("[") else "has the keys"
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):  # not JSON, or longer than the head of the file
        keys = re.findall(r'"([^"]{1,40})"\s*:', text)
    else:
        first = content[0] if isinstance(content, list) and content else content
        keys = [key[:40] for key in first] if isinstance(first, dict) else []
    if not keys:
        return f"begins with {short(text)}"
    return f"{what} {', '.join(keys[:_SHOWN])}{', ...' if len(keys) > _SHOWN else ''}"


def _table_state(text: str) -> str:
    return f"begins with {short(text.splitlines()[0])}, without known columns for file and box"


def _xml_state(text: str) -> str:
    tags = re.findall(r"<(\w+)", text)
    return f"begins with <{tags[0]}>" if tags else f"begins with {short(text)}"


_STATES = {
    ".json": _json_state,
    ".jsonl": _json_state,
    ".manifest": _json_state,
    ".ndjson": _json_state,
    ".csv": _table_state,
    ".tsv": _table_state,
    ".xml": _xml_state,
}
