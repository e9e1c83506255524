"""The config keys of fine-tuning with unlabelled images of a target domain."""

from __future__ import annotations

from detectron2.config import CfgNode


def add_adaptation_config(cfg: CfgNode) -> None:
    """Add the keys of the second stream of images and of every method to ``cfg``, in place."""
    # Sets of images whose labels are never read: ``images:<folder>`` or any registered set. A set
    # that is also in DATASETS.TRAIN needs a limit on its labels (LABEL_FRACTION, ...): its images
    # without labels are the target then, which is semi-supervised learning.
    cfg.DATASETS.TARGET = ()
    # Target images in each step, beside the IMS_PER_BATCH labelled ones; 0: as many as those.
    cfg.SOLVER.TARGET_IMS_PER_BATCH = 0

    adaptation = cfg.MODEL.ADAPTATION = CfgNode()
    # What the target images are for: entropy (MinEnt), adversarial (AdaptSegNet, AdvEnt), teacher
    # (mean teacher), sac (DA-SAC), consistency (UniMatch V2), prototypes or distillation
    # (ProDA). Empty: nothing.
    adaptation.METHOD = ""
    _add_strong_views(adaptation)
    _add_entropy(adaptation)
    _add_adversarial(adaptation)
    _add_class_ratio(adaptation)
    _add_teacher(adaptation)
    _add_sac(adaptation)
    _add_consistency(adaptation)
    _add_prototypes(adaptation)


def _add_strong_views(adaptation: CfgNode) -> None:
    # Strong views of target images: the student sees them, the teacher does not (defaults: UniMatch
    # V2, arXiv 2410.10777).
    strong = adaptation.STRONG = CfgNode()
    # Largest changes of brightness, contrast, saturation and hue, as torchvision's ColorJitter
    # takes them, and how often they are drawn.
    strong.COLOR_JITTER = [0.5, 0.5, 0.5, 0.25]
    strong.JITTER_PROBABILITY = 0.8
    strong.GRAY_PROBABILITY = 0.2
    # Range of the standard deviation of a Gaussian blur, in pixels, and how often it is drawn.
    strong.BLUR_SIGMA = [0.1, 2.0]
    strong.BLUR_PROBABILITY = 0.5


def _add_entropy(adaptation: CfgNode) -> None:
    # MinEnt (arXiv 1811.12833).
    entropy = adaptation.ENTROPY = CfgNode()
    # Weights of the mean entropy of target pixels, of the decoder's last layer and, if there are
    # more numbers, of the layers before it, from the last to the first. ADVENT's: [0.001, 0.0002].
    entropy.WEIGHTS = [0.001]


def _add_adversarial(adaptation: CfgNode) -> None:
    # AdaptSegNet (arXiv 1802.10349) and AdvEnt (arXiv 1811.12833).
    adversarial = adaptation.ADVERSARIAL = CfgNode()
    # What discriminators see: softmax (AdaptSegNet: class probabilities) or self_information
    # (AdvEnt: -p log p / log K of each class).
    adversarial.MAPS = "self_information"
    # Weights of the losses that fool the discriminators, of the decoder's last layer and, if there
    # are more numbers, of the layers before it, from the last to the first; each layer has a
    # discriminator. Both papers' for two layers: [0.001, 0.0002].
    adversarial.WEIGHTS = [0.001]
    # The discriminators' optimizer is Adam; its learning rate follows SOLVER's schedule.
    adversarial.BASE_LR = 1e-4
    adversarial.BETAS = [0.9, 0.99]


def _add_class_ratio(adaptation: CfgNode) -> None:
    # A prior for entropy and adversarial (arXiv 1811.12833, section 3.3): the mean probability of
    # each class in a target image should be at least MU times its share of the labelled pixels.
    prior = adaptation.CLASS_RATIO = CfgNode()
    # Of the missing shares' sum; 0: no prior.
    prior.WEIGHT = 0.0
    prior.MU = 0.5


