"""`python -m lamdagent +experiment=<name> key=value ...`: compose, check, search. Heavy imports wait until needed.

Exit codes: 0 done, 2 the user's input is wrong (one message, no traceback), 70 a fault of ours (traceback),
130 interrupted.
"""

import sys
import traceback
from pathlib import Path

import hydra
from omegaconf import DictConfig

from lamdagent.errors import UserError


def conf_folder() -> Path:
    """The shipped configuration: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
def run(node: DictConfig) -> None:
    """Search with a composed configuration; ends the process with a meaning (see the module's exit codes)."""
    try:
        from lamdagent.app import start

        start(node)
    except UserError as error:
        print(f"lamdagent: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("lamdagent: interrupted; the same command goes on from the store", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception:
        traceback.print_exc()
        raise SystemExit(70) from None


def main() -> None:
    """Entry point. Hydra answers what it cannot compose with exit code 1: here that is a user's fault, so 2."""
    try:
        run()
    except SystemExit as end:
        raise SystemExit(2 if end.code == 1 else end.code) from None


if __name__ == "__main__":
    main()
