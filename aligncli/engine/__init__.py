"""What runs models: training, evaluation, checkpoints, and COCO metrics."""
