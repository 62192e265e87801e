"""The whole network: counts, orders, what trains, imports.

torchvision's numbers: test_golden_detector.py and test_golden_training.py.
"""

import functools
import itertools
import json

import cv2
import golden_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retinanet_jax.core.fpn import FPN, upsample_to
from retinanet_jax.core.heads import Head
from retinanet_jax.core.layers import PixelConfig, normalize
from retinanet_jax.core.retinanet import ModelConfig, build_model, trainable_mask
from retinanet_jax.weights import WeightsError, backbone_from_torchvision, detector_from_torchvision

V1 = ModelConfig(extra_levels_from="fpn", relu_before_p7=True)
V2 = ModelConfig(norm="batch", frozen_stages=0, head_norm="group")
SMALL = {"backbone": "resnet18", "fpn_channels": 32, "head_channels": 32, "head_depth": 1}


def num_params(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def small_model(num_classes=3, image_shape=(2, 70, 90, 3), **options):
    """(model, images, variables) of a light detector with random variables."""
    model = build_model(ModelConfig(**(SMALL | options)), num_classes, 9)
    images = jnp.asarray(np.random.default_rng(0).standard_normal(image_shape), jnp.float32)
    return model, images, golden_models.random_variables(model)


def predict(model, variables, images):
    return jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)


# --- orders and shapes


@pytest.mark.parametrize(
    ("config", "num_classes", "wanted"),
    [(ModelConfig(), 80, 37_968_692), (V1, 91, 34_014_999), (V2, 91, 38_198_935)],
)
def test_parameter_counts(config, num_classes, wanted):
    params = golden_models.empty_variables(build_model(config, num_classes, 9))["params"]
    buffers = 0
    if config is V1:  # torchvision's frozen batch norm keeps its affine in buffers
        is_norm = jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf.size * (path[-1].key != "kernel"), params["backbone"]
        )
        buffers = sum(jax.tree.leaves(is_norm))
    assert num_params(params) - buffers == wanted


def test_upsampling_reads_the_rows_of_nearest_interpolation():
    for new_h, new_w in ((1, 1), (2, 3), (5, 4), (13, 8), (25, 26), (100, 167), (75, 1)):
        h, w = -(-new_h // 2), -(-new_w // 2)
        x = np.arange(h * w, dtype=np.float32).reshape(1, h, w, 1)
        rows = np.floor(np.arange(new_h) * (h / new_h)).astype(int)
        columns = np.floor(np.arange(new_w) * (w / new_w)).astype(int)
        wanted = x[:, rows][:, :, columns]
        np.testing.assert_array_equal(upsample_to(jnp.asarray(x), (new_h, new_w)), wanted)
    with pytest.raises(ValueError, match=r"\(8, 5\) is not twice \(3, 3\)"):
        upsample_to(jnp.zeros((1, 3, 3, 1)), (8, 5))


def test_outputs_are_in_the_order_height_width_anchor_value():
    head = Head(anchors_per_location=2, values_per_anchor=3, depth=0)
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)  # the position h * 3 + w
    kernel = np.zeros((3, 3, 1, 6), np.float32)
    kernel[1, 1] = 100
    output = {"kernel": jnp.asarray(kernel), "bias": jnp.arange(6.0)}
    y = head.apply({"params": {"output": output}}, x)[0]
    for position, anchor in itertools.product(range(6), range(2)):
        wanted = 100 * position + 3 * anchor + np.arange(3)
        np.testing.assert_array_equal(y[2 * position + anchor], wanted)


def test_class_prior_is_on_the_class_output_alone():
    config = ModelConfig(**SMALL, backbone_levels=(3,), prior=0.02, output_std=0.05)
    model = build_model(config, 3, 9)
    images = jnp.zeros((1, 64, 64, 3))
    init = jax.jit(lambda key: model.init(key, images, train=False))
    params = init(jax.random.key(0, impl="rbg"))["params"]
    bias = params["class_head"]["output"]["bias"]
    np.testing.assert_allclose(jax.nn.sigmoid(bias), 0.02, rtol=1e-5)
    for head in ("class_head", "box_head"):
        np.testing.assert_allclose(params[head]["output"]["kernel"].std(), 0.05, rtol=0.1)
        np.testing.assert_allclose(params[head]["conv0"]["kernel"].std(), 0.01, rtol=0.1)
        assert not params[head]["conv0"]["bias"].any()
    assert not params["box_head"]["output"]["bias"].any()


