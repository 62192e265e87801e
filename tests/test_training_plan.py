"""Plans for chips that this machine lacks: program text, memory line, table, command."""

import dataclasses
import json
from collections import Counter
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
import pytest
from memory_data import memory_dataset, objects_of
from small import small_config

from retinanet_jax.cli import plan as command
from retinanet_jax.cli.app import main
from retinanet_jax.config.settings import ConfigError
from retinanet_jax.runtime.accelerator import assume_accelerator, has_accelerator
from retinanet_jax.runtime.mesh import make_mesh
from retinanet_jax.training.plan import chips, run_plan
from retinanet_jax.training.plan.chips import CHIPS, GIB, gpu_target, read_chip
from retinanet_jax.training.plan.largest_batch import memory_line, other_batch
from retinanet_jax.training.plan.plan_table import canvas_note, heading, table, verdict
from retinanet_jax.training.plan.program_plan import ProgramPlan, part_of, plan_program, read_plan
from retinanet_jax.training.plan.program_text import (
    collectives,
    collectives_in_loops,
    estimated_cycles,
    kernels,
)
from retinanet_jax.training.plan.run_plan import PlannedProgram, RunPlanner, plan_run
from retinanet_jax.training.plan.run_programs import lower_program

SCRIPTS = Path(__file__).parent.parent / "scripts"
# A loop, a convolution, its two gradients, a fusion and a collective that ends later.
GPU_PROGRAM = """HloModule jit_train_step, is_scheduled=true

%body (p: (f32[4])) -> (f32[4]) {
  %x = f32[4]{0} all-gather(%p), metadata={op_name="jit(train_step)/shard_map/while/body/gather"}
}

ENTRY %main (image: bf16[2,8,8,16], kernel: bf16[32,3,3,16]) -> f32[4] {
  %image = bf16[2,8,8,16]{3,2,1,0} parameter(0)
  %kernel = bf16[32,3,3,16]{3,2,1,0} parameter(1)
  %conv = (bf16[2,8,8,32]{3,2,1,0}, u8[0]{0}) custom-call(%image, %kernel), \
custom_call_target="__cudnn$convForward", \
metadata={op_name="jit(train_step)/jvp(RetinaNet)/backbone/layer1_0/conv1/conv_general_dilated"}
  %out = bf16[2,8,8,32]{3,2,1,0} get-tuple-element(%conv), index=0
  %relu = f32[2,8,8,32]{3,2,1,0} fusion(%out), kind=kLoop, calls=%f, \
metadata={op_name="jit(train_step)/jvp(RetinaNet)/fpn/max"}
  %in = (bf16[2,8,8,16]{3,2,1,0}, u8[0]{0}) custom-call(%out, %kernel), \
custom_call_target="__cudnn$convBackwardInput", \
metadata={op_name="jit(train_step)/transpose(jvp(RetinaNet))/backbone/conv_general_dilated"}
  %w = (bf16[32,3,3,16]{3,2,1,0}, u8[0]{0}) custom-call(%image, %out), \
custom_call_target="__cudnn$convBackwardFilter", \
metadata={op_name="jit(train_step)/transpose(jvp(RetinaNet))/backbone/conv_general_dilated"}
  %four = f32[4]{0} constant({...})
  %loop = (f32[4]{0}) while(%four), condition=%c, body=%body, metadata={op_name="jit(train_step)/x"}
  %start = f32[4]{0} all-reduce-start(%four), to_apply=%add
  ROOT %done = f32[4]{0} all-reduce-done(%start)
}
"""
TPU_PROGRAM = """HloModule jit_call

%fused (p: f32[8]) -> f32[8] {
  ROOT %a = f32[8]{0:T(128)} add(%p, %p), metadata={op_name="jit(call)/RetinaNet/fpn/add"}
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %p = f32[8]{0:T(128)} parameter(0)
  %c = f32[8]{0:T(128)} fusion(%p), kind=kOutput, calls=%fused, \
metadata={op_name="jit(call)/shard_map/RetinaNet/backbone/conv1/conv_general_dilated"}, \
backend_config={"window_config":{"estimated_cycles":"1503"}}
  ROOT %d = f32[8]{0:T(128)S(1)} fusion(%c), kind=kLoop, calls=%fused, \
metadata={op_name="jit(call)/shard_map/vmap(jit(nms))/while/body/add"}, \
backend_config={"window_config":{"estimated_cycles":"3006"}}
}
"""


