"""Ground truth and detections at random, in COCO's formats, for tests of what scores them."""

import numpy as np

from retinanet_jax.data.records import Categories

CATEGORIES = Categories(("cat", "dog", "car", "bus", "cup"), (1, 3, 4, 7, 9))
SUPERCATEGORIES = ("animal", "animal", "vehicle", "vehicle", "cup")


def random_truth(seed=0, images=12, crowd=0.1):
    """COCO's instances JSON: objects of all sizes, crowds, images without any; no bus."""
    rng = np.random.default_rng(seed)
    annotations = []
    for image in range(1, images + 1):
        for _ in range(rng.integers(0, 9)):
            sides = rng.choice([16, 60, 150]) * rng.uniform(0.7, 1.4, 2)
            box = [*rng.uniform(0, 250, 2), *sides]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(rng.choice([1, 3, 4, 9])),
                    "bbox": [float(value) for value in box],
                    "area": float(sides.prod() * rng.uniform(0.5, 1)),
                    "iscrowd": int(rng.random() < crowd),
                }
            )
    names = zip(CATEGORIES.ids, CATEGORIES.names, SUPERCATEGORIES, strict=True)
    return {
        "images": [{"id": i, "width": 400, "height": 400} for i in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": i, "name": n, "supercategory": s} for i, n, s in names],
    }


def random_results(truth, seed=0):
    """Detections near the objects, some of another class, doubled, or of nothing; equal scores."""
    rng = np.random.default_rng(seed)
    wrong = [1, 3, 4, 7]
    near = [a for a in truth["annotations"] for _ in range(rng.integers(0, 4))]
    results = [
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"] if rng.random() < 0.7 else int(rng.choice(wrong)),
            "bbox": (np.array(a["bbox"]) + rng.normal(0, 0.1, 4) * np.sqrt(a["area"])).tolist(),
            "score": float(rng.choice(np.linspace(0.05, 0.95, 19))),
        }
        for a in near
    ]
    for result in results:
        result["bbox"][2:] = [max(side, 1.0) for side in result["bbox"][2:]]
    results += [
        {**result, "bbox": [float(v) for v in rng.uniform(5, 300, 4)], "score": float(rng.random())}
        for result in results[::3]
    ]
    return results


def perfect_results(truth, score=1.0):
    """A detection on every object that is no crowd."""
    return [
        {key: a[key] for key in ("image_id", "category_id", "bbox")} | {"score": score}
        for a in truth["annotations"]
        if not a["iscrowd"]
    ]
