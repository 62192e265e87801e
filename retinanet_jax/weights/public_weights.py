"""Public weights by name: ImageNet backbones and RetinaNets of COCO.

Addresses, hashes, sizes and licences come from the projects' sources, read in November 2026:
torchvision (models/resnet.py, models/detection/retinanet.py), timm (timm/models/resnet.py),
detectron2 (MODEL_ZOO.md, model_zoo/model_zoo.py, checkpoint/catalog.py) and MMDetection
(configs/retinanet/README.md, tools/model_converters/publish_model.py). Licences of the data that
they were trained on, ImageNet and COCO, apply besides.
"""

import difflib
from typing import NamedTuple

from retinanet_jax.core.resnet import ARCHITECTURES
from retinanet_jax.core.retinanet import ModelConfig
from retinanet_jax.weights.weights_error import WeightsError


class PublicWeights(NamedTuple):
    """One file of public weights.

    Attributes:
        name: such as 'torchvision/retinanet_resnet50_fpn_v2'.
        url: address where the project publishes the file.
        sha256: the first digits of its hash, in the file's name; '' where the project gives none.
        mib: published size in MiB, to 3 digits; 0 if the project publishes none.
        license: SPDX identifier.
        recipe: recipe of a detector in retinanet_jax.config.recipes; '' for a backbone.
        pixels: the order of the colors that it expects, 'rgb' or 'bgr'.
    """

    name: str
    url: str
    sha256: str
    mib: float
    license: str
    recipe: str
    pixels: str

    @property
    def file_name(self) -> str:
        """Its name in the cache; unique."""
        return self.url.rsplit("/", 1)[-1]


def find_weights(name: str) -> PublicWeights | None:
    """The weights of a name; None for any other text, such as a path."""
    return PUBLIC_WEIGHTS.get(name)