@pytest.mark.parametrize(("depth", "norm"), [(0, "none"), (2, "group")])
def test_heads_of_any_depth(depth, norm):
    options = {"head_depth": depth, "head_norm": norm, "head_channels": 64}
    model, images, variables = small_model(**options)
    head = variables["params"]["class_head"]
    convs, norms = ({f"{kind}{i}" for i in range(depth)} for kind in ("conv", "norm"))
    assert set(head) == {"output"} | convs | (norms if norm == "group" else set())
    assert all(("bias" in head[name]) == (norm == "none") for name in convs)
    shapes = [x.shape for x in predict(model, variables, images).class_logits]
    assert shapes[0] == (2, 9 * 12 * 9, 3)


@pytest.mark.parametrize("source", ["backbone", "fpn"])
@pytest.mark.parametrize("relu", [True, False])
def test_extra_levels_come_from_the_highest_level(source, relu):
    """FPN on C3 and C4 alone: P5 from C4 or P4 without a ReLU, P6 and P7 behind one or none."""
    fpn = FPN((3, 4), 7, channels=8, extra_levels_from=source, relu_before_p7=relu)
    rng = np.random.default_rng(0)
    features = {
        level: jnp.asarray(rng.standard_normal((1, *size, 16)), jnp.float32)
        for level, size in ((3, (21, 17)), (4, (11, 9)))
    }
    variables = fpn.init(jax.random.key(0), features)
    pyramid = fpn.apply(variables, features)
    assert {k: v.shape[1:3] for k, v in pyramid.items()} == {
        3: (21, 17),
        4: (11, 9),
        5: (6, 5),
        6: (3, 3),
        7: (2, 2),
    }
    x = features[4] if source == "backbone" else pyramid[4]
    for level in (5, 6, 7):
        p = variables["params"][f"p{level}"]
        x = jax.nn.relu(x) if relu and level > 5 else x
        x = p["bias"] + jax.lax.conv_general_dilated(
            x, p["kernel"], (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        np.testing.assert_allclose(pyramid[level], x, atol=1e-4)


def test_fpn_starts_with_xavier_uniform_kernels():
    """torchvision: kaiming_uniform_(a=1), whose bound is sqrt(3 / fan-in)."""
    fpn = FPN((3, 4), 6, channels=32)
    features = {3: jnp.zeros((1, 8, 8, 64)), 4: jnp.zeros((1, 4, 4, 64))}
    params = jax.jit(fpn.init)(jax.random.key(0), features)["params"]
    assert set(params) == {"lateral3", "lateral4", "output3", "output4", "p5", "p6"}
    for name, layer in params.items():
        bound = np.sqrt(3 / np.prod(layer["kernel"].shape[:3]))
        np.testing.assert_allclose(layer["kernel"].std(), bound / np.sqrt(3), rtol=0.05)
        assert 0.98 * bound < np.abs(layer["kernel"]).max() <= bound, name
        assert not layer["bias"].any()


# --- computation


def test_jit_equals_eager_and_training_equals_inference_when_frozen():
    model, images, variables = small_model(backbone_levels=(3,), image_shape=(1, 50, 60, 3))
    eager = model.apply(variables, images, train=False)
    jitted = jax.jit(lambda v, x: model.apply(v, x, train=True))(variables, images)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), eager, jitted)


def test_a_batch_of_no_images():
    model, images, variables = small_model(backbone_levels=(3,), max_level=4)
    predictions = predict(model, variables, images[:0])
    assert predictions.class_logits[0].shape == (0, 9 * 12 * 9, 3)


