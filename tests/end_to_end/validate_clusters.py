"""The cluster files, checked by the validators of each system (`make test-clusters`, in an environment of its own).

Slurm: shellcheck. Kubernetes: kubernetes-validate, which has the schemas of the API server, in strict mode. SkyPilot:
its own loader of tasks.
"""

import subprocess
import sys
from pathlib import Path

CLUSTERS = Path(__file__).parents[2] / "examples"
TOOLS = Path(sys.executable).parent


def main() -> None:
    """Each file, or the exit code of the first that fails."""
    subprocess.run([TOOLS / "shellcheck", *CLUSTERS.glob("slurm/*.sbatch")], check=True)
    for path in sorted(CLUSTERS.glob("kubernetes/*.yaml")):
        subprocess.run([TOOLS / "kubernetes-validate", "--strict", path], check=True)
    import sky

    for path in sorted(CLUSTERS.glob("skypilot/*.yaml")):
        task = sky.Task.from_yaml(str(path))
        print(f"{path}: {task.num_nodes} machines, {task.resources}")


if __name__ == "__main__":
    main()
