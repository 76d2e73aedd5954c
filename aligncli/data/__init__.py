"""Data sets: COCO folders and the procedural `shapes`, image reading, augmentation and batching."""
