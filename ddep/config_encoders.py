"""The config keys of encoders: frozen and adapted ones, Swin, and whitened ResNets."""

from __future__ import annotations

from detectron2.config import CfgNode


def add_encoder_config(cfg: CfgNode) -> None:
    """Add the keys to ``cfg``, in place; Swin's are Mask2Former's."""
    _add_frozen_config(cfg)
    _add_swin_config(cfg)
    _add_whitening_config(cfg)


def _add_frozen_config(cfg: CfgNode) -> None:
    # Keep the pretrained encoder as it is in fine-tuning: no gradients, eval mode, not in the
    # optimizer. It is the backbone without an FPN around it. In denoising pretraining
    # MODEL.DDEP.FREEZE_BACKBONE says so.
    # Checkpoints then hold what is trained, and say which file has the encoder: MODEL.WEIGHTS of
    # the run, or what that says itself.
    cfg.MODEL.BACKBONE.FREEZE = False
    # The file with the frozen encoder of such a checkpoint, if it is no longer where it was, nor
    # beside the checkpoint.
    cfg.MODEL.BACKBONE.FROZEN_WEIGHTS = ""

    # Rein (arXiv 2312.04265): learnable tokens that refine the features of a frozen plain vision
    # transformer (TimmBackbone) after each block. Needs MODEL.BACKBONE.FREEZE.
    rein = cfg.MODEL.REIN = CfgNode()
    rein.ENABLED = False
    # Learnable tokens of each block, and the rank of their matrix.
    rein.TOKENS = 100
    rein.RANK = 16
    # Make the queries of Mask2Former's decoder of these tokens: TOKENS is NUM_OBJECT_QUERIES.
    rein.LINK_QUERIES = True

    # LoRA (arXiv 2106.09685): ALPHA / RANK times a matrix of rank RANK is added to the weights of
    # the attention's qkv and proj, which are frozen as with Rein. A RANK of 0 adds none.
    lora = cfg.MODEL.LORA = CfgNode()
    lora.RANK = 0
    lora.ALPHA = 16.0


def _add_swin_config(cfg: CfgNode) -> None:
    swin = cfg.MODEL.SWIN = CfgNode()
    # Swin (arXiv 2103.14030), the values of Swin-T.
    # Image size that absolute position embeddings are made for.
    swin.PRETRAIN_IMG_SIZE = 224
    swin.PATCH_SIZE = 4
    swin.EMBED_DIM = 96
    swin.DEPTHS = [2, 2, 6, 2]
    swin.NUM_HEADS = [3, 6, 12, 24]
    swin.WINDOW_SIZE = 7
    swin.MLP_RATIO = 4.0
    swin.QKV_BIAS = True
    # Factor on the queries; None is head_dim ** -0.5.
    swin.QK_SCALE = None
    swin.DROP_RATE = 0.0
    swin.ATTN_DROP_RATE = 0.0
    # Stochastic depth rate of the last block; grows linearly from 0 at the first.
    swin.DROP_PATH_RATE = 0.3
    # Absolute position embeddings.
    swin.APE = False
    # LayerNorm after the patch embedding.
    swin.PATCH_NORM = True
    swin.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    # Recompute activations in the backward pass to save memory.
    swin.USE_CHECKPOINT = False


def _add_whitening_config(cfg: CfgNode) -> None:
    # Generalisation to domains without any image of them: instance selective whitening of RobustNet
    # (arXiv 2103.15597), for the backbones build_whitened_resnet_backbone and
    # build_whitened_resnet_deeplab_backbone.
    isw = cfg.MODEL.ISW = CfgNode()
    # Weight of loss_whitening. 0: no loss and no measuring, only the ResNet's instance norm.
    isw.WEIGHT = 0.6
    # First iteration with the loss. RobustNet takes the end of the sixth epoch.
    isw.START_ITER = 2000
    # In so many iterations before it, how much the covariances of features change with the colours
    # of each training image is measured. RobustNet measures 500 images at a time.
    isw.MEASURED_ITERS = 100
    # Clusters of these changes; the covariances in all but the lowest are whitened. RobustNet: 3 on
    # GTA5, 2 on Cityscapes.
    isw.CLUSTERS = 3
    # What changes colours to measure: jitter of brightness, contrast, saturation and hue as in
    # INPUT.COLOR_JITTER, and a blur as in INPUT.GAUSSIAN_BLUR, both always.
    isw.COLOR_JITTER = [0.8, 0.8, 0.8, 0.3]
    isw.BLUR_SIGMA = [0.15, 1.3]
