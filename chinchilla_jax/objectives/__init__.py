"""What is minimised: functions that give gradients of a sum."""