def test_bfloat16_computes_in_bfloat16_with_float32_parameters_and_outputs():
    options = {"head_norm": "group", "backbone_levels": (3, 4), "image_shape": (1, 32, 40, 3)}
    model, images, variables = small_model(**options)
    half, _, _ = small_model(**options, dtype="bfloat16")
    leaves = jax.tree.leaves(golden_models.empty_variables(half))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    wanted, found = (predict(m, variables, images) for m in (model, half))
    for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
        assert b.dtype == jnp.float32
        assert np.abs(a - b).mean() < 0.03 * np.abs(a).max()
        # Rounded to bfloat16, most of the values would coincide.
        assert len(np.unique(b)) > 0.9 * b.size


@functools.cache
def lowered_gradient(platform, **options):
    """The lines of a light detector's gradient, as lowered for a platform."""
    options |= {"head_norm": "group", "backbone_levels": (3, 4), "max_level": 5}
    model, images, _ = small_model(image_shape=(1, 64, 64, 3), **options)

    def loss(variables, images):
        outputs = model.apply(variables, images, train=True)
        return sum((x**2).sum() for x in jax.tree.leaves(outputs))

    arguments = golden_models.empty_variables(model), images
    lowered = jax.jit(jax.grad(loss)).trace(*arguments).lower(lowering_platforms=(platform,))
    return lowered.as_text().splitlines()


def gpu_convolutions(**options):
    """The convolutions of the gradient on GPUs: a line for each."""
    lines = [x for x in lowered_gradient("cuda", **options) if "stablehlo.convolution" in x]
    assert len(lines) > 50
    return lines


def test_precision_is_that_of_every_convolution_and_its_gradients():
    for precision in ("high", "highest"):
        wanted = f"precision HIGH{'EST' if precision == 'highest' else ''}"
        config = f"[#stablehlo<{wanted}>, #stablehlo<{wanted}>]"
        assert all(config in line for line in gpu_convolutions(precision=precision))
    assert not any("precision HIGH" in line for line in gpu_convolutions())


def test_bfloat16_convolves_in_bfloat16_forward_and_backward():
    """Float32 logits do not turn the convolutions behind their gradients into float32 ones."""
    for line in gpu_convolutions(dtype="bfloat16"):
        operands, _, _ = line.rpartition(":")[2].partition("->")
        assert operands.count("xbf16>") == 2, line


def test_a_gpu_stores_gradients_of_bfloat16_outputs_in_bfloat16():
    """Those of two outputs on three levels."""
    rounded = lambda *arguments, **options: sum(  # noqa: E731
        "optimization_barrier" in line and "xbf16>" in line
        for line in lowered_gradient(*arguments, **options)
    )
    assert rounded("cuda", dtype="bfloat16") == 6
    assert not rounded("cpu", dtype="bfloat16") and not rounded("cuda")


