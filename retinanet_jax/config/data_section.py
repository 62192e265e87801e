"""The section `data` of the configuration."""

import dataclasses

from retinanet_jax.config.field_checks import above_zero_or_none, one_of
from retinanet_jax.data.shapes import Difficulty, check_sizes
from retinanet_jax.data.splits import KINDS, parse_part
from retinanet_jax.data.tiled_source import OVERLAP, check_tile
from retinanet_jax.runtime.user_folders import CACHE


@dataclasses.dataclass(frozen=True)
class ShapesConfig(Difficulty):
    """The built-in dataset (data name 'shapes'); how hard it is: see Difficulty, data/shapes.py.

    Attributes:
        image_size: height and width in pixels.
        num_train: images of the split 'train'.
        num_eval: images of the split 'validation', drawn from another random stream.
        seed: of the drawing; independent of the seed of training.
    """

    image_size: tuple[int, int] = (128, 128)
    num_train: int = 20_000
    num_eval: int = 200
    seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        for field in ("num_train", "num_eval"):
            if getattr(self, field) < 1:
                raise ValueError(f"data.shapes.{field}: {getattr(self, field)} is not 1 or more")
        check_sizes(self.image_size, self)
        if self.seed < 0:
            raise ValueError(f"data.shapes.seed: {self.seed} is not 0 or more")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, and how strict to be with them.

    Attributes:
        name: 'shapes' (built in), 'folder' (images and annotations in any layout of
            docs/your_data.md), 'coco' (TFDS coco/2017), 'coco2014', 'voc' (2007+2012), 'voc2007'
            or 'voc2012'; their splits: see data/dataset.py.
        root: folder: the dataset's folder or annotation file; coco and voc: the TFDS data
            directory, '' being ~/tensorflow_datasets.
        layout: of a folder: 'auto', or one of formats/find_layout.py where several fit.
        val_share: of the training images, held out by a hash of their file names where a folder
            has no validation or test split; 0 is none.
        exif: how boxes of a folder refer to images with an EXIF orientation: 'stored', 'shown'
            (turned, as viewers show them), or 'auto' by annotated size and boxes, image by image.
        cache_dir: where the index of a folder, compiled programs and weights are kept. The default
            stands for $RETINANET_JAX_CACHE, or retinanet_jax in $XDG_CACHE_HOME or ~/.cache.
        train_split: split or slice of one, such as 'train' or 'train[:90%]'.
        eval_split: likewise; of a folder also 'auto', its validation or test split.
        annotations: official annotation file (COCO instances JSON) to evaluate against; '' takes
            the folder's own, and for coco rebuilds it from TFDS (see data/dataset.py).
        classes: of all splits, by name; others are left out, and NAME=TARGET merges a class into
            another or a new one: ('car', 'van=car'). (): all (see data/class_selection.py).
        mix: further datasets to train on, each as KIND:ROOT:SPLIT or KIND:ROOT:SPLIT*N, KIND being
            a `name`; their images come N times an epoch, their categories are found by name among
            those of train_split (see data/mix.py).
        repeat_threshold: t of repeat-factor sampling (LVIS, arXiv 1908.03195): training images of
            a class that less than this share of the images has come more often, sqrt(t / share)
            times an epoch. LVIS: 0.001. 'none': each image once.
        tile: side in pixels of square tiles that large images are cut into, an example each for
            training; evaluations then detect in the tiles and the whole image, and merge
            (data/tiled_source.py, inference/tiles.py). 'none': whole images.
        tile_overlap: of neighbouring tiles, as a share of their side.
        on_error: 'strict' stops with a list of all bad images and annotations; 'skip' leaves them
            out, and says which and how many, at the start and at the end.
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
                f"data.repeat_threshold: {self.repeat_threshold} must be a share of the images, "
                "at most 1, such as 0.01"
            )
        check_tile(self.tile, self.tile_overlap, "data.tile", "data.tile_overlap")
        if self.annotations and self.name.startswith(("voc", "shapes")):
            raise ValueError(
                f"data.annotations: not supported for {self.name}, which is evaluated on its own "
                "annotations; leave it empty"
            )
        if self.name == "folder" and not self.root:
            raise ValueError(
                "data.root: is empty; write --config.data.root=FOLDER, a folder with images and "
                "their annotations"
            )
