"""The number of CPU cores that this process may use."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """Cores by affinity and by the CPU quota of the container, at least 1.

    A container with a quota of 2 CPUs sees all cores of its host in the affinity; a thread for each
    of these would only wait.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = cpu_quota()
    return cores if math.isinf(quota) else max(1, min(cores, math.ceil(quota)))


def cpu_quota(root: Path = CGROUP, own: Path = Path("/proc/self/cgroup")) -> float:
    """CPUs that the cgroups of this process allow (v2 cpu.max, v1 cpu.cfs_quota_us), or infinity.

    The smallest quota from the process's own group up to the root counts. Inside a container the
    root of the hierarchy is usually the container's own group.
    """
    quotas = [math.inf]
    for controller, relative in _groups(own):
        base = root / controller if (root / controller).is_dir() else root
        group = base / relative
        for folder in (group, *group.parents):
            quotas.append(_quota_of(folder))
            if folder == base:
                break
    return min(quotas)


def _groups(own: Path) -> list[tuple[str, str]]:
    """(controller folder, path) of the cgroups that limit CPU time; v2 has no controller folder."""
    groups = [("", "")]  # the root, if /proc cannot be read
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return groups
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            groups.append(("", path.lstrip("/")))
        elif "cpu" in controllers.split(","):
            groups += [("cpu", path.lstrip("/")), ("cpu,cpuacct", path.lstrip("/"))]
    return groups


def _quota_of(folder: Path) -> float:
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        return math.inf if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
