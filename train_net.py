"""Pretrain by denoising, fine-tune for segmentation, or evaluate, as the config says.

python train_net.py --config-file configs/ddep_swin.yaml --num-gpus 8
python train_net.py --config-file CONFIG --resume
python train_net.py --config-file CONFIG --eval-only MODEL.WEIGHTS CHECKPOINT
"""

from ddep.engine import run

if __name__ == "__main__":
    run()
