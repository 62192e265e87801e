"""Finds the other processes of a run, from flags or from the launcher's environment."""

import importlib.util
import os
import re
from typing import Any, NamedTuple


class ProcessesError(RuntimeError):
    """The processes of a run do not connect, or differ in settings; names which, and the fix."""


class Launch(NamedTuple):
    """Flags by which the processes of a run find each other.

    Attributes:
        coordinator: HOST:PORT of process 0; None: from the launcher (see `find`).
        num_processes: number of processes of the run.
        process_id: index of this process, from 0.
        timeout: seconds in which all processes must connect.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    timeout: int = 300

    def find(self) -> dict[str, Any] | None:
        """Arguments of jax.distributed.initialize; None for a run of one process.

        Raises:
            ProcessesError: flags are missing or invalid.
        """
        flags = self[:3]
        if flags in ((None, None, None), (None, 1, None)):
            return {} if self.num_processes is None and _launched_with_others() else None
        if None in flags:
            raise ProcessesError(
                "--coordinator, --num_processes and --process_id: set all three; under Slurm, Open "
                "MPI and Kubernetes, and on TPU VMs, set none"
            )
        if not re.fullmatch(r".+:\d+", self.coordinator):
            raise ProcessesError(
                f"--coordinator={self.coordinator}: set HOST:PORT, the host of process 0 and a "
                "free port there, such as 10.0.0.1:8476"
            )
        if not 0 <= self.process_id < self.num_processes:
            raise ProcessesError(
                f"--process_id={self.process_id}: must be from 0 to --num_processes - 1, "
                f"{self.num_processes - 1}"
            )
        arguments = zip(("coordinator_address", "num_processes", "process_id"), flags, strict=True)
        # Each process uses all devices of its host, or those in JAX_LOCAL_DEVICE_IDS.
        return dict(arguments) | {"cluster_detection_method": "deactivate"}


def _launched_with_others() -> bool:
    """Whether a launcher that JAX knows started this process as one of several.

    A Slurm step of one task does not count: JAX would join it and use only one of its GPUs.
    """
    environment = os.environ
    if int(environment.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        if "OMPI_MCA_orte_hnp_uri" not in environment:
            raise ProcessesError(
                "mpirun does not provide the address of process 0 (Open MPI 4 does, Open MPI 5 "
                "does not): set --coordinator=HOST:PORT --num_processes=$OMPI_COMM_WORLD_SIZE "
                "--process_id=$OMPI_COMM_WORLD_RANK"
            )
        return True
    if "SLURM_STEP_NODELIST" in environment:
        return int(environment.get("SLURM_NTASKS", 1)) > 1
    if "JOB_COMPLETION_INDEX" in environment and "KUBERNETES_SERVICE_HOST" in environment:
        return importlib.util.find_spec("kubernetes") is not None
    if environment.get("TPU_ML_PLATFORM") != "JAX":  # JAX sets it on import if there is a TPU
        return False
    # JAX finds the hosts of a TPU in this list (GKE), or asks the metadata server (Cloud TPU VMs);
    # where neither exists, as on Colab, it would raise an error.
    if hosts := environment.get("TPU_WORKER_HOSTNAMES"):
        return "," in hosts or int(environment.get("MEGASCALE_NUM_SLICES", 1)) > 1
    return "TPU_SKIP_MDS_QUERY" not in environment
