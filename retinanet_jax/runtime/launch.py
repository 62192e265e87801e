"""Whether this process is one of several, and where the others are: from flags or the launcher."""

import importlib.util
import os
import re
from typing import Any, NamedTuple


class ProcessesError(RuntimeError):
    """Processes that do not find each other, or do not do the same; says which, and the fix."""


class Launch(NamedTuple):
    """How the processes of a run find each other; from the command line.

    Attributes:
        coordinator: HOST:PORT of process 0; None where the launcher is asked (see `find`).
        num_processes: of the run.
        process_id: of this process, from 0.
        timeout: seconds in which all have to be there.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    timeout: int = 300

    def find(self) -> dict[str, Any] | None:
        """Arguments of jax.distributed.initialize, or None where this process is alone.

        Raises:
            ProcessesError: some flags only, or values that cannot be.
        """
        flags = self[:3]
        if flags in ((None, None, None), (None, 1, None)):
            return {} if self.num_processes is None and _launched_with_others() else None
        if None in flags:
            raise ProcessesError(
                "--coordinator, --num_processes and --process_id belong together: write all three, "
                "or none where Slurm, Open MPI, Kubernetes or a TPU VM tells them"
            )
        if not re.fullmatch(r".+:\d+", self.coordinator):
            raise ProcessesError(
                f"--coordinator={self.coordinator}: write HOST:PORT, the host of process 0 and a "
                "port that is free there, such as 10.0.0.1:8476"
            )
        if not 0 <= self.process_id < self.num_processes:
            raise ProcessesError(
                f"--process_id={self.process_id}: processes are counted from 0 to --num_processes "
                f"less 1, {self.num_processes - 1}"
            )
        arguments = zip(("coordinator_address", "num_processes", "process_id"), flags, strict=True)
        # Each process has all devices of its host (JAX_LOCAL_DEVICE_IDS says otherwise).
        return dict(arguments) | {"cluster_detection_method": "deactivate"}


def _launched_with_others() -> bool:
    """Whether the environment is that of one process of several, by a launcher that JAX knows.

    JAX would take part in a Slurm step of one task as well, and see but one of its GPUs.
    """
    environment = os.environ
    if int(environment.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        if "OMPI_MCA_orte_hnp_uri" not in environment:
            raise ProcessesError(
                "mpirun does not say where process 0 is (Open MPI 4 does, 5 does not): write "
                "--coordinator=HOST:PORT --num_processes=$OMPI_COMM_WORLD_SIZE "
                "--process_id=$OMPI_COMM_WORLD_RANK"
            )
        return True
    if "SLURM_STEP_NODELIST" in environment:
        return int(environment.get("SLURM_NTASKS", 1)) > 1
    if "JOB_COMPLETION_INDEX" in environment and "KUBERNETES_SERVICE_HOST" in environment:
        return importlib.util.find_spec("kubernetes") is not None
    # JAX has set it on import if there is a TPU; a VM of a single host makes a run of one process.
    return environment.get("TPU_ML_PLATFORM") == "JAX"