def test_kernels_of_a_gpu_program():
    """2 images of 8x8, 16 channels in, 32 out, kernels of 3x3: 2 x 128 x 9 x 16 x 32 operations."""
    found = list(kernels(GPU_PROGRAM))
    assert len(found) == 6  # the loop is one; the end of the collective is none
    operations = 2 * 128 * 9 * 16 * 32
    assert [kernel.operations for kernel in found] == [operations, 0, operations, operations, 0, 0]
    image, kernel, output = 2 * 128 * 16, 2 * 9 * 16 * 32, 2 * 128 * 32
    moved = [image + kernel + output, 3 * output, output + kernel + image, image + output + kernel]
    assert [kernel.moved for kernel in found[:4]] == moved
    assert {kernel.dtype for kernel in found} == {"bf16", ""}
    assert not any(kernel.highest for kernel in found)
    call = "custom-call(%image, %kernel), "
    highest = GPU_PROGRAM.replace(call, call + "operand_precision={highest,highest}, ")
    assert next(kernels(highest)).highest


def test_collectives_of_a_program():
    assert collectives(GPU_PROGRAM) == {"all-gather": 1, "all-reduce": 1}
    assert collectives_in_loops(GPU_PROGRAM) == 1
    assert not collectives(TPU_PROGRAM) and not collectives_in_loops(TPU_PROGRAM)


class Compiled:
    """Stands in for a compiled program of 1 + 2 + 4 - 1 bytes."""

    def __init__(self, text):
        self.as_text = lambda: text

    def memory_analysis(self):
        fields = {"argument": 1, "output": 2, "temp": 4, "generated_code": 0, "alias": 1}
        sizes = {f"{name}_size_in_bytes": size for name, size in fields.items()}
        return type("Memory", (), sizes)

    def compile(self):
        return self


def test_plan_of_a_gpu_program():
    """The convolutions wait for memory here: 24 or 16 KiB at 85% of 4.8 TB/s each."""
    plan = plan_program(Compiled(GPU_PROGRAM), CHIPS["h200"])
    assert (plan.memory, plan.temporary, plan.kernels, plan.cycles) == (6, 4, 6, 0)
    convolution = (2 * 128 * 16 + 2 * 9 * 16 * 32 + 2 * 128 * 32) / (0.85 * 4.8e12)
    assert plan.times["backbone, convolutions"] == pytest.approx(convolution)
    assert plan.times["gradient of backbone, convolutions"] == pytest.approx(2 * convolution)
    assert plan.times["fpn, other work"] == pytest.approx(3 * 2 * 128 * 32 / (0.85 * 4.8e12))
    assert plan.bottleneck() == (
        "gradient of backbone, convolutions",
        pytest.approx(2 * convolution),
    )
    # Without a bandwidth to wait for: 2 x 589,824 operations at 80% of 989 TFLOP/s.
    fast = dataclasses.replace(CHIPS["h200"], bandwidth=1e30)
    times = read_plan(Compiled(GPU_PROGRAM), fast).times
    expected = 2 * 128 * 9 * 16 * 32 / (0.8 * 989e12)
    assert times["backbone, convolutions"] == pytest.approx(expected)
    assert not read_plan(Compiled(GPU_PROGRAM), None).times


def test_plan_of_a_tpu_program():
    """1,503 cycles of 1.503 GHz are a microsecond."""
    assert estimated_cycles(TPU_PROGRAM).total() == 4509
    plan = read_plan(Compiled(TPU_PROGRAM), CHIPS["v5e"])
    assert plan.cycles == 4509 and plan.kernels == 2 and plan.seconds == pytest.approx(3e-6)
    assert plan.times["backbone, convolutions"] == pytest.approx(1e-6)
    assert plan.bottleneck() == ("NMS, other work", pytest.approx(2e-6))


def test_a_program_that_the_compiler_refuses_has_its_memory():
    class TooLarge:
        def __init__(self, text):
            self.text = text

        def compile(self):
            raise jax.errors.JaxRuntimeError(self.text)

    text = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (160.50G) exceeds available HBM (15.75G)."
    )
    plan = plan_program(TooLarge(text), CHIPS["v5e"])
    assert not plan.compiled and plan.memory == 160.5 * GIB
    text = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 512.00M of 15.75G hbm."
    assert plan_program(TooLarge(text), CHIPS["v5e"]).memory == GIB / 2
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        plan_program(TooLarge("INTERNAL: a bug"), CHIPS["v5e"])


