"""The launcher's process: `accelerate launch` for one folder of ranks.py, which also tells how the processes ended."""

import os
import sys

from lamdagent.execution.processes import ranks


def main(folder: str, worker: int) -> int:
    """Start the processes and wait for them; the exit code."""
    ranks.die_with(worker)
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # `--multi_gpu` is the launcher that starts processes and watches them, on CPUs too; accelerate's own choice for
    # CPUs leaves that to MPI and starts one process without it.
    options = [
        "--config_file",
        f"{folder}/{ranks.SETTINGS}",
        "--multi_gpu",
        "--module",
        "lamdagent.execution.processes.rank",
    ]
    try:
        launch_command(launch_command_parser().parse_args([*options, folder, str(os.getpid())]))
    except ChildFailedError as error:
        ranks.send("exits", {str(rank): failure.exitcode for rank, failure in error.failures.items()}, 1)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