@pytest.mark.parametrize("norm", ["frozen_batch", "batch", "group"])
def test_gradients_are_finite_and_exactly_where_the_mask_says(norm):
    options = {"norm": norm, "frozen_stages": 3, "backbone_levels": (3, 4), "max_level": 5}
    model, images, variables = small_model(image_shape=(1, 64, 64, 3), **options)

    @jax.jit
    def gradient(params):
        def loss(params):
            v = variables | {"params": params}
            p, _ = model.apply(v, images, train=True, mutable=["batch_stats"])
            return sum((x**2).sum() for x in jax.tree.leaves(p))

        return jax.grad(loss)(params)

    grads = gradient(variables["params"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    nonzero = jax.tree.map(lambda leaf: bool(np.abs(leaf).max() > 0), grads)
    assert nonzero == trainable_mask(variables["params"], model.config)


def test_modules_with_names_that_are_not_of_a_resnet_are_trained():
    """`layers_0` is Flax's name for an entry of a list `layers`; any network may have a conv1."""
    names = "layers_0", "stage3", "conv1", "bn1", "conv3", "layer5_0", "layer1"
    params = {"backbone": {name: {"bn1": {"scale": 0}} for name in names}}
    mask = trainable_mask(params, ModelConfig(frozen_stages=5))
    assert all(jax.tree.leaves(mask)) and jax.tree.structure(mask) == jax.tree.structure(params)


def test_rematerialisation_keeps_less_for_the_gradients_and_the_same_parameters():
    """What reverse mode keeps, by shapes alone: the leaves of the function that goes backwards."""
    kept, trees = [], []
    for remat in ("none", "backbone", "all"):
        model = build_model(ModelConfig(**SMALL, remat=remat), 3, 9)
        variables = golden_models.empty_variables(model)

        def backwards(variables, model=model):
            images = jnp.zeros((64, 128, 128, 3))
            return jax.vjp(lambda v: model.apply(v, images, train=True), variables)[1]

        saved = jax.eval_shape(backwards, variables)
        kept.append(sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(saved)))
        trees.append(jax.tree.structure(variables))
    none, backbone, everything = kept
    assert everything < backbone < 0.9 * none and trees[0] == trees[1] == trees[2]


def test_config_errors_name_the_field_and_the_fix():
    for field, value, message in (
        ("backbone", "resnet49", "model.backbone: 'resnet49' is not one of resnet18, resnet34"),
        ("norm", "layer", "model.norm: 'layer' is not one of frozen_batch, batch, group"),
        ("dtype", "float16", "model.dtype: 'float16' is not one of float32, bfloat16"),
        ("frozen_stages", 6, "model.frozen_stages: 6 is invalid; write 'auto' or 0 to 5"),
        ("backbone_levels", (3, 5), r"model.backbone_levels: (3, 5) are not consecutive"),
        ("backbone_levels", (1, 2), r"model.backbone_levels: (1, 2) are not within 2 to 5"),
        ("max_level", 4, "model.max_level: 4 is below the highest of backbone_levels"),
        ("head_depth", -1, "model.head_depth: -1 must be 0 or more"),
        ("prior", 1.0, "model.prior: 1.0 is not between 0 and 1"),
        ("norm_epsilon", -1.0, "model.norm_epsilon: -1.0 is negative"),
    ):
        with pytest.raises(ValueError) as error:
            ModelConfig(**{field: value})
        assert str(error.value).startswith(message)
    with pytest.raises(ValueError, match="not a multiple of 32"):
        ModelConfig(head_channels=48, head_norm="group")
    with pytest.raises(ValueError, match="num_classes: 0 must be 1 or more"):
        build_model(ModelConfig(), 0, 9)


# --- imports


def test_older_key_layout_gives_the_same_detector(golden_dir):
    """Before torchvision 0.13: towers counted with their ReLUs, FPN convolutions not nested."""
    state = golden_models.state_dict(golden_dir, "retinanet_resnet50_fpn_v1")
    older = {}
    for key, value in state.items():
        parts = key.split(".")
        if "conv" in parts and parts[0] == "head":
            parts[3:5] = [str(2 * int(parts[3]))]
        elif "inner_blocks" in parts or "layer_blocks" in parts:
            del parts[4]
        older[".".join(parts)] = value
    assert "head.regression_head.conv.6.bias" in older
    empty = golden_models.empty_variables(build_model(V1, *golden_models.counts(state)))
    new, old = (detector_from_torchvision(s, empty) for s in (state, older))
    assert old.taken == new.taken and old.random == old.unused == ()
    jax.tree.map(np.testing.assert_array_equal, old.variables, new.variables)


def test_detector_for_other_classes_keeps_its_own_class_output(golden_dir):
    state = golden_models.state_dict(golden_dir, "retinanet_resnet18_fpn")
    config = ModelConfig("resnet18", extra_levels_from="fpn")
    model = build_model(config, 3, golden_models.counts(state)[1])
    empty = golden_models.empty_variables(model)
    with pytest.raises(WeightsError, match=r"misshapen: head.classification_head.cls_logits"):
        detector_from_torchvision(state, empty)
    report = detector_from_torchvision(state, empty, partial=True)
    assert report.random == ("class_head/output/bias", "class_head/output/kernel")
    assert len(report.misshapen) == 2
    assert "random: class_head/output\n" in report.summary()


def imagenet_import(shared_dir):
    state = dict(np.load(shared_dir / "weights" / "resnet18_imagenet_partial.npz"))
    model, _, variables = small_model()
    report = backbone_from_torchvision(state, variables, partial=True)
    return model, variables, report, state


def test_partial_folded_imagenet_weights_are_accounted_for(shared_dir):
    _, variables, report, state = imagenet_import(shared_dir)
    everything = jax.tree.leaves(variables["params"]) + jax.tree.leaves(variables["batch_stats"])
    assert len(report.taken) + len(report.random) == len(everything)
    missing = {
        f"backbone/layer4_{i}/{kind}{j}"
        for i, j, kind in itertools.product((0, 1), (1, 2), ("conv", "bn"))
    }
    random = {name.rpartition("/")[0] for name in report.random if name.startswith("backbone")}
    assert random == missing
    assert not [name for name in report.taken if not name.startswith("backbone/")]
    assert set(report.unused) == {"fc.weight", "fc.bias"} and report.misshapen == ()
    summary = report.summary()
    assert "random: backbone/layer4_0/bn1" in summary and "fc.weight" in summary
    with pytest.raises(WeightsError, match=r"missing: .*layer4.0.conv1.weight"):
        backbone_from_torchvision(state, variables)
    norm = report.variables["batch_stats"]["backbone"]["layer1_0"]["bn1"]
    np.testing.assert_allclose(norm["var"] + 1e-5, 1, atol=1e-6)


def object_crops(shared_dir, side=96):
    """(images [n side side 3], is a person [n], image id [n]) of the larger objects."""
    crops, persons, image_ids = [], [], []
    root = shared_dir / "data" / "coco_sample"
    for path in sorted((root / "annotations").glob("instances_*.json")):
        content = json.loads(path.read_text())
        names = {image["id"]: image["file_name"] for image in content["images"]}
        person = next(c["id"] for c in content["categories"] if c["name"] == "person")
        for annotation in content["annotations"]:
            x, y, w, h = map(int, annotation["bbox"])
            if annotation["iscrowd"] or min(w, h) < side // 2:
                continue
            file = next((root / "images").rglob(names[annotation["image_id"]]))
            picture = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)[y : y + h, x : x + w]
            crops.append(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA))
            persons.append(annotation["category_id"] == person)
            image_ids.append(annotation["image_id"])
    return np.stack(crops), np.array(persons), np.array(image_ids)


