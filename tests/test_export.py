"""Exported files: the detections of the Detector, without the package, at any size and batch."""

import argparse
import functools
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import small_config

from retinanet_jax.cli import app
from retinanet_jax.cli import export as command
from retinanet_jax.config.experiment_files import load_experiment
from retinanet_jax.config.settings import ConfigError, from_config_dict, to_json
from retinanet_jax.core.anchors import anchors_for_image
from retinanet_jax.core.postprocess import Detections
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.pipeline import transforms
from retinanet_jax.data.pipeline.batch import without_objects
from retinanet_jax.data.pipeline.canvas import PipelineConfig, eval_size
from retinanet_jax.data.records import Categories
from retinanet_jax.export.plain_network import (
    describe_network,
    make_network_program,
    network_arguments,
)
from retinanet_jax.export.program import (
    Trained,
    compare_with_detector,
    describe_program,
    make_program,
    program_arguments,
)
from retinanet_jax.export.resizing import fitted_sizes, resize
from retinanet_jax.inference.detector import Detector
from retinanet_jax.inference.predict import predict
from retinanet_jax.inference.trained import read_trained
from retinanet_jax.runtime.checkpoints import CheckpointError, Checkpoints
from retinanet_jax.training.train_state import TrainState

NAMES = ["circle", "ring", "square", "triangle", "star"]
CATEGORIES = Categories(tuple(NAMES), (11, 12, 13, 14, 15))


def variables_for(config):
    """Random weights that detect; class logits far apart, so that rounding changes no order."""
    model = build_model(config.model, len(NAMES), config.anchors.anchors_per_location)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False)
    output = variables["params"]["class_head"]["output"]
    output["kernel"], output["bias"] = output["kernel"] * 300, output["bias"] + 1.0
    return model, variables


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(workdir, model, variables, config) of a small detector."""
    workdir = tmp_path_factory.mktemp("run")
    fields = {"postprocess__max_detections": 20, "postprocess__pre_nms_top_k": 50}
    config = small_config(pipeline__max_side=96, **fields)
    model, variables = variables_for(config)
    state = TrainState(jnp.int32(0), **variables, opt_state=None, average=None)
    metadata = {"config": to_json(config), "names": NAMES, "ids": [11, 12, 13, 14, 15]}
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        checkpoints.save(0, state, metadata)
    return workdir, model, variables, config


def run_command(*arguments):
    """Runs the subcommand like the command line."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    command.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture(scope="module")
def stablehlo(trained):
    path = trained[0] / "model.stablehlo"
    run_command("--format=stablehlo", f"--model={trained[0]}", f"--out={path}")
    return path


def noise(rows, *shape):
    return np.random.default_rng(rows).integers(0, 256, (rows, *shape, 3), np.uint8)