def _add_teacher(adaptation: CfgNode) -> None:
    # The plain mean teacher (arXiv 1703.01780).
    teacher = adaptation.TEACHER = CfgNode()
    # Weight of the loss of target images.
    teacher.WEIGHT = 1.0
    # The teacher's class counts where its probability is at least this.
    teacher.THRESHOLD = 0.95


def _add_sac(adaptation: CfgNode) -> None:
    # DA-SAC (arXiv 2105.00097).
    sac = adaptation.SAC = CfgNode()
    # Weight of the loss of target images.
    sac.WEIGHT = 5.0
    # Views of each target image, all of which student and teacher see: the image itself, and crops
    # that are enlarged to its size, half of them flipped as INPUT.RANDOM_FLIP says.
    sac.VIEWS = 4
    # Smallest and largest side of a crop as a fraction of the image's.
    sac.ZOOM = [0.5, 1.0]
    # A class counts where its probability is above max(LEAST_THRESHOLD, PEAK_FRACTION * peak *
    # (1 - exp(-share / RARE_SHARE))): peak is its highest probability in the view, share its
    # running mean probability in all views.
    sac.PEAK_FRACTION = 0.75
    sac.LEAST_THRESHOLD = 0.2
    sac.RARE_SHARE = 0.001
    # How much of a class's share is kept at each step.
    sac.SHARE_MOMENTUM = 0.99
    # A pixel's loss is multiplied by the teacher's confidence and by (1 - share) to this power.
    sac.FOCAL_POWER = 3.0
    # With PSEUDO_LABELS (of the model that training starts from), target images are drawn by their
    # shares of the classes' pixels, classes counting the same; this fraction of the draws is
    # uniform.
    sac.UNIFORM_SHARE = 0.25


def _add_consistency(adaptation: CfgNode) -> None:
    # UniMatch V2 (arXiv 2410.10777).
    consistency = adaptation.CONSISTENCY = CfgNode()
    # Weight of the loss of target images: the mean over their two strong views.
    consistency.WEIGHT = 1.0
    # The teacher's class counts where its probability is at least this.
    consistency.THRESHOLD = 0.95
    # How often a box of another target image is pasted into a strong view (CutMix), the range of
    # its area as a fraction of the image's, and of its height divided by its width.
    consistency.CUTMIX_PROBABILITY = 0.5
    consistency.CUTMIX_AREA = [0.02, 0.4]
    consistency.CUTMIX_ASPECT = [0.3, 1 / 0.3]
    # For this fraction of the pairs of strong views, each channel of the encoder's features is
    # dropped in one of the two and doubled in the other.
    consistency.DROPOUT_PROBABILITY = 0.5


def _add_prototypes(adaptation: CfgNode) -> None:
    # Folder that tools/pseudo-labels.py has written, for METHOD prototypes and distillation, and
    # (optional) for sac.
    adaptation.PSEUDO_LABELS = ""

    # ProDA (arXiv 2101.10979).
    prototypes = adaptation.PROTOTYPES = CfgNode()
    # Nearness to prototypes is softmax(-distance / TEMPERATURE). It suits the lengths of the
    # model's features: with larger ones, and a small temperature, only the nearest class counts.
    prototypes.TEMPERATURE = 1.0
    # In each step, a prototype is MOMENTUM times itself plus the rest times the batch's mean.
    prototypes.MOMENTUM = 0.9999
    # Weights of the cross entropy with corrected pseudo-labels, of the reverse cross entropy, of
    # the divergence of nearness to prototypes in the strong view, and of the regulariser. The last
    # two are averaged over the classes as well.
    prototypes.CROSS_ENTROPY_WEIGHT = 0.1
    prototypes.REVERSE_WEIGHT = 1.0
    prototypes.CONSISTENCY_WEIGHT = 10.0
    prototypes.REGULARISER_WEIGHT = 0.1

    # ProDA's later stages: pseudo-labels of the adapted model train a fresh one.
    distillation = adaptation.DISTILLATION = CfgNode()
    # A pseudo-label's class counts where its probability is above this.
    distillation.THRESHOLD = 0.95
    # Weight of the divergence from the pseudo-label's probabilities, averaged over the classes.
    distillation.DIVERGENCE_WEIGHT = 1.0