def check_name(name: str) -> None:
    """Raises WeightsError for a name that looks like public weights and is none of them."""
    if name.split("/")[0] in PROJECTS and name.count("/") == 1 and name not in PUBLIC_WEIGHTS:
        near = difflib.get_close_matches(name, PUBLIC_WEIGHTS, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise WeightsError(
            f"{name}: no such public weights{hint}; `retinanet-jax weights` lists all names"
        )


def imagenet_weights(choice: str, model: ModelConfig) -> PublicWeights:
    """ImageNet weights of a backbone.

    Args:
        choice: 'imagenet' for those that the published detectors start from: torchvision's V1
            (timm's Gluon for resnext101_32x4d), or MSRA's for strides on the 1x1 convolutions.
            'imagenet_v2' for torchvision's V2, of a longer training.
        model: backbone and stride_on are read.

    Raises:
        WeightsError: there are none of this backbone.
    """
    backbone = model.backbone
    if model.stride_on == "1x1" and ARCHITECTURES[backbone].bottleneck:
        name = {"resnet50": "detectron2/MSRA_R-50", "resnet101": "detectron2/MSRA_R-101"}
        found = name.get(backbone) if choice == "imagenet" else None
    elif choice == "imagenet" and backbone == "resnext101_32x4d":
        found = "timm/resnext101_32x4d.gluon_in1k"
    else:
        found = f"torchvision/{backbone}.imagenet1k_{'v2' if choice == 'imagenet_v2' else 'v1'}"
    if found not in PUBLIC_WEIGHTS:
        raise WeightsError(
            f"config.model.pretrained: {choice!r}: no such weights of {backbone} with "
            f"config.model.stride_on={model.stride_on!r}; `retinanet-jax weights` lists all names"
        )
    return PUBLIC_WEIGHTS[found]


def _hash_of(url: str) -> str:
    # torch.hub's convention, which timm and MMDetection follow.
    return url.rsplit("-", 1)[1].split(".")[0]


def _torchvision() -> list[PublicWeights]:
    host = "https://download.pytorch.org/models"
    backbones = {
        "resnet18.imagenet1k_v1": ("resnet18-f37072fd", 44.661),
        "resnet34.imagenet1k_v1": ("resnet34-b627a593", 83.275),
        "resnet50.imagenet1k_v1": ("resnet50-0676ba61", 97.781),
        "resnet50.imagenet1k_v2": ("resnet50-11ad3fa6", 97.79),
        "resnet101.imagenet1k_v1": ("resnet101-63fe2227", 170.511),
        "resnet101.imagenet1k_v2": ("resnet101-cd907fc2", 170.53),
        "resnet152.imagenet1k_v1": ("resnet152-394f9c45", 230.434),
        "resnet152.imagenet1k_v2": ("resnet152-f82ba261", 230.474),
        "resnext50_32x4d.imagenet1k_v1": ("resnext50_32x4d-7cdf4587", 95.789),
        "resnext50_32x4d.imagenet1k_v2": ("resnext50_32x4d-1a0047aa", 95.833),
        "resnext101_32x8d.imagenet1k_v1": ("resnext101_32x8d-8ba56ff5", 339.586),
        "resnext101_32x8d.imagenet1k_v2": ("resnext101_32x8d-110c445d", 339.673),
        "resnext101_64x4d.imagenet1k_v1": ("resnext101_64x4d-173b62eb", 319.318),
    }
    detectors = {
        "retinanet_resnet50_fpn": (
            "retinanet_resnet50_fpn_coco-eeacb38b",
            130.267,
            "torchvision_v1_coco",
        ),
        "retinanet_resnet50_fpn_v2": (
            "retinanet_resnet50_fpn_v2_coco-5905b1c5",
            146.037,
            "torchvision_v2",
        ),
    }
    rows = {name: (*row, "") for name, row in backbones.items()} | detectors
    return [
        PublicWeights(
            f"torchvision/{name}",
            f"{host}/{file}.pth",
            _hash_of(file),
            mib,
            "BSD-3-Clause",
            recipe,
            "rgb",
        )
        for name, (file, mib, recipe) in rows.items()
    ]


def _timm() -> list[PublicWeights]:
    # "ResNet strikes back" (arXiv 2110.00476): a1 600 epochs, a2 300, a3 100.
    releases = "https://github.com/huggingface/pytorch-image-models/releases/download"
    rsb = f"{releases}/v0.1-rsb-weights"
    gluon = "https://github.com/rwightman/pytorch-pretrained-gluonresnet/releases/download/v0.1"
    files = {
        "resnet18.a1_in1k": f"{rsb}/resnet18_a1_0-d63eafa0.pth",
        "resnet18.a2_in1k": f"{rsb}/resnet18_a2_0-b61bd467.pth",
        "resnet18.a3_in1k": f"{rsb}/resnet18_a3_0-40c531c8.pth",
        "resnet34.a1_in1k": f"{rsb}/resnet34_a1_0-46f8f793.pth",
        "resnet34.a2_in1k": f"{rsb}/resnet34_a2_0-82d47d71.pth",
        "resnet34.a3_in1k": f"{rsb}/resnet34_a3_0-a20cabb6.pth",
        "resnet50.a1_in1k": f"{rsb}/resnet50_a1_0-14fe96d1.pth",
        "resnet50.a2_in1k": f"{rsb}/resnet50_a2_0-a2746f79.pth",
        "resnet50.a3_in1k": f"{rsb}/resnet50_a3_0-59cae1ef.pth",
        "resnet101.a1_in1k": f"{rsb}/resnet101_a1_0-cdcb52a9.pth",
        "resnet101.a2_in1k": f"{rsb}/resnet101_a2_0-6edb36c7.pth",
        "resnet101.a3_in1k": f"{rsb}/resnet101_a3_0-1db14157.pth",
        "resnet152.a1_in1k": f"{rsb}/resnet152_a1_0-2eee8a7a.pth",
        "resnet152.a2_in1k": f"{rsb}/resnet152_a2_0-b4c6978f.pth",
        "resnet152.a3_in1k": f"{rsb}/resnet152_a3_0-134d4688.pth",
        "resnext50_32x4d.a1_in1k": f"{rsb}/resnext50_32x4d_a1_0-b5a91a1d.pth",
        "resnext50_32x4d.a2_in1k": f"{rsb}/resnext50_32x4d_a2_0-efc76add.pth",
        "resnext50_32x4d.a3_in1k": f"{rsb}/resnext50_32x4d_a3_0-3e450271.pth",
        "resnext101_64x4d.c1_in1k": f"{releases}/v0.1-tpu-weights/resnext101_64x4d_c-0d0e0cc0.pth",
        "resnext101_32x4d.gluon_in1k": f"{gluon}/gluon_resnext101_32x4d-b253c8c4.pth",
        "resnext101_64x4d.gluon_in1k": f"{gluon}/gluon_resnext101_64x4d-f9a8e184.pth",
    }
    return [
        PublicWeights(f"timm/{name}", url, _hash_of(url), 0, "Apache-2.0", "", "rgb")
        for name, url in files.items()
    ]


def _detectron2() -> list[PublicWeights]:
    host = "https://dl.fbaipublicfiles.com/detectron2"
    backbones = {name: f"{host}/ImageNetPretrained/MSRA/{name}.pkl" for name in ("R-50", "R-101")}
    detectors = {
        "retinanet_R_50_FPN_1x": "190397773/model_final_bfca0b.pkl",
        "retinanet_R_50_FPN_3x": "190397829/model_final_5bd44e.pkl",
        "retinanet_R_101_FPN_3x": "190397697/model_final_971ab9.pkl",
    }
    rows = [(f"MSRA_{name}", url, "") for name, url in backbones.items()]
    rows += [
        (name, f"{host}/COCO-Detection/{name}/{file}", "detectron2")
        for name, file in detectors.items()
    ]
    return [
        PublicWeights(f"detectron2/{name}", url, "", 0, "CC-BY-SA-3.0", recipe, "bgr")
        for name, url, recipe in rows
    ]


def _mmdetection() -> list[PublicWeights]:
    host = "https://download.openmmlab.com/mmdetection/v2.0"
    versions = {
        "retinanet_r18_fpn_1x_coco": "20220407_171055-614fd399",
        "retinanet_r18_fpn_1x8_1x_coco": "20220407_171255-4ea310d7",
        "retinanet_r50_caffe_fpn_1x_coco": "20200531-f11027c5",
        "retinanet_r50_fpn_1x_coco": "20200130-c2398f9e",
        "retinanet_r50_fpn_fp16_1x_coco": "20200702-0dbfb212",
        "retinanet_r50_fpn_2x_coco": "20200131-fdb43119",
        "retinanet_r50_fpn_mstrain_3x_coco": "20210718_220633-88476508",
        "retinanet_r101_caffe_fpn_1x_coco": "20200531-b428fa0f",
        "retinanet_r101_caffe_fpn_mstrain_3x_coco": "20210721_063439-88a8a944",
        "retinanet_r101_fpn_1x_coco": "20200130-7a93545f",
        "retinanet_r101_fpn_2x_coco": "20200131-5560aee8",
        "retinanet_r101_fpn_mstrain_3x_coco": "20210720_214650-7ee888e0",
        "retinanet_x101_32x4d_fpn_1x_coco": "20200130-5c8b7ec4",
        "retinanet_x101_32x4d_fpn_2x_coco": "20200131-237fc5e1",
        "retinanet_x101_64x4d_fpn_1x_coco": "20200130-366f5af1",
        "retinanet_x101_64x4d_fpn_2x_coco": "20200131-bca068ab",
        "retinanet_x101_64x4d_fpn_mstrain_3x_coco": "20210719_051838-022c2187",
    }
    found = []
    for name, version in versions.items():
        folder = "fp16" if "fp16" in name else "retinanet"
        url = f"{host}/{folder}/{name}/{name}_{version}.pth"
        recipe, pixels = ("mmdetection_caffe", "bgr") if "caffe" in name else ("mmdetection", "rgb")
        row = (f"mmdetection/{name}", url, _hash_of(url), 0, "Apache-2.0", recipe, pixels)
        found.append(PublicWeights(*row))
    return found


PUBLIC_WEIGHTS = {
    weights.name: weights
    for weights in (*_torchvision(), *_timm(), *_detectron2(), *_mmdetection())
}
PROJECTS = ("torchvision", "timm", "detectron2", "mmdetection")
