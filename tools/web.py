"""A web page for trained models: drop an image, see what a model finds in it.

    python tools/web.py --model output/run [--model FOLDER-OF-RUNS ...]

Without --model it takes the demonstration's best model, if `make demo` has run. It needs Gradio:
pip install -e '.[web]'. docs/inference.md describes the page.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
from pathlib import Path

from ddep.endings import errors_as_lines
from ddep.errors import UserError
from ddep.web.runs import demo_run, find_runs
from ddep.web.uploads import Limits


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        action="append",
        type=Path,
        default=[],
        metavar="RUN",
        help="a run's folder, or a folder of runs; may be given several times",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (127.0.0.1)"
    )
    parser.add_argument("--port", type=int, metavar="N", help="the first free one from 7860")
    parser.add_argument(
        "--max-megabytes",
        type=float,
        default=Limits.megabytes,
        metavar="N",
        help="of an upload (%(default)s)",
    )
    parser.add_argument(
        "--max-megapixels",
        type=float,
        default=Limits.megapixels,
        metavar="N",
        help="of an upload (%(default)s)",
    )
    args = parser.parse_args()
    with errors_as_lines():
        for option, value in (("bytes", args.max_megabytes), ("pixels", args.max_megapixels)):
            if not 0 < value < 1e6:
                raise UserError(f"--max-mega{option} is {value:g}; expected more than 0")
        if args.port is not None and not 0 < args.port < 2**16:
            raise UserError(f"--port is {args.port}; expected 1 to 65535")
        if importlib.util.find_spec("gradio") is None:
            raise UserError("the page needs Gradio, which is missing: pip install -e '.[web]'")
        from ddep.web.server import serve

        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        logging.getLogger("ddep.web").setLevel(logging.INFO)
        serve(
            find_runs(args.model or [demo_run()]),
            host=args.host,
            port=args.port,
            limits=Limits(args.max_megabytes, args.max_megapixels),
        )


if __name__ == "__main__":
    main()
