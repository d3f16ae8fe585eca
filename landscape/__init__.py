"""landscape: the shape of the loss around a trained model."""
