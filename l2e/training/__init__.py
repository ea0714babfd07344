"""Training: the loop and its events, DeepSpeed, schedules, optimizer, callbacks."""
