"""A detector as ONNX, for onnxruntime and other runtimes.

Each equation of the program's jaxpr becomes one node or a few; what depends on weights alone is
computed here. NMS becomes ONNX's own node, greedy and class-wise like core/nms.py, in place of the
loops that JAX needs.

The network and its post-processing are float32. Only the coordinates of resizing are float64, as on
the host (see export/resizing.py).
"""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from onnx import helper

from retinanet_jax.export.onnx_graph import OPSET, Graph, Value, declare, tensor_type
from retinanet_jax.export.onnx_primitives import translate
from retinanet_jax.export.program import Arguments, Program


def to_onnx(program: Program, arguments: Arguments, metadata: dict[str, Any]) -> bytes:
    """Returns the content of the file.

    Args:
        program: function from `make_program` or `make_network_program`.
        arguments: inputs of the program.
        metadata: from `describe_program`; stored in the model's properties, each value as JSON.

    Raises:
        NotImplementedError: an operation of the network has no translation to ONNX.
    """
    closed, shapes = jax.make_jaxpr(program, return_shape=True)(*arguments.values())
    graph = Graph()
    for name, argument in arguments.items():
        graph.measure(name, argument.shape)
    walk = _Walk(graph, len(metadata["classes"]))
    # A dict's leaves come in the order of its sorted keys.
    results = dict(zip(sorted(shapes), walk.results(closed, list(arguments)), strict=True))
    for name, result in results.items():
        graph.nodes.append(helper.make_node("Identity", [result], [name]))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "retinanet",
            [declare(name, x) for name, x in arguments.items()],
            [declare(name, shapes[name]) for name in results],
            graph.arrays,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,  # that of opset 18, so that older runtimes read it
        producer_name="retinanet_jax",
    )
    helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.checker.check_model(model)
    return model.SerializeToString()


# Primitives that call another jaxpr, and the parameter that holds it.
_CALLS = {"jit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}


class _Walk:
    """Translates a jaxpr and those it calls."""

    def __init__(self, graph: Graph, num_classes: int):
        self._graph, self._num_classes = graph, num_classes

    def results(self, closed: Any, inputs: list[Value]) -> list[Value]:
        """The outputs of a jaxpr for these inputs."""
        known = dict(zip(closed.jaxpr.constvars, map(np.asarray, closed.consts), strict=True))
        known |= dict(zip(closed.jaxpr.invars, inputs, strict=True))

        def read(atom) -> Value:
            if not hasattr(atom, "val"):
                return known[atom]
            return np.asarray(atom.val, atom.aval.dtype)

        for eqn in closed.jaxpr.eqns:
            found = self._equation(eqn, [read(atom) for atom in eqn.invars])
            known |= dict(zip(eqn.outvars, found, strict=True))
        return [read(atom) for atom in closed.jaxpr.outvars]

    def _equation(self, eqn: Any, inputs: list[Value]) -> list[Value]:
        name = eqn.primitive.name
        if name == "jit" and eqn.params["name"] == "nms":
            return self._nms(eqn, *inputs)
        if name in _CALLS:
            return self.results(eqn.params[_CALLS[name]], inputs)
        if name == "platform_index":  # the branch for any platform
            return [np.array(eqn.params["platforms"].index(None), np.int32)]
        if name == "cond" and isinstance(inputs[0], np.ndarray):
            return self.results(eqn.params["branches"][int(inputs[0])], inputs[1:])
        if name == "while":
            return self._while(eqn, inputs)
        if _is_known(eqn, inputs):
            with jax.enable_x64(True):  # coordinates are float64
                found = eqn.primitive.bind(*map(jnp.asarray, inputs), **eqn.params)
            return [np.asarray(x) for x in (found if eqn.primitive.multiple_results else [found])]
        return translate(self._graph, eqn, inputs)

    def _while(self, eqn, inputs) -> list[Value]:
        """A loop. Its body sees outer values, as ONNX allows, except for small ones.

        Small ones go in and out of the body unchanged: onnxruntime merges casts of such values, and
        warns where it cannot since a body uses them.
        """
        params, graph = eqn.params, self._graph
        constants = params["cond_nconsts"] + params["body_nconsts"]
        avals = [var.aval for var in eqn.invars]
        passed = [
            i
            for i, value in enumerate(inputs[:constants])
            if isinstance(value, str) and len(avals[i].shape) <= 2
        ]
        types = [avals[i] for i in (*passed, *range(constants, len(inputs)))]

        def split(values: list[Value]) -> tuple[list[Value], list[Value], list[Value]]:
            """Constants of the condition, those of the body, and what changes."""
            outer = list(inputs[:constants])
            for place, value in zip(passed, values, strict=False):
                outer[place] = value
            end = params["cond_nconsts"]
            return outer[:end], outer[end:], values[len(passed) :]

        start = [inputs[i] for i in passed] + list(inputs[constants:])
        of_condition, _, changing = split(start)
        (goes_on,) = self.results(params["cond_jaxpr"], [*of_condition, *changing])
        with graph.body() as body:
            values = body.inputs(types)
            of_condition, of_body, changing = split(values)
            changed = self.results(params["body_jaxpr"], [*of_body, *changing])
            again = self.results(params["cond_jaxpr"], [*of_condition, *changed])
            body.outputs([*again, *values[: len(passed)], *changed], types)
        return graph.loop(goes_on, start, body)[len(passed) :]

    def _nms(self, eqn, boxes, scores, valid, iou_threshold, labels) -> list[Value]:
        """The outputs of core/nms.py::nms: indices of kept boxes by falling score, and a mask."""
        add, boxes_in = self._graph.add, eqn.invars[0].aval.shape[1]
        wanted = eqn.outvars[0].aval.shape[1]
        nothing = np.array(-1, np.float32)
        scores = add("Where", valid, scores, nothing)
        if len(eqn.invars[-1].aval.shape) == 1:  # class_agnostic: one label for all images
            labels = add("Unsqueeze", labels, np.array([0]))
        classes = np.arange(self._num_classes, dtype=np.int32)[None, :, None]
        of_class = add("Equal", add("Unsqueeze", labels, np.array([1])), classes)
        by_class = add("Where", of_class, add("Unsqueeze", scores, np.array([1])), nothing)
        most = np.array([wanted], np.int64)
        threshold = np.asarray(iou_threshold, np.float32).reshape(1)
        kept = add("NonMaxSuppression", boxes, by_class, most, threshold, np.zeros(1, np.float32))
        places = add("Gather", kept, np.array([0, 2]), axis=1)  # (image, class, box) of each
        blank = add("Expand", nothing, add("Shape", scores))
        scores = add("ScatterND", blank, places, add("GatherND", scores, places))
        if boxes_in < wanted:
            scores = add("Pad", scores, np.array([0, 0, 0, wanted - boxes_in]), nothing)
        best, indices = add("TopK", scores, most, axis=1, outputs=2)
        found = add("Greater", best, np.array(0, np.float32))
        indices = add("Where", found, indices, np.array(0, np.int64))
        return [add("Cast", indices, to=tensor_type(np.int32)), found]


def _is_known(eqn: Any, inputs: list[Value]) -> bool:
    sizes = [size for var in eqn.outvars for size in var.aval.shape]
    return all(isinstance(x, np.ndarray) for x in inputs) and all(
        isinstance(size, int) for size in sizes
    )