@pytest.mark.parametrize(
    ("op_name", "part"),
    [
        (
            "jit(train_step)/transpose(jvp(RetinaNet))/class_head/conv0/add",
            "gradient of class_head",
        ),
        ("jit(train_step)/jvp(RetinaNet)/backbone/layer1_0/max", "backbone"),
        ("jit(train_step)/shard_map/cond/branch_1_fun/gather", "matching"),
        ("jit(train_step)/jvp()/cond/branch_0_fun/log1p", "loss"),
        ("jit(train_step)/transpose(jvp())/div", "gradient of loss"),
        ("jit(train_step)/jit(_where)/select_n", "update"),
        ("jit(call)/shard_map/vmap(jit(nms))/while", "NMS"),
        ("jit(call)/shard_map/vmap()/top_k", "top-k and decoding"),
        ("jit(predict)/vmap()/gather", "top-k and decoding"),
        ("", "copies"),
    ],
)
def test_parts_of_a_run(op_name, part):
    assert part_of(op_name) == part


def test_the_largest_batch_on_a_line():
    line = memory_line((4, 7.0), (2, 5.0))
    assert line == (3.0, 1.0) and line.at(10) == 13
    assert line.largest(13.0) == 10 and line.largest(12.9) == 9 and line.largest(12.9, 4) == 8
    assert line.largest(3.5) == 0 and line.largest(1.0) == 0
    with pytest.raises(ValueError, match="memory must grow"):
        memory_line((2, 5.0), (4, 5.0))


def test_the_second_plan_has_twice_the_images_where_they_fit():
    assert other_batch(8, 5.0, 10.0) == 16 and other_batch(8, 5.1, 10.0) == 4
    assert other_batch(1, 9.0, 10.0) == 2
    assert other_batch(12, 9.0, 10.0, 4) == 4 and other_batch(4, 9.0, 10.0, 4) == 8


def test_two_plans_give_the_largest_batch_and_a_third_corrects_it(monkeypatch):
    """4 GiB and one for each image up to 8, two for each further image."""
    memory = lambda images: (4 + images + max(0, images - 8)) * GIB  # noqa: E731
    compiled = []

    def lower(mode, config, classes, mesh, canvas, batch_size):
        compiled.append((mode, canvas, batch_size))
        return memory(batch_size)

    monkeypatch.setattr(run_plan, "lower_program", lower)
    monkeypatch.setattr(run_plan, "plan_program", lambda bytes, chip: ProgramPlan(bytes, bytes))
    chip = dataclasses.replace(CHIPS["v5e"], memory=20 * GIB)  # 18 for the program
    planner = RunPlanner(small_config(), 5, chip, make_mesh(), log=lambda line: None)
    (row,) = plan_run(planner, ("train",))
    assert row.images == 4 and row.plan.memory == 8 * GIB and row.largest == 14
    assert compiled == [("train", (64, 64), images) for images in (4, 8)]
    (row,) = plan_run(planner, ("train",), images=8, check=True)
    # The second plan has 4 images. 14 need 24 GiB; the line from 8 images, 12 GiB, has 2 GiB each.
    assert (row.checked, row.check.memory, row.largest) == (14, 24 * GIB, 11)
    (row,) = plan_run(planner, ("predict",), canvas=(96, 64), largest=False)
    assert row.canvas == (96, 64) and row.largest is None


ONE = {"pipeline__train_canvas": "one", "pipeline__eval_canvas": "one"}


def test_a_run_with_one_canvas_plans_the_one_of_its_images():
    """Landscapes to train on; without the data, it may be any."""
    sides = {"pipeline__min_side": 64, "pipeline__max_side": 96, "augmentation__scales": (32, 64)}
    config, every = small_config(**sides, **ONE), [(64, 96), (96, 64), (96, 96)]
    datasets = {
        "train": memory_dataset([objects_of([])] * 3, size=(40, 60)),
        "predict": memory_dataset([objects_of([])] * 3, size=(60, 40)),
    }
    planner = RunPlanner(config, 5, CHIPS["v5e"], make_mesh(), print, datasets)
    assert planner.canvases("train") == every[:1]
    assert planner.canvases("predict") == every[1:2]
    assert planner.canvases("train", (32, 32)) == [(32, 32)]
    assert dataclasses.replace(planner, datasets={}).canvases("train") == every
    assert dataclasses.replace(planner, config=small_config(**sides)).canvases("train") == every
    tiled = dataclasses.replace(config.data, tile=64)
    tiled = dataclasses.replace(planner, config=dataclasses.replace(config, data=tiled))
    assert tiled.canvases("predict") == every


