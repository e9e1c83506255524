"""Predict images with a trained model: pictures, and data in common formats.

    python tools/predict.py --model output/RUN --input IMAGE-OR-FOLDER ... --output DIR
    python tools/predict.py --config-file CONFIG --input IMAGE-OR-FOLDER ... --output DIR \\
        MODEL.WEIGHTS output/.../model_final.pth

Pictures are panoptic, instance or semantic segmentation, or noisy | denoised | clean, as the config
says. With --save, there are also files for programs; each kind has a folder of its own in DIR.
Videos become videos; --save tracks writes the objects' tracks. With --attention, what the model
looks at.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ddep.data.video_capture import is_video
from ddep.endings import errors_as_lines
from ddep.errors import UserError
from ddep.inference import Predictor, predict_files
from ddep.inference.attention_files import draw_attention_files
from ddep.inference.inference_model import NO_AVERAGING
from ddep.inference.result_files import IDS, KINDS, PICTURES
from ddep.inference.video_files import predict_video_files


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", metavar="RUN", help="folder of a run")
    model.add_argument("--config-file", metavar="CONFIG", help="with MODEL.WEIGHTS")
    parser.add_argument("--input", required=True, nargs="+", type=Path, metavar="IMAGE-OR-FOLDER")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--save",
        default=PICTURES,
        metavar="KIND,...",
        help=f"any of {', '.join(KINDS)} (default: %(default)s)",
    )
    parser.add_argument(
        "--ids",
        default=IDS[0],
        choices=IDS,
        help="pixels of semantic files: classes counted from 0, or the data set's own ids",
    )
    parser.add_argument(
        "--annotations",
        type=Path,
        metavar="JSON",
        help="COCO's, which gives images their ids by file name; else a name that is a number is "
        "the id, or images are counted from 1",
    )
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="images of equal size at once"
    )
    parser.add_argument("--resume", action="store_true", help="go on after a stop")
    parser.add_argument(
        "--attention", action="store_true", help="NAME_attention.png: what queries attend to"
    )
    parser.add_argument(
        "--attention-at", type=_pixel, metavar="X,Y", help="and where this pixel samples"
    )
    parser.add_argument(
        "--track", action="store_true", help="follow objects of videos with a model of images, too"
    )
    parser.add_argument(
        "--frame-rate", type=float, metavar="N", help="folders are videos of N frames a second"
    )
    args, overrides = parser.parse_known_args()
    model = args.model or args.config_file
    with errors_as_lines():
        if args.frame_rate is not None and not 0 < args.frame_rate <= 1000:
            raise UserError(f"--frame-rate is {args.frame_rate}; expected up to 1000, such as 25")
        videos = [path for path in args.input if is_video(path) or _is_frames(path, args)]
        looks_inside = args.attention or args.attention_at is not None
        if videos and looks_inside:
            raise UserError(f"--attention takes images, not {videos[0]}")
        if videos and len(videos) < len(args.input):
            raise UserError(f"--input has images and the video {videos[0]}; predict them apart")
        if looks_inside and (args.save != PICTURES or args.resume):
            raise UserError("--save and --resume are not for --attention; leave them out")
        if args.track and not videos:
            raise UserError("--track is for videos; leave it out, or add --frame-rate for folders")
        if looks_inside:
            predictor = Predictor(model, overrides=[*overrides, *NO_AVERAGING])
            found = draw_attention_files(predictor, args.input, args.output, args.attention_at)
            print(f"{len(found)} pictures of attention in {args.output}")
            return
        if videos:
            found = predict_video_files(
                Predictor(model, overrides=overrides),
                videos,
                args.output,
                args.frame_rate,
                save=args.save,
                track=args.track,
                resume=args.resume,
            )
            what = "videos" if args.save == PICTURES else "files of videos"
            print(f"{len(found)} {what} in {args.output}")
            return
        written = predict_files(
            model,
            args.input,
            args.output,
            overrides=overrides,
            save=args.save,
            ids=args.ids,
            annotations=args.annotations,
            batch=args.batch,
            resume=args.resume,
        )
        what = PICTURES if args.save == PICTURES else "files of images"
        print(f"{len(written)} {what} in {args.output}")


def _is_frames(path: Path, args: argparse.Namespace) -> bool:
    return args.frame_rate is not None and path.is_dir()


def _pixel(text: str) -> tuple[int, int]:
    try:
        x, y = map(int, text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r}; expected X,Y in pixels, such as 150,200"
        ) from error
    return x, y


if __name__ == "__main__":
    main()
