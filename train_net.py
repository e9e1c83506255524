"""Pretrain by denoising, fine-tune, or evaluate, as the config says.

python train_net.py --config-file configs/ddep_swin.yaml --num-gpus 8
torchrun --nproc-per-node 8 train_net.py --config-file configs/ddep_swin.yaml
python train_net.py --config-file CONFIG --num-gpus 2 MODEL.DEVICE cpu
python train_net.py --config-file CONFIG --resume
python train_net.py --config-file CONFIG --eval-only MODEL.WEIGHTS CHECKPOINT
"""

from ddep.engine import run

if __name__ == "__main__":
    run()
