"""Every config key that this project adds to detectron2's.

Those of encoders, DETR, videos and adaptation have files of their own beside this one.
Mask2Former's keys have its names and defaults, so that its YAML files load unchanged.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

from detectron2.config import CfgNode
from detectron2.projects.deeplab import add_deeplab_config

from ddep.config_adaptation import add_adaptation_config
from ddep.config_detr import add_detr_config
from ddep.config_encoders import add_encoder_config
from ddep.config_video import add_video_config


def add_ddep_config(cfg: CfgNode) -> None:
    """Add the project's keys and their defaults to ``cfg``, in place.

    Adds DeepLab's keys as well (SOLVER.POLY_LR_POWER, INPUT.CROP.SINGLE_CATEGORY_MAX_AREA, ...),
    because Mask2Former's YAML files use them.
    """
    # Modules (my_package.models) and Python files (models.py, relative to the config file) to
    # import before anything else, in every process: models, tasks, data sets and mappers of your
    # own, which register themselves. See examples/.
    cfg.IMPORTS = []
    add_deeplab_config(cfg)
    _add_datasets_config(cfg)
    _add_input_config(cfg)
    _add_solver_config(cfg)
    _add_mask_former_config(cfg)
    add_encoder_config(cfg)
    add_detr_config(cfg)
    add_video_config(cfg)
    _add_classifier_config(cfg)
    _add_denoising_config(cfg)
    add_adaptation_config(cfg)
    _add_sliding_config(cfg)
    _add_monitoring_config(cfg)


def get_key(cfg: CfgNode, key: str) -> Any:
    """The value of a key such as ``MODEL.BACKBONE.NAME``."""
    return reduce(CfgNode.__getitem__, key.split("."), cfg)


def _add_datasets_config(cfg: CfgNode) -> None:
    datasets = cfg.DATASETS
    # Few labels: training uses this fraction or this number of the images of each set in
    # DATASETS.TRAIN; 1.0 and 0 use all. The images are the first of a permutation of the set's
    # sorted file names: a smaller choice is part of a larger one with the same LABEL_SEED, on every
    # machine. They are written to OUTPUT_DIR/labelled_images.txt. Evaluation and denoising always
    # use all images.
    datasets.LABEL_FRACTION = 1.0
    datasets.LABEL_COUNT = 0
    datasets.LABEL_SEED = 0
    # Instead of either: a file that names the images to use, in the format of labelled_images.txt.
    datasets.LABEL_LIST = ""
    # Expected share of each set of DATASETS.TRAIN among the training images, whatever its size: any
    # positive numbers, which are divided by their sum. Empty: the sets are joined, and each image
    # counts the same.
    datasets.TRAIN_WEIGHTS = ()
    # Your own data sets, which TRAIN and TEST can then name: a list of mappings, see
    # datasets/README.md.
    datasets.CUSTOM = []
    # DATALOADER.SAMPLER_TRAIN, one of detectron2's keys, can also be ClassUniformSampler, which
    # draws a class uniformly, then one of the images that show it. With TRAIN_WEIGHTS it first
    # draws the set by these weights, then one of the classes in that set.
    # With TrainingSampler, this expected share of the images is drawn that way, and INPUT.CROP
    # shows a place of the class: of the image's tiles of TILE_SIZE pixels that show the class, one
    # is drawn uniformly, and the place is the centroid of the class's pixels there. RobustNet
    # (arXiv 2103.15597) has 0.5. Needs semantic labels.
    class_uniform = cfg.DATALOADER.CLASS_UNIFORM = CfgNode()
    class_uniform.SHARE = 0.0
    class_uniform.TILE_SIZE = 1024


def _add_input_config(cfg: CfgNode) -> None:
    # Which mapper turns a data set's dicts into model input: ddep_denoising, mask_former_semantic,
    # mask_former_panoptic, mask_former_instance, coco_panoptic_lsj, coco_instance_lsj,
    # detr_panoptic, detr_panoptic_boxes, detr_detection, ... Those that end in _lsj resize by a
    # random factor and crop to a fixed square (large-scale jitter); those that begin with detr_
    # crop half of the images, between two resizings. Empty:
    # the first mapper of MODEL.META_ARCHITECTURE's task (see ddep/tasks/), for MaskFormer
    # mask_former_semantic.
    cfg.INPUT.DATASET_MAPPER_NAME = ""
    # Random brightness, contrast, saturation and hue, as SSD does.
    cfg.INPUT.COLOR_AUG_SSD = False
    # torchvision's colour jitter, of this share of the training images: brightness, contrast and
    # saturation change by up to this fraction of themselves, hue by up to this part of a full turn.
    jitter = cfg.INPUT.COLOR_JITTER = CfgNode()
    jitter.ENABLED = False
    jitter.STRENGTH = [0.4, 0.4, 0.4, 0.1]
    jitter.PROBABILITY = 0.5
    # Gaussian blur of this share of the training images, with a standard deviation drawn uniformly
    # from this range, in pixels. These values and the jitter's are RobustNet's (arXiv 2103.15597).
    blur = cfg.INPUT.GAUSSIAN_BLUR = CfgNode()
    blur.ENABLED = False
    blur.SIGMA = [0.15, 1.3]
    blur.PROBABILITY = 1.0
    # A crop is drawn again while one class covers more than this fraction of it (1.0: never).
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0
    # Training images are padded to a square of this many pixels in the mapper; -1 does not pad.
    cfg.INPUT.SIZE_DIVISIBILITY = -1
    # Large-scale jitter: side of the square in pixels, and the range of the resize factor.
    cfg.INPUT.IMAGE_SIZE = 1024
    cfg.INPUT.MIN_SCALE = 0.1
    cfg.INPUT.MAX_SCALE = 2.0
    # Classification: training cuts a rectangle out of each image and resizes it to a square of SIZE
    # pixels. SCALE is the range of the rectangle's area as a fraction of the image's, RATIO the
    # range of its width divided by its height (Inception's crops, as in torchvision).
    crop = cfg.INPUT.RANDOM_RESIZED_CROP = CfgNode()
    crop.SIZE = 224
    crop.SCALE = [0.08, 1.0]
    crop.RATIO = [3 / 4, 4 / 3]
    # Evaluation resizes the shorter side to MIN_SIZE_TEST and cuts out a central square with this
    # side, in pixels; 0 takes the whole image.
    cfg.INPUT.CENTER_CROP_TEST = 224
    # Training decodes JPEG files for denoising and classification that are much larger than the
    # model's input at 1/2, 1/4 or 1/8 of their size, which saves time; never smaller than what they
    # are resized to. Evaluation decodes in full, so that its figures do not depend on this.
    cfg.INPUT.DRAFT_DECODING = True
    # Training skips images that cannot be read and names them in the log; more than this many in
    # one process of a run, resumed or not, stop it.
    cfg.INPUT.MAX_UNREADABLE = 100


def _add_solver_config(cfg: CfgNode) -> None:
    # ADAMW or SGD.
    cfg.SOLVER.OPTIMIZER = "ADAMW"
    # The backbone's learning rate is BASE_LR times this.
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1
    # Outside of the backbone, what was taken from MODEL.WEIGHTS (a pretrained decoder, say) learns
    # at BASE_LR times this, and what is new at BASE_LR.
    cfg.SOLVER.TRANSFERRED_MULTIPLIER = 1.0
    # For this many iterations from the start, only new parameters train: what was taken from
    # MODEL.WEIGHTS, the backbone included, stays as it is, and then joins at the rate that the
    # schedule has come to. Statistics of batch norms are updated all the time.
    cfg.SOLVER.NEW_ONLY_ITERS = 0
    # Layer-wise decay of the backbone's learning rate: its last layer but i learns at BASE_LR *
    # BACKBONE_MULTIPLIER * LAYER_DECAY^(i + 1), as in BEiT, ViTDet and timm. 1.0: all layers learn
    # alike. A layer is a block of Swin and of timm's models, and a stage of detectron2's ResNets.
    cfg.SOLVER.LAYER_DECAY = 1.0
    # Weight decay of embeddings (queries, levels).
    cfg.SOLVER.WEIGHT_DECAY_EMBED = 0.0
    # Each step's batch of IMS_PER_BATCH images goes through the model in this many parts, one after
    # the other: the gradients are the whole batch's, the memory is one part's.
    cfg.SOLVER.ACCUMULATION_STEPS = 1
    # With SOLVER.AMP.ENABLED, one of detectron2's keys: float16 (with loss scaling) or bfloat16.
    cfg.SOLVER.AMP.PRECISION = "float16"
    # A step whose loss or gradients are NaN or infinite is skipped and its images are named in the
    # log; after this many in a row training stops.
    cfg.SOLVER.MAX_SKIPPED_STEPS = 10
    # Besides model_final and model_best, this many of the latest checkpoints are kept; 0 keeps all.
    cfg.SOLVER.CHECKPOINTS_TO_KEEP = 0

    # An exponential moving average of the weights: evaluated and saved beside the weights.
    cfg.SOLVER.EMA = CfgNode()
    cfg.SOLVER.EMA.ENABLED = False
    # The average keeps this fraction of itself in each step (less in the first steps).
    cfg.SOLVER.EMA.DECAY = 0.9998


def _add_mask_former_config(cfg: CfgNode) -> None:
    head = cfg.MODEL.SEM_SEG_HEAD
    # Channels of mask_features and of the mask embeddings.
    head.MASK_DIM = 256
    # Layers of the pixel decoder's transformer encoder; BasePixelDecoder has none.
    head.TRANSFORMER_ENC_LAYERS = 0
    # Registered name of the pixel decoder: MaskFormer's BasePixelDecoder (an FPN) or
    # TransformerEncoderPixelDecoder (with a transformer encoder on the coarsest feature), or
    # Mask2Former's MSDeformAttnPixelDecoder.
    head.PIXEL_DECODER_NAME = "BasePixelDecoder"
    # Backbone features that enter the deformable encoder; finer ones join through the FPN.
    head.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES = ["res3", "res4", "res5"]
    # Accepted for compatibility: Mask2Former defines these two, and always uses 4 and NHEADS.
    head.DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS = 4
    head.DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS = 8

    mask_former = cfg.MODEL.MASK_FORMER = CfgNode()
    # Losses on every layer's predictions, not only on the last layer's.
    mask_former.DEEP_SUPERVISION = True
    # Weight of the no-object class in the classification loss.
    mask_former.NO_OBJECT_WEIGHT = 0.1
    # Weights of the losses, and of the same costs in the matching.
    mask_former.CLASS_WEIGHT = 1.0
    mask_former.DICE_WEIGHT = 1.0
    mask_former.MASK_WEIGHT = 20.0
    # Transformers. DROPOUT applies to all of them but the masked decoder, which has none.
    mask_former.NHEADS = 8
    mask_former.DROPOUT = 0.1
    mask_former.DIM_FEEDFORWARD = 2048
    # Encoder layers of the standard transformer decoder; the masked decoder has none.
    mask_former.ENC_LAYERS = 0
    # Number of predictions. The standard decoder makes one per layer; the masked decoder makes one
    # from the queries themselves, then one per layer.
    mask_former.DEC_LAYERS = 6
    mask_former.PRE_NORM = False
    mask_former.HIDDEN_DIM = 256
    mask_former.NUM_OBJECT_QUERIES = 100
    # What the transformer decoder attends to: multi_scale_pixel_decoder (Mask2Former), or one
    # feature (MaskFormer): transformer_encoder (the pixel decoder's), pixel_embedding (the mask
    # features) or one of the backbone's, such as res5.
    mask_former.TRANSFORMER_IN_FEATURE = "res5"
    # Put a 1x1 projection before the transformer decoder even if the channels agree.
    mask_former.ENFORCE_INPUT_PROJ = False
    # Registered name of the transformer decoder: MultiScaleMaskedTransformerDecoder (Mask2Former's)
    # or StandardTransformerDecoder (MaskFormer's, whose configs do not have the key). auto is the
    # one that suits TRANSFORMER_IN_FEATURE. As published, a panoptic segment has all pixels of its
    # query with MaskFormer's, and only those in its mask with Mask2Former's.
    mask_former.TRANSFORMER_DECODER_NAME = "auto"
    # Images are padded to a multiple of this; a negative number takes the backbone's own.
    mask_former.SIZE_DIVISIBILITY = 32
    # Points per mask at which mask losses and costs are computed; three times as many candidates
    # are drawn (OVERSAMPLE_RATIO), of which the most uncertain make up IMPORTANCE_SAMPLE_RATIO of
    # the points (PointRend, arXiv 1912.08193, section 3.1).
    mask_former.TRAIN_NUM_POINTS = 112 * 112
    mask_former.OVERSAMPLE_RATIO = 3.0
    mask_former.IMPORTANCE_SAMPLE_RATIO = 0.75

    mask_former.TEST = CfgNode()
    # Which results inference computes.
    mask_former.TEST.SEMANTIC_ON = True
    mask_former.TEST.INSTANCE_ON = False
    mask_former.TEST.PANOPTIC_ON = False
    # Panoptic: a query counts above this score ...
    mask_former.TEST.OBJECT_MASK_THRESHOLD = 0.0
    # ... and if at least this fraction of its mask is not covered by others.
    mask_former.TEST.OVERLAP_THRESHOLD = 0.0
    # Semantic: resize mask logits to the image before classes are combined (more memory).
    mask_former.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE = False


def _add_classifier_config(cfg: CfgNode) -> None:
    # Image classification, MODEL.META_ARCHITECTURE ImageClassifier.
    classifier = cfg.MODEL.CLASSIFIER = CfgNode()
    classifier.NUM_CLASSES = 1000
    # False: each image has one class; softmax and cross entropy. True: any number of classes,
    # including none; sigmoid and binary cross entropy.
    classifier.MULTI_LABEL = False
    # This fraction of the target is spread evenly over all classes; not with MULTI_LABEL.
    classifier.LABEL_SMOOTHING = 0.0
    # The backbone's feature to average over the image; empty takes the one of largest stride.
    classifier.IN_FEATURE = ""


def _add_denoising_config(cfg: CfgNode) -> None:
    ddep = cfg.MODEL.DDEP = CfgNode()
    # True is DDeP: the pretrained encoder is fixed, only the decoder learns. In DeP both learn.
    ddep.FREEZE_BACKBONE = True
    # What is pretrained: pixel_decoder (MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME), fpn (a backbone's,
    # such as build_resnet_fpn_backbone's; only its bottom_up is frozen), or deeplab (DeepLabV3+'s
    # decoder, which has no MULTI_SCALE).
    ddep.DECODER = "pixel_decoder"
    # scaled: (x + sigma * eps) / sqrt(1 + sigma^2); additive: x + sigma * eps.
    ddep.NOISE = "scaled"
    # Standard deviation of the noise in units of the normalised image: [sigma], or [low, high] to
    # draw each image's uniformly.
    ddep.SIGMA = [0.48]
    # What is predicted: noise or image.
    ddep.TARGET = "noise"
    # Errors of all predictions: l2, l1 or huber, averaged over the pixels that are not padding.
    ddep.LOSS = "l2"
    # Weight of loss_denoise, the error of what is predicted at full size.
    ddep.DENOISE_WEIGHT = 1.0
    # Also predict small clean images from the decoder's strides 8, 16 and 32, which gives the
    # deformable encoder something to learn.
    ddep.MULTI_SCALE = False
    # Total weight of these three losses: loss_denoise_s8, _s16 and _s32 have a third each.
    ddep.SCALE_WEIGHT = 1.0
    # Weight of loss_features: the decoder also predicts the frozen encoder's FEATURE of the clean
    # image, enlarged FEATURE_ENLARGEMENT times, which shows the encoder's features at a finer grid
    # than it gives of the image itself. 0 predicts none.
    ddep.FEATURE_WEIGHT = 0.0
    ddep.FEATURE = "res5"
    ddep.FEATURE_ENLARGEMENT = 2
    # Mask losses and costs of fine-tuning: points (cross entropy and dice at points, as many as
    # MODEL.MASK_FORMER.TRAIN_NUM_POINTS) or dense (focal loss and dice over all pixels). auto is
    # what the transformer decoder was published with: points for Mask2Former's, dense for
    # MaskFormer's.
    ddep.MASK_LOSS = "auto"
    # Which weights fine-tuning takes from MODEL.WEIGHTS when it starts: any of backbone (the image
    # encoder), encoder (the pixel decoder's input projections and transformer encoder), fpn (the
    # convolutions of the pixel decoder, of a backbone's FPN or of DeepLabV3+ that join the scales),
    # mask_features. Weights in none of these groups are always taken.
    ddep.TRANSFER = ["backbone", "encoder", "fpn", "mask_features"]

    # Recompute the activations of the pixel decoder's transformer encoder in the backward pass, to
    # save memory (MODEL.SWIN.USE_CHECKPOINT does so for Swin). BasePixelDecoder has no encoder.
    ddep.CHECKPOINT_PIXEL_DECODER = False
    # Memory layout of convolutions, (N, H, W, C).
    ddep.CHANNELS_LAST = False
    # Compile backbone, pixel decoder and heads with torch.compile.
    ddep.COMPILE = False

    # MODEL.BACKBONE.NAME TimmBackbone: any encoder that timm knows.
    ddep.TIMM = CfgNode()
    ddep.TIMM.NAME = "convnext_tiny"
    # Stochastic depth rate.
    ddep.TIMM.DROP_PATH_RATE = 0.0
    # Side of a plain model's patches in pixels; 0 is its own (14 for DINOv2, which 16 suits better:
    # it divides the strides). tools/convert-pretrained.py --config-file resizes the weights.
    ddep.TIMM.PATCH_SIZE = 0
    # Which blocks of a plain model (or which of the other features that timm lists) become res2 to
    # res5: four increasing numbers, counted from 0. The blocks after the last one are left out.
    # Empty: four evenly spaced blocks, the last one among them.
    ddep.TIMM.OUT_INDICES = []


def _add_sliding_config(cfg: CfgNode) -> None:
    # Evaluation and prediction of semantic segmentation. TEST.AUG, detectron2's, averages over the
    # shorter sides MIN_SIZES (instead of INPUT.MIN_SIZE_TEST) and, with FLIP, mirrored images; no
    # side is longer than MAX_SIZE. It works for detectors as well. TEST.SLIDE cuts what would be
    # the model's input into windows and averages where they overlap.
    cfg.TEST.SLIDE = CfgNode()
    cfg.TEST.SLIDE.ENABLED = False
    # Height and width of a window, in pixels of the model's input.
    cfg.TEST.SLIDE.CROP_SIZE = [512, 512]
    # From one window to the next, down and to the right. The last one of each row and column is
    # moved back into the image.
    cfg.TEST.SLIDE.STRIDE = [341, 341]


def _add_monitoring_config(cfg: CfgNode) -> None:
    # Evaluations in training (TEST.EVAL_PERIOD) keep the checkpoint that is best by this metric as
    # model_best.pth: panoptic_seg/PQ, sem_seg/mIoU, segm/AP, denoising/noise_mse, ...; with several
    # test sets <set>/panoptic_seg/PQ; for the moving average ema/panoptic_seg/PQ. Empty: keep none.
    cfg.TEST.BEST_METRIC = ""
    # Whether the best is the largest (max) or the smallest (min).
    cfg.TEST.BEST_MODE = "max"

    # Weights & Biases, an additional writer; needs pip install wandb.
    cfg.WANDB = CfgNode()
    cfg.WANDB.ENABLED = False
    cfg.WANDB.PROJECT = "ddep"
    # Name of the run; empty takes the name of OUTPUT_DIR.
    cfg.WANDB.NAME = ""
