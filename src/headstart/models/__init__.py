"""The saved model: its folder, its predictions, its exports."""