def run_bare(path, images, sizes, scratch):
    """The detections of a process with JAX and without this package, and the classes it read."""
    np.savez(scratch / "in.npz", images=images, sizes=np.int32(sizes))
    script = Path(__file__).with_name("bare_detector.py")
    done = subprocess.run(
        [sys.executable, script, path, scratch / "in.npz", scratch / "out.npz"],
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(np.load(scratch / "out.npz")), json.loads(done.stdout)


def assert_same(found, wanted, pixels):
    np.testing.assert_array_equal(found["valid"], wanted.valid)
    np.testing.assert_array_equal(found["labels"], wanted.labels)
    np.testing.assert_allclose(found["scores"], wanted.scores, atol=1e-5)
    np.testing.assert_allclose(found["boxes"], wanted.boxes, atol=pixels)


SIZES = [(64, 96), (190, 301), (96, 64), (33, 50), (401, 270)]  # kept, shrunk, tall, grown, shrunk


@pytest.mark.parametrize("rows", [1, 5])
def test_a_file_equals_the_detector(trained, stablehlo, tmp_path, rows):
    """Without the package; one image, and five of different shapes in one array.

    To the last bit with JAX's own flags, up to rounding with those of tests/quick.py.
    """
    _, _, variables, config = trained
    detector = Detector(variables, config, CATEGORIES, batch_size=1)
    images = [noise(1, *size)[0] for size in SIZES[:rows]]
    padded = np.full((rows, 401, 301, 3), 7, np.uint8)
    for row, image in zip(padded, images, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    found, classes = run_bare(stablehlo, padded, SIZES[:rows], tmp_path)
    for row, image in enumerate(images):
        wanted, valid = detector(image), found["valid"][row]
        assert len(wanted) > 5
        np.testing.assert_array_equal(found["labels"][row][valid], wanted.labels)
        for name in ("boxes", "scores"):
            np.testing.assert_allclose(found[name][row][valid], getattr(wanted, name), rtol=3e-6)
    assert [c["name"] for c in classes] == NAMES
    assert [c["category_id"] for c in classes] == [11, 12, 13, 14, 15]


def test_one_file_is_for_all_platforms(stablehlo):
    with zipfile.ZipFile(stablehlo) as file:
        exported = jax.export.deserialize(bytearray(file.read("program")))
        metadata = json.loads(file.read("metadata.json"))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert metadata["readable_with"].startswith(f"JAX {jax.__version__} and any JAX released in")


ONNX_CONFIGS = {
    "default": {"postprocess__max_detections": 20, "postprocess__pre_nms_top_k": 50},
    # Clipping after NMS, more detections than candidates, and all other kinds of layers.
    "detectron2": {
        "postprocess__clip_before_nms": False,
        "postprocess__drop_empty": True,
        "postprocess__pre_nms_top_k": 8,
        "pixels__order": "bgr",
        "pipeline__eval_resizing": "detectron2",
        "model__backbone": "resnet50",
        "model__norm": "frozen_batch",
        "model__frozen_stages": 1,
        "model__pretrained": "not read here",
        "model__head_norm": "group",
        "model__head_channels": 32,
        "model__remat": "all",
    },
    "class_agnostic": {"postprocess__nms": "class_agnostic", "postprocess__pre_nms_top_k": 50},
    "nothing found": {"postprocess__score_threshold": 1.0, "postprocess__pre_nms_top_k": 50},
}


def doubles_of_the_network(content: bytes) -> list[str]:
    """Names of float64 values that depend on a convolution; Detector has none."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(content)).graph
    values = [*graph.value_info, *graph.output]
    double = {v.name for v in values if v.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE}
    of_network = set()
    for node in graph.node:
        if node.op_type == "Conv" or of_network & set(node.input):
            of_network |= set(node.output)
    assert of_network and values
    return sorted(double & of_network)


def folder_config(variant):
    """experiments/folder.py for images of 64 pixels, with fewer channels; else unchanged."""
    tree = load_experiment(f"folder:{variant}")
    smaller = {
        "data.root": "not read here",
        "pipeline.min_side": 64,
        "pipeline.max_side": 64,
        "pipeline.max_boxes": 20,
        "model.fpn_channels": 32,
        "model.head_channels": 32,
        "anchors.size": 2.0,
        "postprocess.pre_nms_top_k": 50,
    }
    tree.update_from_flattened_dict(smaller)
    return from_config_dict(tree)


def folder_detector(variant) -> Trained:
    """A network of the variant with random weights, whose boxes differ from their anchors."""
    config = folder_config(variant)
    _, variables = variables_for(config)
    for head, factor in (("class_head", 0.05), ("box_head", 10.0)):
        output = variables["params"][head]["output"]
        output["kernel"] = output["kernel"] * factor
    return Trained(variables, config, CATEGORIES)


FOLDER_VARIANTS = ("small", "modern")  # experiments/folder.py on a CPU


@pytest.mark.parametrize(
    "name",
    [
        "default",
        "small",
        *(
            pytest.param(n, marks=pytest.mark.extended)
            for n in ("modern", "detectron2", "class_agnostic", "nothing found")
        ),
    ],
)
def test_onnxruntime_detects_the_same(name, capfd):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from retinanet_jax.export.onnx import to_onnx

    if name in FOLDER_VARIANTS:
        trained = folder_detector(name)
    else:
        config = small_config(**ONNX_CONFIGS[name])
        trained = Trained(variables_for(config)[1], config, CATEGORIES)
    program = make_program(trained, [(64, 64)])
    content = to_onnx(program, program_arguments(), describe_program(trained, [(64, 64)], "small"))
    session = onnxruntime.InferenceSession(content)
    assert "[W:onnxruntime" not in capfd.readouterr().err
    assert not doubles_of_the_network(content)
    described = session.get_modelmeta().custom_metadata_map
    assert [c["name"] for c in json.loads(described["classes"])] == NAMES

    for rows, size in ((1, (64, 64)), (5, (90, 41))):
        images, sizes = noise(rows, *size), np.int32([size] * rows)
        outputs = [output.name for output in session.get_outputs()]
        found = session.run(None, {"images": images, "sizes": sizes})
        wanted = Detections(**jax.device_get(jax.jit(program)(images, sizes)))
        assert wanted.valid.any() != (name == "nothing found")
        pixels = 1e-4 if name in ONNX_CONFIGS else 1e-3  # boxes of group norm and distributions
        assert_same(dict(zip(outputs, found, strict=True)), wanted, pixels)


def test_the_command_says_how_to_get_the_results_of_the_detector(trained, tmp_path, capsys):
    """An ONNX file has one canvas, the Detector one for landscape and one for portrait images."""
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    workdir, _, variables, config = trained
    path = tmp_path / "model.onnx"
    command = "--format=onnx", f"--model={workdir}", f"--out={path}"
    run_command(*command)
    said = "Detector uses 64x96 for landscape images and 96x64 for portrait images"
    printed = capsys.readouterr().out
    assert said in printed
    (flag,) = re.findall(r"--canvas=\d+x\d+", printed)
    run_command(*command, flag)
    assert "Detector" not in capsys.readouterr().out

    image = noise(1, *SIZES[1])[0]
    inputs = {"images": image[None], "sizes": np.int32([SIZES[1]])}
    names = ["boxes", "scores", "labels", "valid"]
    session = onnxruntime.InferenceSession(path)
    boxes, scores, labels, valid = (x[0] for x in session.run(names, inputs))
    wanted = Detector(variables, config, CATEGORIES, batch_size=1)(image)
    np.testing.assert_array_equal(labels[valid], wanted.labels)
    np.testing.assert_allclose(scores[valid], wanted.scores, atol=1e-5)
    np.testing.assert_allclose(boxes[valid], wanted.boxes, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "chosen", "says"),
    [
        ({}, [(64, 96), (96, 64)], ""),
        ({"eval_canvas": "one"}, [(64, 96), (96, 64)], ""),
        ({}, [(96, 96)], "Detector uses 64x96 for .* --canvas=64x96 gives"),
        ({"eval_canvas": "tight"}, [(64, 96), (96, 64)], "pads each image as little as possible"),
        ({"min_side": 96}, [(96, 96)], ""),
    ],
)
def test_canvases_are_compared_with_those_of_the_detector(settings, chosen, says):
    sides = {"min_side": 64, "max_side": 96} | settings
    config = small_config(**{f"pipeline__{name}": value for name, value in sides.items()})
    note = compare_with_detector(chosen, config)
    assert re.search(says, note) if says else note == ""


@pytest.mark.parametrize("variant", ["small", pytest.param("modern", marks=pytest.mark.extended)])
def test_the_plain_network_of_a_folder_becomes_onnx(variant):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from retinanet_jax.export.onnx import to_onnx

    trained, images = folder_detector(variant), noise(3, 64, 64).astype(np.float32)
    program = make_network_program(trained, (64, 64), nms=False)
    described = describe_network(trained, (64, 64), variant, nms=False)
    session = onnxruntime.InferenceSession(to_onnx(program, network_arguments((64, 64)), described))
    boxes, scores = session.run(["boxes", "scores"], {"images": images})
    wanted = jax.device_get(jax.jit(program)(images))
    np.testing.assert_allclose(boxes, wanted["boxes"], atol=1e-3)
    np.testing.assert_allclose(scores, wanted["scores"], atol=1e-5)


@pytest.fixture(scope="module")
def plain(trained):
    """Files of the network without resizing, by whether they have NMS."""
    pytest.importorskip("onnx")
    paths = {}
    for nms in ("class", "none"):
        paths[nms] = trained[0] / f"plain_{nms}.onnx"
        arguments = "--format=onnx", f"--model={trained[0]}", f"--out={paths[nms]}"
        run_command(*arguments, "--canvas=64x96", "--preprocess=none", f"--nms={nms}")
    return paths


def detections_of(trained, images) -> Detections:
    _, model, variables, config = trained
    sizes = np.tile(np.float32([64, 96]), (len(images), 1))
    run = jax.jit(functools.partial(predict, model=model, config=config))
    return jax.device_get(run(variables, images, sizes, sizes))


def test_the_plain_network_has_what_the_detector_chooses_from(trained, plain):
    """Any batch size; the boxes and scores of the detections are among those of all anchors."""
    onnxruntime = pytest.importorskip("onnxruntime")
    sessions = {nms: onnxruntime.InferenceSession(path) for nms, path in plain.items()}
    images = noise(3, 64, 96)
    wanted, inputs = detections_of(trained, images), {"images": images.astype(np.float32)}
    assert [(x.name, x.shape[1:]) for x in sessions["none"].get_inputs()] == [
        ("images", [64, 96, 3])
    ]
    names = [output.name for output in sessions["class"].get_outputs()]
    found = dict(zip(names, sessions["class"].run(names, inputs), strict=True))
    assert wanted.valid.any()
    assert_same(found, wanted, pixels=1e-3)

    boxes, scores = sessions["none"].run(["boxes", "scores"], inputs)
    count = sum(map(len, anchors_for_image((64, 96), trained[3].anchors)))
    assert boxes.shape == (3, count, 4) and scores.shape == (3, count, len(NAMES))
    for row in range(3):
        for box, score, label, valid in zip(*(part[row] for part in wanted), strict=True):
            distance = np.abs(boxes[row] - box).max(1) + np.abs(scores[row, :, label] - score)
            assert not valid or distance.min() < 1e-3
        np.testing.assert_allclose(scores[row].max(), wanted.scores[row].max(), atol=1e-5)
    described = sessions["none"].get_modelmeta().custom_metadata_map
    assert f"float32 [batch, {count}, 5]" in json.loads(described["outputs"])["scores"]
    doubles = onnx_types(plain["none"])
    assert "double" not in doubles and "NonMaxSuppression" not in doubles


def onnx_types(path) -> str:
    """Types of the constants, and operators of a file."""
    import onnx

    graph = onnx.load(path).graph
    types = {onnx.TensorProto.DataType.Name(x.data_type).lower() for x in graph.initializer}
    return " ".join(sorted(types | {node.op_type for node in graph.node}))


def test_openvino_runs_the_plain_network(trained, plain):
    openvino = pytest.importorskip("openvino")
    images = noise(2, 64, 96)
    compiled = openvino.Core().compile_model(str(plain["none"]), "CPU")
    boxes, scores = (compiled([images.astype(np.float32)])[name] for name in ("boxes", "scores"))
    wanted = detections_of(trained, images)
    for row in range(2):
        np.testing.assert_allclose(scores[row].max(), wanted.scores[row].max(), atol=1e-4)
        best = np.unravel_index(scores[row].argmax(), scores[row].shape)
        np.testing.assert_allclose(boxes[row, best[0]], wanted.boxes[row, 0], atol=1e-2)


@pytest.mark.extended
def test_litert_runs_the_plain_network(trained, tmp_path):
    pytest.importorskip("litert_converter")
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    path = tmp_path / "network.tflite"
    arguments = "--format=litert", f"--model={trained[0]}", f"--out={path}", "--canvas=64x96"
    run_command(*arguments, "--preprocess=none", "--nms=none")
    with zipfile.ZipFile(path) as archive:
        described = json.loads(archive.read("metadata.json"))
    assert [c["name"] for c in described["classes"]] == NAMES
    assert described["inputs"]["images"].startswith("float32 [1, 64, 96, 3]")

    network = interpreter.Interpreter(model_path=str(path)).get_signature_runner()
    images = noise(2, 64, 96)
    wanted = detections_of(trained, images)
    for row in range(2):
        found = network(images=images[row : row + 1].astype(np.float32))
        boxes, scores = found["boxes"][0], found["scores"][0]
        np.testing.assert_allclose(scores.max(), wanted.scores[row].max(), atol=1e-4)
        best = np.unravel_index(scores.argmax(), scores.shape)
        np.testing.assert_allclose(boxes[best[0]], wanted.boxes[row, 0], atol=1e-2)


@pytest.mark.extended
@pytest.mark.parametrize("variant", FOLDER_VARIANTS)
def test_the_plain_network_of_a_folder_becomes_litert(variant, tmp_path):
    pytest.importorskip("litert_converter")
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    from retinanet_jax.export.litert import to_litert

    trained, image = folder_detector(variant), noise(1, 64, 64).astype(np.float32)
    program = make_network_program(trained, (64, 64), nms=False)
    described = describe_network(trained, (64, 64), variant, nms=False)
    path = tmp_path / "network.tflite"
    path.write_bytes(to_litert(program, network_arguments((64, 64)), described))
    found = interpreter.Interpreter(model_path=str(path)).get_signature_runner()(images=image)
    wanted = jax.device_get(jax.jit(program)(image))
    np.testing.assert_allclose(found["boxes"], wanted["boxes"], atol=1e-3)
    np.testing.assert_allclose(found["scores"], wanted["scores"], atol=1e-4)


def test_litert_has_the_plain_network_only(trained, tmp_path):
    with pytest.raises(
        DataError, match=r"--format: 'litert': supports only .*; add --preprocess=none"
    ):
        run_command("--format=litert", f"--model={trained[0]}", f"--out={tmp_path / 'x'}")


def test_nms_is_left_out_of_the_plain_network_only(trained, tmp_path):
    with pytest.raises(DataError, match=r"--nms.* needs the network without resizing; add --prep"):
        run_command(
            "--format=onnx", f"--model={trained[0]}", f"--out={tmp_path / 'x'}", "--nms=none"
        )


def test_unstacked_arrays_become_onnx():
    """jax 0.12 unstacks boxes by a primitive that 0.10 does not use."""
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from retinanet_jax.export.onnx import to_onnx

    def program(images, sizes):
        height, width = jnp.unstack(sizes, axis=-1)
        return {"height": height, "width": width + images.max((1, 2, 3))}

    session = onnxruntime.InferenceSession(to_onnx(program, program_arguments(), {"classes": []}))
    images, sizes = np.full((2, 4, 5, 3), 7, np.uint8), np.int32([[1, 2], [3, 4]])
    height, width = session.run(["height", "width"], {"images": images, "sizes": sizes})
    assert height.tolist() == [1, 3] and width.tolist() == [9, 11]


def test_a_missing_onnx_is_reported(trained, tmp_path, monkeypatch):
    for module in ("", "_graph", "_primitives"):
        monkeypatch.delitem(sys.modules, f"retinanet_jax.export.onnx{module}", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(DataError, match=r"--format.*'onnx'.*pip install"):
        run_command("--format=onnx", f"--model={trained[0]}", f"--out={tmp_path / 'out'}")


def test_an_unsupported_network_is_reported_in_a_line(trained, tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    from retinanet_jax.export import onnx_primitives

    monkeypatch.delitem(onnx_primitives.TRANSLATIONS, "conv_general_dilated")
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stopped:
        app.main(["export", "--format=onnx", f"--model={trained[0]}", f"--out={out}"])
    message = "--format: 'onnx': does not support this network (JAX's conv_general_dilated has no"
    assert message in stopped.value.code and "\n" not in stopped.value.code and not out.exists()


SETTINGS = PipelineConfig(min_side=24, max_side=40, pad_multiple=8)


@pytest.mark.parametrize("how", transforms.RESIZINGS)
def test_resizing_equals_the_host_to_the_last_bit(how):
    """Kept, enlarged, shrunk; by half and more; by whole numbers; thin; tall."""
    settings = PipelineConfig(min_side=24, max_side=40, pad_multiple=8, eval_resizing=how)
    sizes = [(24, 40), (17, 29), (31, 33), (97, 60), (48, 80), (72, 120), (120, 72), (101, 167)]
    sizes += [(3, 5), (2, 170), (170, 2), (167, 101), (161, 97)]
    images = np.full((len(sizes), 172, 171, 3), 255, np.uint8)
    for row, size in zip(images, sizes, strict=True):
        row[: size[0], : size[1]] = noise(1, *size)[0]

    @jax.jit
    def fit(images, sizes):
        new = fitted_sizes(sizes, (40, 40), settings)
        return new, resize(images, sizes, new, (40, 40), how)

    new_sizes, found = jax.device_get(fit(images, np.int32(sizes)))
    for image, size, new, one in zip(images, sizes, new_sizes.tolist(), found, strict=True):
        assert tuple(new) == eval_size(size, settings)
        example = without_objects(image[: size[0], : size[1]])
        wanted = transforms.resize(example, tuple(new), how).image
        np.testing.assert_array_equal(one[: new[0], : new[1]], wanted, err_msg=str(size))


@pytest.mark.parametrize("how", ["opencv", "torchvision"])
def test_sizes_equal_the_host(how):
    settings = PipelineConfig(eval_resizing=how)
    sizes = np.random.default_rng(0).integers(1, 5000, (3000, 2), np.int32)
    new = jax.jit(lambda sizes: fitted_sizes(sizes, (1344, 1344), settings))(sizes)
    assert new.tolist() == [list(eval_size(tuple(size), settings)) for size in sizes.tolist()]


def test_images_shrink_further_into_a_canvas_of_another_shape():
    new = fitted_sizes(np.int32([(60, 100), (100, 60), (1, 500)]), (24, 40), SETTINGS)
    assert new.tolist() == [[24, 40], [24, 14], [1, 40]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format=tflite"], "--format: .*'tflite'.*stablehlo"),
        (["--canvas=64"], "--canvas=64: .*HEIGHTxWIDTH.*64x96"),
    ],
)
def test_invalid_arguments_are_reported_before_the_work(trained, tmp_path, arguments, message):
    ordinary = ["--format=stablehlo", f"--model={trained[0]}", f"--out={tmp_path / 'out'}"]
    with pytest.raises((DataError, ConfigError), match=message.replace(": ", ".*")):
        run_command(*ordinary, *arguments)
    assert not list(tmp_path.iterdir())


def test_a_folder_for_the_file_is_reported(trained, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"--out.*folder.*is a folder.*name a file"):
        run_command("--format=stablehlo", f"--model={trained[0]}", f"--out={tmp_path / 'folder'}")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_workdir_without_checkpoint_is_reported(tmp_path):
    with pytest.raises(CheckpointError, match="train first"):
        run_command("--format=stablehlo", f"--model={tmp_path}", f"--out={tmp_path / 'out'}")


def test_the_best_checkpoint_is_the_default(trained, tmp_path, capsys):
    """Of a run with steps 1 and 2 whose best is step 1, unless --step names another."""
    _, _, variables, config = trained
    metadata = {"config": to_json(config), "names": NAMES, "ids": [11, 12, 13, 14, 15]}
    for folder, steps in (("checkpoints", (1, 2)), ("best/checkpoints", (1,))):
        with Checkpoints(tmp_path / folder) as checkpoints:
            for step in steps:
                params = jax.tree.map(lambda x, step=step: x * 0 + step, variables["params"])
                state = TrainState(jnp.int32(step), params, variables["batch_stats"], None, None)
                checkpoints.save(step, state, metadata)

    def step_of(step):
        lines = []
        read = read_trained(tmp_path, step, lines.append)
        (line,) = lines
        return int(jax.tree.leaves(read.variables["params"])[0].ravel()[0]), line

    assert step_of(None) == (1, f"{tmp_path}: best checkpoint, step 1")
    assert step_of(2) == (2, f"{tmp_path}: chosen checkpoint, step 2")
    shutil.rmtree(tmp_path / "best")
    assert step_of(None) == (2, f"{tmp_path}: latest checkpoint, step 2")
    with pytest.raises(CheckpointError, match="no checkpoint of step 7; it has 1, 2"):
        read_trained(tmp_path, 7)
