"""lm-eval's tasks on a loaded model."""
