"""``python -m sonoloop_training RECIPE --data DIR --out DIR``: one JSON event a line on standard output."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sonoloop.errors import SonoloopError
from sonoloop_training.events import Failed


def main(arguments: list[str] | None = None) -> int:
    """Run a training; 0 when the model is made, 1 when it failed, 130 when it was interrupted."""
    parser = argparse.ArgumentParser(prog="python -m sonoloop_training", description="Make a Sonoloop model.")
    parser.add_argument("recipe", help="a shipped recipe's name, or a TOML file")
    parser.add_argument("--data", type=Path, required=True, help="folder with BUSI, BUS-BRA or both")
    parser.add_argument(
        "--out", type=Path, required=True, help="takes checkpoint and bundle; goes on where it broke off"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, help="CPU threads; all cores unless given")
    options = parser.parse_args(arguments)

    try:
        import torch  # noqa: PLC0415 - after the arguments are known to be right

        from sonoloop_training.recipe import read_recipe  # noqa: PLC0415
        from sonoloop_training.run import train  # noqa: PLC0415

        if options.threads:
            torch.set_num_threads(options.threads)
        for event in train(read_recipe(options.recipe), options.data, options.out, device=options.device):
            _say(event.to_json())
    except SonoloopError as error:
        _say(Failed(error=str(error)).to_json())
        return 1
    except ImportError as error:
        _say(Failed(error=f'{error}; training needs: pip install "napari-sonoloop[train]"').to_json())
        return 1
    except Exception as error:
        # whoever reads the events learns of it, the traceback goes to standard error
        _say(Failed(error=f"{type(error).__name__}: {error}").to_json())
        raise
    except KeyboardInterrupt:
        _say(Failed(error="interrupted; run the same command to go on from the last epoch").to_json())
        return 130
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
