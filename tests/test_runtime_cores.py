"""CPU quotas of containers, from cgroup files as Linux writes them."""

import math

import pytest

from retinanet_jax.runtime import cores
from retinanet_jax.runtime.cores import available_cores, cpu_quota


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2.0),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/\n", {}, math.inf),
        # The smallest quota on the way to the root counts.
        ("0::/a/b\n", {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "400000 100000\n"}, 1.5),
        # A path of the host, seen from inside of a container.
        ("0::/docker/f00\n", {"cpu.max": "50000 100000\n"}, 0.5),
        (
            "4:cpu,cpuacct:/a\n1:memory:/b\n",
            {"cpu/a/cpu.cfs_quota_us": "300000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            3.0,
        ),
        (
            "4:cpu,cpuacct:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            math.inf,
        ),
        ("0::/\n", {"cpu.max": "garbage"}, math.inf),
    ],
)
def test_quota_of_a_cgroup(tmp_path, own, files, quota):
    write(tmp_path / "cgroup", files)
    (tmp_path / "own").write_text(own)
    assert cpu_quota(tmp_path / "cgroup", tmp_path / "own") == quota


def test_no_cgroups_no_quota(tmp_path):
    assert cpu_quota(tmp_path / "cgroup", tmp_path / "own") == math.inf


@pytest.mark.parametrize(("quota", "expected"), [(2.0, 2), (1.5, 2), (0.5, 1), (math.inf, 64)])
def test_a_quota_limits_the_cores(monkeypatch, quota, expected):
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    assert available_cores() == expected