def test_a_plan_without_the_data_says_that_the_run_has_one_of_the_canvases():
    sizes = (64, 96), (96, 64)
    rows = [planned(mode, 4, 8, canvas=size) for mode in ("train", "predict") for size in sizes]
    planner = RunPlanner(small_config(**ONE), 5, CHIPS["v5e"], make_mesh(), print)
    note = canvas_note(rows, planner)
    assert "one of these canvases (config.pipeline.train_canvas=one, config.pipeline.eval" in note
    assert "--canvas=HxW plans it alone" in note
    assert canvas_note(rows[1:3], planner) == ""
    assert canvas_note(rows, dataclasses.replace(planner, config=small_config())) == ""


def planned(mode, gib, largest, images=2, canvas=(64, 64)):
    plan = ProgramPlan(
        int(gib * GIB), int(gib * GIB / 2), True, Counter({"all-reduce": 3}), 1, 1234,
        Counter({"backbone, convolutions": 0.0125}), 5_250_000, 61.4,
    )  # fmt: skip
    return PlannedProgram(mode, canvas, images, plan, largest)


def test_the_table_and_its_last_sentence(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: {"jax": "1.2", "libtpu": "3.4"}[name])
    planner = RunPlanner(small_config(), 5, CHIPS["v5e"], make_mesh(), log=print)
    assert (
        heading(planner)
        == "resnet18, float32, 5 classes; 1 x TPU v5 lite (v5e); jax 1.2, libtpu 3.4"
    )
    rows = [planned("train", 4, 8), planned("train", 6, 5, canvas=(96, 96))]
    header, rule, first, _ = table(rows).splitlines()
    assert len({len(header), len(rule), len(first)}) == 1
    cells = [cell.strip() for cell in first.strip("|").split("|")]
    assert cells == [
        *("train", "64x64", "2", "4.00", "2.00", "3 all-reduce (1 in loops)", "1,234", "12.5"),
        *("5.25", "backbone, convolutions: 12.5 ms", "8", "61"),
    ]
    fits = verdict(rows, planner)
    assert fits.startswith("Fits: train at 96x96 with 2 images a chip needs 6.00 GiB of 14.18")
    assert fits.endswith("The largest batch: --config.train.batch_size=5.")
    too_large = verdict([planned("train", 15, 1)], planner)
    assert too_large.startswith("Does not fit: train at 64x64 with 2 images a chip needs 15.00 GiB")
    for fix in ("train.batch_size=1,", "remat=all", "model.dtype=bfloat16", "pipeline.min_side"):
        assert fix in too_large
    assert "batch_size" not in verdict([planned("predict", 15, 0)], planner)


def test_invalid_input_names_the_fix(monkeypatch):
    for text, fix in (
        ("b7:2x4", "unknown chip; write one of v5e:2x4, v6e:2x4, h100:8, h200:8"),
        ("v5e", "'' is not a slice, XxY chips; write v5e:2x4"),
        ("v5e:8", "'8' is not a slice"),
        ("h200:2x4", "'2x4' is not a number of GPUs; write h200:8"),
        ("h200:0", "'0' is not a number"),
    ):
        with pytest.raises(ConfigError, match=fix):
            read_chip(text)
    assert read_chip("V6E:4x8") == (CHIPS["v6e"], "4x8")
    eight = type("Mesh", (), {"size": 8})
    planner = RunPlanner(small_config(), 5, CHIPS["v5e"], eight, log=print)
    with pytest.raises(
        ConfigError, match=r"train.batch_size: 4 images cannot be divided evenly over 8 .* 8"
    ):
        next(plan_run(planner, ("train",)))
    parts = dataclasses.replace(planner, config=small_config(optimizer__accumulate_steps=4))
    with pytest.raises(ConfigError, match=r"--images=6: not a multiple of 4 .* write 8"):
        next(plan_run(parts, ("train",), images=6))
    auto = dataclasses.replace(planner, config=small_config(train__batch_size="auto"))
    assert auto.images("train") == 16


