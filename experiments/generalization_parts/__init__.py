"""The parts of the study of generalisation in training time."""