def probe_accuracy(features, labels, groups, ridge=0.1):
    """Balanced accuracy of a ridge classifier that has not seen the group it is asked about."""
    features = (features - features.mean(0)) / (features.std(0) + 1e-6)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    inputs = np.concatenate([features, np.full((len(features), 1), 0.1)], axis=1)
    predicted = np.zeros(len(labels))
    for group in np.unique(groups):
        seen = inputs[groups != group]
        normal = seen.T @ seen + ridge * np.eye(seen.shape[1])
        weights = np.linalg.solve(normal, seen.T @ np.where(labels, 1.0, -1.0)[groups != group])
        predicted[groups == group] = inputs[groups == group] @ weights
    return ((predicted > 0)[labels].mean() + (predicted < 0)[~labels].mean()) / 2


@pytest.mark.slow
def test_imagenet_features_tell_people_from_other_objects(shared_dir):
    """Linear probe of C4 on real photographs: trained weights see what random ones do not."""
    model, variables, report, _ = imagenet_import(shared_dir)
    crops, persons, image_ids = object_crops(shared_dir)
    images = normalize(crops, PixelConfig())
    run = jax.jit(lambda v: model.apply(v, images, method="features")["C4"].mean((1, 2)))
    trained, random = (
        probe_accuracy(np.asarray(run(v), np.float64), persons, image_ids)
        for v in (report.variables, variables)
    )
    assert trained > 0.75 > 0.65 > random, (trained, random)
