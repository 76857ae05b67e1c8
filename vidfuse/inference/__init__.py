"""Using a trained model: evaluation on a dataset, prediction on clips."""
