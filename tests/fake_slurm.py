"""Imitations of sbatch, srun and squeue, as submitit uses them; they run jobs as processes."""

import sys
from pathlib import Path

SBATCH = """#!{python}
import os, pathlib, re, subprocess, sys
script = pathlib.Path(sys.argv[-1])
tasks = re.search(r"--array=0-(\\d+)", script.read_text())
running = []
for task in range(int(tasks[1]) + 1) if tasks else [None]:
    job = {{"SLURM_JOB_ID": str(os.getpid()), "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}}
    job |= {{"SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_LOCALID": "0"}}
    if task is not None:
        job |= {{"SLURM_ARRAY_JOB_ID": str(os.getpid()), "SLURM_ARRAY_TASK_ID": str(task)}}
    process = subprocess.Popen(["bash", str(script)], env=os.environ | job,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    name = str(os.getpid()) if task is None else f"{{os.getpid()}}_{{task}}"
    running.append(f"{{name}} {{process.pid}}\\n")
with open("{folder}/running.txt", "a") as file:
    file.writelines(running)
print("Submitted batch job", os.getpid())
"""

SRUN = """#!{python}
import os, re, sys
words, logs = sys.argv[1:], dict(zip(sys.argv, sys.argv[1:]))
names = {{"%A": "SLURM_ARRAY_JOB_ID", "%a": "SLURM_ARRAY_TASK_ID", "%j": "SLURM_JOB_ID",
         "%t": "SLURM_PROCID"}}
for number, option in ((1, "--output"), (2, "--error")):
    pattern = logs.get(option, logs["--output"])
    path = re.sub("%[Aajt]", lambda found: os.environ[names[found[0]]], pattern)
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
command = words[words.index("-u") - 1:]
os.execv(command[0], command)
"""

SQUEUE = """#!{python}
import os, pathlib
path = pathlib.Path("{folder}/running.txt")
for line in path.read_text().splitlines() if path.exists() else ():
    name, pid = line.split()
    if os.path.exists(f"/proc/{{pid}}/stat") and " Z " not in open(f"/proc/{{pid}}/stat").read():
        print(name)
"""


def install(folder: Path) -> None:
    """Writes the programs into a folder, to be put in front of PATH."""
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("squeue", SQUEUE)):
        path = folder / name
        path.write_text(text.format(python=sys.executable, folder=folder))
        path.chmod(0o755)
