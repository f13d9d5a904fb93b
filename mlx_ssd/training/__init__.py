"""LoRA fine-tuning on token rows: batches, loss, adapter, schedule, checkpoints, and the loop over them."""
