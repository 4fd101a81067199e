"""`python -m lamdagent +experiment=<name> key=value ...`: compose, check, search. Heavy imports wait until needed.

Exit codes: 0 done, 2 the user's input is wrong (one message, no traceback), 70 a fault of ours (traceback),
130 interrupted.
"""

import os
import sys
import traceback

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lamdagent.config import conf_folder
from lamdagent.errors import UserError


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
    """Entry point. What Hydra cannot compose or read is the user's to mend, like every other fault of the input."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises instead of printing tracebacks
    try:
        run()
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        print(f"lamdagent: the configuration cannot be composed: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
