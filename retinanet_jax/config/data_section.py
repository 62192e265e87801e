"""The section `data` of the configuration."""

import dataclasses

from retinanet_jax.core.field_checks import above_zero_or_none, one_of
from retinanet_jax.data.shapes import Difficulty, check_sizes
from retinanet_jax.data.splits import KINDS, parse_part
from retinanet_jax.data.tiled_source import OVERLAP, check_tile
from retinanet_jax.runtime.user_folders import CACHE


@dataclasses.dataclass(frozen=True)
class ShapesConfig(Difficulty):
    """The built-in dataset, data.name 'shapes'; for its difficulty, see data/shapes.py.

    Attributes:
        image_size: height and width in pixels.
        num_train: number of images in the split 'train'.
        num_eval: number of images in the split 'validation', drawn from another random stream.
        seed: seed of the drawings; independent of the training seed.
    """

    image_size: tuple[int, int] = (128, 128)
    num_train: int = 20_000
    num_eval: int = 200
    seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        for field in ("num_train", "num_eval"):
            if getattr(self, field) < 1:
                raise ValueError(f"data.shapes.{field}: {getattr(self, field)} must be at least 1")
        check_sizes(self.image_size, self)
        if self.seed < 0:
            raise ValueError(f"data.shapes.seed: {self.seed} must be at least 0")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The images to train and evaluate on, and how to handle errors in them.

    Attributes:
        name: 'shapes' (built in), 'folder' (images and annotations in any layout of
            docs/your_data.md), 'coco' (TFDS coco/2017), 'coco2014', 'voc' (2007+2012), 'voc2007'
            or 'voc2012'. For their splits, see data/dataset.py.
        root: for folder, the dataset's folder or annotation file; for coco and voc, the TFDS data
            directory, where '' means ~/tensorflow_datasets.
        layout: layout of a folder: 'auto', or a name in formats/find_layout.py if several fit.
        val_share: fraction of the training images to hold out, chosen by a hash of their file
            names, if a folder has no validation or test split. 0 holds out none.
        exif: how the boxes of a folder refer to images with an EXIF orientation: 'stored', 'shown'
            (rotated, as viewers show them), or 'auto', which decides for each image by the
            annotated size and boxes.
        cache_dir: folder for the index of a folder, compiled programs and weights. The default
            stands for $RETINANET_JAX_CACHE, or retinanet_jax in $XDG_CACHE_HOME or ~/.cache.
        train_split: split to train on, or a slice of one, such as 'train' or 'train[:90%]'.
        eval_split: split to evaluate on, or a slice of one. For a folder, also 'auto': its
            validation or test split.
        annotations: official annotation file (COCO instances JSON) to evaluate against. '' uses the
            folder's own annotations, and for coco rebuilds them from TFDS (see data/dataset.py).
        classes: names of the classes to use in all splits; other classes are left out, and
            NAME=TARGET merges a class into another or a new one: ('car', 'van=car'). () uses all
            classes (see data/class_selection.py).
        mix: further datasets to train on, each written KIND:ROOT:SPLIT or KIND:ROOT:SPLIT*N, where
            KIND is a value of `name`. Their images appear N times per epoch, and their categories
            are matched by name with those of train_split (see data/mix.py).
        repeat_threshold: t of repeat-factor sampling (LVIS, arXiv 1908.03195). If a class appears
            in less than this share of the training images, its images appear sqrt(t / share) times
            per epoch. LVIS: 0.001. 'none': each image appears once.
        tile: side in pixels of the square tiles into which large images are cut. Each tile is a
            training example; evaluation detects in the tiles and in the whole image, and merges
            the detections (data/tiled_source.py, inference/tiles.py). 'none': whole images.
        tile_overlap: overlap of neighbouring tiles, as a fraction of their side.
        on_error: 'strict' stops with a list of all invalid images and annotations; 'skip' leaves
            them out, and logs which and how many, at the start and at the end.
    """

    name: str = "shapes"
    root: str = ""
    layout: str = "auto"
    val_share: float = 0.1
    exif: str = "auto"
    cache_dir: str = CACHE
    train_split: str = "train"
    eval_split: str = "validation"
    annotations: str = ""
    classes: tuple[str, ...] = ()
    mix: tuple[str, ...] = ()
    repeat_threshold: float | None = None
    tile: int | None = None
    tile_overlap: float = OVERLAP
    on_error: str = "strict"
    shapes: ShapesConfig = ShapesConfig()

    def __post_init__(self):
        one_of("data.name", self.name, tuple(KINDS))
        one_of("data.on_error", self.on_error, ("strict", "skip"))
        one_of("data.exif", self.exif, ("auto", "stored", "shown"))
        if not 0 <= self.val_share <= 0.5:
            raise ValueError(f"data.val_share: {self.val_share} must be between 0 and 0.5")
        for text in self.mix:
            parse_part(text)
        above_zero_or_none(self, "data", "repeat_threshold")
        if self.repeat_threshold is not None and self.repeat_threshold > 1:
            raise ValueError(
                f"data.repeat_threshold: {self.repeat_threshold} must be a fraction of the images "
                "between 0 and 1, such as 0.01"
            )
        check_tile(self.tile, self.tile_overlap, "data.tile", "data.tile_overlap")
        if self.annotations and self.name.startswith(("voc", "shapes")):
            raise ValueError(
                f"data.annotations: not supported for {self.name}, which is evaluated with its own "
                "annotations; leave it empty"
            )
        if self.name == "folder" and not self.root:
            raise ValueError(
                "data.root: is empty; set --config.data.root=FOLDER to the folder of your images "
                "and annotations"
            )
