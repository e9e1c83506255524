"""Convert a pretrained checkpoint for MODEL.WEIGHTS.

    python tools/convert-pretrained.py swin_base_patch4_window12_384_22k.pth swin_base.pth
    python tools/convert-pretrained.py dinov2_vitb14_pretrain.pth dinov2_base.pth
    python tools/convert-pretrained.py output/ddep_swin/model_final.pth decoder.pth
    python tools/convert-pretrained.py mask2former-swin-tiny-coco-panoptic/ mask2former.pth
    python tools/convert-pretrained.py output/finetuned/model_final.pth my_model/ --to hf

Reads .pth, .pkl and .safetensors files, and Hugging Face's folders: Swin (original and timm),
ResNet (torchvision and timm), ConvNeXt and ViT (timm), DINOv2, detectron2's model zoo, Mask2Former,
MaskFormer and DETR (original and Hugging Face's), torchvision's Faster and Mask R-CNN, and this
project's own; those of pretraining are reduced to what fine-tuning loads. Prints which weights were
loaded, resized, missing and unused, and the config keys that fit.

With --to hf, writes a Mask2Former or MaskFormer trained here as a folder that transformers loads
with from_pretrained: config, weights and image processor.
"""

from __future__ import annotations

import argparse

from ddep.checkpoint.conversion import FORMATS
from ddep.endings import errors_as_lines
from ddep.export import convert_file, export_to_hugging_face


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SRC", help="checkpoint to read, or Hugging Face folder")
    parser.add_argument(
        "destination", metavar="DST", help="checkpoint to write, a .pth; with --to hf a folder"
    )
    parser.add_argument("--from", dest="format", default="auto", choices=["auto", *FORMATS])
    parser.add_argument("--to", default="ddep", choices=["ddep", "hf"], help="format to write")
    parser.add_argument(
        "--config-file",
        metavar="CFG",
        help="config of the model that the weights are for; they are resized to fit it. With --to "
        "hf, the config they were trained with (default: config.yaml beside SRC)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace DST if it exists")
    parser.add_argument("--verbose", action="store_true", help="name every weight")
    parser.add_argument(
        "--keep-classes",
        action="store_true",
        help="keep all classes of a detector that has as many outputs as those that number classes "
        "by COCO's ids (91 or 250), instead of COCO's 80 or 133",
    )
    args = parser.parse_args()
    if args.to == "hf" and args.format != "auto":
        parser.error("--from has no meaning with --to hf, which takes this project's checkpoints")
    with errors_as_lines():
        if args.to == "hf":
            export_to_hugging_face(
                args.source,
                args.destination,
                config_file=args.config_file,
                overwrite=args.overwrite,
            )
            return
        convert_file(
            args.source,
            args.destination,
            args.format,
            config_file=args.config_file,
            overwrite=args.overwrite,
            verbose=args.verbose,
            keep_classes=args.keep_classes,
        )


if __name__ == "__main__":
    main()