def test_a_missing_compiler_is_named_with_its_extra(monkeypatch, capsys):
    absent = {"tpu": ("plan-tpu", ("no_compiler",)), "cuda": ("plan-gpu", ("no_compiler",))}
    monkeypatch.setattr(chips, "EXTRAS", absent)
    monkeypatch.setenv("JAX_PLATFORMS", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    for chip, extra in (("v5e:2x4", "plan-tpu"), ("h200:8", "plan-gpu")):
        with pytest.raises(SystemExit) as error:
            main(["plan", "--config=shapes", f"--chip={chip}"])
        assert f"pip install 'retinanet_jax[{extra}]'" in str(error.value)


def test_the_command_prints_and_writes_the_plan(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(chips, "described_mesh", lambda chip: (CHIPS["v5e"], make_mesh()))
    monkeypatch.setattr(run_plan, "lower_program", lambda *arguments: arguments[-1])
    gib = lambda images, chip: planned("train", 1 + images, None).plan  # noqa: E731
    monkeypatch.setattr(run_plan, "plan_program", gib)
    out = tmp_path / "plan.json"
    main(["plan", "--config=shapes", "--chip=v5e:1x1", "--images=2", f"--json={out}"])
    said = capsys.readouterr()
    assert "compiling train, 128x128, 2 images a chip" in said.err
    # One more GiB for each image: 13 images need 14 of 14.18 GiB.
    assert said.out.rstrip().endswith("The largest batch: --config.train.batch_size=13.")
    (row,) = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert (row["memory_gib"], row["largest"], row["bound_ms"]) == (3, 13, 12.5)
    assert row["times_ms"] == {"backbone, convolutions": 12.5}
    for wrong, fix in (
        ("--classes=0", "must be at least 1"),
        ("--check", "leave out --skip_largest"),
    ):
        with pytest.raises(SystemExit, match=fix):
            main(["plan", "--config=shapes", "--chip=v5e:1x1", "--skip_largest", wrong])


def test_the_page_has_the_stored_plans(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import accelerators

    before = accelerators.PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr(accelerators, "PAGE", tmp_path / "page.md")
    accelerators.PAGE.write_text(before, encoding="utf-8")
    rows = accelerators.read_rows()
    accelerators.write_table(rows)
    assert accelerators.PAGE.read_text(encoding="utf-8") == before
    accelerators.write_table(dict(list(rows.items())[:1]))
    assert accelerators.PAGE.read_text(encoding="utf-8").count("not planned |  |") == 12


def test_classes_of_public_datasets_and_the_network_for_a_chip():
    assert command.known_classes(small_config(data__name="coco2014")) == 80
    assert command.known_classes(small_config(data__name="voc2007")) == 20
    assert command.known_classes(small_config()) is None
    (train_set,) = command.read_datasets(small_config(), ("train", "predict")).values()
    assert train_set.categories.num_classes == 5  # shapes
    assert not has_accelerator()
    with assume_accelerator():
        assert has_accelerator()
    assert not has_accelerator()


def test_the_target_of_a_gpu_has_its_memory():
    text = gpu_target(CHIPS["h200"])
    assert "device_memory_size: 151397597184\n" in text and "bandwidth: 4800000000000\n" in text
    assert text.count("{") == text.count("}")


def test_programs_are_lowered_for_the_batch_of_all_chips():
    config, mesh = small_config(), make_mesh()
    lowered = lower_program("predict", config, 5, mesh, (64, 96), 6)
    inputs = [(x.shape, x.dtype) for x in jax.tree.leaves(lowered.in_avals)]
    assert ((6, 64, 96, 3), np.uint8) in inputs and inputs.count(((6, 2), np.float32)) == 2
    assert chips.chip_of_device(mesh.devices.flat[0]) is None


@pytest.mark.extended
def test_the_plan_of_a_cpu():
    lowered = lower_program("predict", small_config(), 5, make_mesh(), (64, 64), 2)
    plan = read_plan(lowered.compile(), None)
    assert plan.memory > plan.temporary > 0 and not plan.times and plan.kernels


@pytest.mark.extended
@pytest.mark.parametrize("name", ["v5e:2x4", "h200:8"])
def test_prediction_on_chips_needs_no_collective(name):
    """Each chip predicts its own images."""
    try:
        chip, mesh = chips.described_mesh(name)
    except ConfigError as error:
        pytest.skip(str(error))
    planner = RunPlanner(small_config(), 5, chip, mesh, log=print)
    (row,) = plan_run(planner, ("predict",), images=1, largest=False)
    assert not row.plan.collectives and row.plan.times and row.plan.kernels > 10
    assert bool(row.plan.cycles) == (chip.platform == "tpu")
    assert 0 < row.plan.temporary < row.plan.memory < GIB
    assert "Fits" in verdict([row], planner)
