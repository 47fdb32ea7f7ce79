"""Engine, epochs, evaluation, Trainer, history."""
